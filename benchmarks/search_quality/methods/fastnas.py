"""ModelOpt's FastNAS decides the widths of every budget; cutting and training are those of all methods.

One search a budget, all on one sensitivity map of the dense network. The examples that its scores read are counted as
epochs. It runs in an environment of its own, named by an environment variable.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.search_quality.lab import Lab
from benchmarks.search_quality.methods._base import (
    N_BUDGETS,
    Method,
    MethodUnavailableError,
    Widths,
    train_budgets,
    tuned_rate,
    uniform_steps,
)

PYTHON = "AUTOPRUNE_MODELOPT_PYTHON"
"""Environment variable with the interpreter of an environment that has nvidia-modelopt."""

ROOT = Path(__file__).parents[3]


def fastnas(lab: Lab) -> None:
    """Twelve budgets, the MACs of the uniform ladder's, trained for as long as can be paid, each from dense.

    Where FastNAS finds nothing that is small enough, the uniform network stands in.
    """
    if PYTHON not in os.environ:
        raise MethodUnavailableError(
            f"needs nvidia-modelopt in an environment of its own, whose python {PYTHON} names; "
            "benchmarks/search_quality/fastnas_widths.py tells how to make it."
        )
    rate = tuned_rate(lab)
    uniform = uniform_steps(lab, N_BUDGETS)
    found = fastnas_widths(lab, [lab.macs_share(widths) for widths in uniform])
    steps = [widths or narrower for widths, narrower in zip(found, uniform, strict=True)]

    def as_it_is(widths: Widths, parent: int | None) -> Widths:
        return widths

    train_budgets(lab, rate, steps, as_it_is, lab.left, inherit=False)


def fastnas_widths(lab: Lab, shares: Sequence[float]) -> list[Widths | None]:
    """FastNAS's widths for every budget, ``None`` where it finds none; what it reads is entered into the account.

    Raises:
        RuntimeError: If it fails.
    """
    out = lab.folder.root / "fastnas.json"
    command = [os.environ[PYTHON], "-m", "benchmarks.search_quality.fastnas_widths", lab.folder.root, out, "--groups"]
    command += [*lab.groups, "--shares", *map(str, shares)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([str(part) for part in command], env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"FastNAS failed: {done.stderr[-2000:]}")
    answer = json.loads(out.read_text())
    lab.worker.spend_examples(answer["n_examples"])
    widths: list[Widths | None] = answer["widths"]
    return widths


FASTNAS = {fastnas.__name__: Method(fastnas)}
