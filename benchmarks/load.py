"""How long the commands take on a study of 10,000 trials that have ended.

The study is made as those of ``benchmarks.suggest_time`` are, 15 dimensions, each trial with its curve; the dense
network and the plan are real. Every command is a process of its own, as from a shell: wall and CPU time, loading Python
included. ``resume`` is what ``autoprune search`` does up to the moment at which its next trial is handed to the engine.

    python -m benchmarks.load
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from rich.console import Console
from rich.table import Table

from autoprune.search.prepare import prepare_study
from autoprune.search.resources import WorkerResources
from autoprune.search.validate import read_space, validate_space
from autoprune.study.folder import StudyFolder
from benchmarks.suggest_time_studies import TRAINING, Filling, Problem

OUT = Path("benchmarks/results/load.parquet")
N_TRIALS, N_DIMENSIONS = 10_000, 15
TASK = f"""
import torch
from benchmarks.suggest_time_studies import Problem

def net():
    return Problem({N_DIMENSIONS}).network[0]

def data():
    inputs, targets = torch.randn(64, 3, 2, 2), torch.arange(64) % 10
    return dict.fromkeys(("train", "validation", "test"), (inputs, targets))
"""
RESUME = """
import json, sys
from pathlib import Path
from autoprune.search.run import run_search
space = Path(sys.argv[1])
def first(driver, folder, places):
    config = driver.suggest()
    print(json.dumps(config.number))
    driver.release(config.number)
    driver.stop("measured")  # so that the test split, for which there are no networks, is not read
run_search(space, space.parent / "results", first)
"""


def make_study(root: Path, n_trials: int) -> StudyFolder:
    """A study with a real dense network and plan, and trials put into its storage."""
    root.mkdir(exist_ok=True)
    (root / "load_task.py").write_text(TASK)
    spec = {
        "study": "load",
        "task": {"model": "load_task:net", "data": "load_task:data"},
        "objectives": ["accuracy", "flops"],
        "dense": {"epochs": 1},
        "training": TRAINING,
        "pruning": [{"method": "neuron", "ratio": {"low": 0.0, "high": 0.9}}],
        "search": {"sampler": "random", "start": "dense", "trials": 1_000_000, "ladder": 0},
    }
    space = root / "space.yaml"
    space.write_text(yaml.safe_dump(spec, sort_keys=False))
    folder = StudyFolder(root / "results" / "load")
    prepare_study(
        validate_space(read_space(space)),
        folder,
        WorkerResources(workers=1, threads=1, gpus_per_trial=0.0, device=torch.device("cpu")),
    )
    Filling(Problem(N_DIMENSIONS, study="load"), folder).up_to(n_trials)
    return folder


def timed(what: str, arguments: list[str]) -> dict[str, Any]:
    environment = os.environ | {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([sys.executable, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"command": what, "wall_s": wall, "cpu_s": cpu}


def measure(n_trials: int) -> pd.DataFrame:
    """One row a command."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_study(Path(scratch) / "study", n_trials)
        space = folder.root.parents[1] / "space.yaml"
        rows = [
            timed("search", ["-c", RESUME, str(space)]),
            timed("status", ["-m", "autoprune", "status", str(folder.root)]),
            timed("pareto", ["-m", "autoprune", "pareto", str(folder.root)]),
        ]
    return pd.DataFrame([row | {"trials": n_trials, "load": os.getloadavg()[0]} for row in rows])


def table_of(frame: pd.DataFrame) -> Table:
    table = Table(title="commands on a study of many trials", title_justify="left", box=None)
    for heading in ("command", "trials", "wall s", "CPU s"):
        table.add_column(heading, justify="left" if heading == "command" else "right")
    for row in frame.to_dict("records"):
        table.add_row(row["command"], f"{row['trials']:,}", f"{row['wall_s']:.1f}", f"{row['cpu_s']:.1f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=N_TRIALS)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    frame = measure(args.trials)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(args.out, index=False)
    Console(width=100, highlight=False).print(table_of(frame))


if __name__ == "__main__":
    main()
