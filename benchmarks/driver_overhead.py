"""What dispatching trials costs beyond their training, and what it costs three other ways of dispatching the same.

Training is slept, so that its time is known and both cores are left to all else. ``overhead`` is (2 workers x wall
time) / (sum of training time), from the first trial's training to the beginning of the last but one, for trials up to
there: two trials more are run than counted, so that what follows a trial counts too. The worker's own work on a trial
(pruning and its proof, evaluation, cost, latency, saving) is in it for all ways alike: they run the same worker.
``start`` is from the command to the first trial's training, with the dense network and the plan made before.
CPU and memory are those of the dispatching process; ``driver`` is the part spent in the driver's own methods.

    python -m benchmarks.driver_overhead
    python -m benchmarks.driver_overhead --seconds 10 --trials 20 --ways autoprune
"""

import argparse
import json
import os
import shutil
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
from benchmarks import driver_overhead_task
from benchmarks.driver_overhead_runs import WAYS
from benchmarks.markdown import markdown_table

OUT = Path("benchmarks/results/driver_overhead.parquet")
SECONDS = (0.02, 0.5, 2.0, 10.0)
N_TRIALS, N_SHORT = 200, 1000
SHORT_S = 0.02
WORKERS = 2
FIGURES = ("overhead", "start_s", "process_cpu_ms", "driver_cpu_ms", "driver_wall_ms", "rss_mib_100", "rss_mib_1000")


def make_study(root: Path, seconds: float) -> None:
    """A study of a tiny network that is ready for trials of one epoch and one batch, which takes this long."""
    root.mkdir()
    shutil.copy(driver_overhead_task.__file__, root / "timed_task.py")
    spec = {
        "study": "overhead",
        "task": {
            "model": "timed_task:net",
            "data": "timed_task:data",
            "augment": {"callable": "timed_task:slow", "args": {"seconds": seconds}},
        },
        "objectives": ["accuracy", "flops"],
        "dense": {"epochs": 1},
        "training": {
            "epochs": 1,
            "lr_schedule": {"kind": "constant", "lr": {"low": 0.001, "high": 0.1, "log": True}},
            "batch_size_schedule": {"kind": "constant", "size": driver_overhead_task.N_EXAMPLES},
        },
        "pruning": [{"method": "neuron", "reconstruct": False, "ratio": {"low": 0.0, "high": 0.8}}],
        "search": {"trials": 1_000_000, "sampler": "random", "start": "dense", "ladder": 0},
        "resources": {"workers": WORKERS},
    }
    space = root / "space.yaml"
    space.write_text(yaml.safe_dump(spec, sort_keys=False))
    one_thread = WorkerResources(workers=WORKERS, threads=1, gpus_per_trial=0.0, device=torch.device("cpu"))
    prepare_study(validate_space(read_space(space)), StudyFolder(root / "results" / "overhead"), one_thread)


def measure(way: str, seconds: float, n_trials: int) -> dict[str, Any]:
    """One row: ``n_trials`` counted trials of ``seconds``."""
    with tempfile.TemporaryDirectory() as scratch:
        root, times = Path(scratch) / "study", Path(scratch) / "times"
        make_study(root, seconds)
        n_run = n_trials + WORKERS
        environment = os.environ | {"AUTOPRUNE_TIMES": str(times), "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), str(root), environment.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "benchmarks.driver_overhead_runs", way, str(root), str(n_run)]
        load, began = os.getloadavg()[0], time.time()
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{way} failed:\n{done.stderr}")
        found = json.loads(done.stdout.splitlines()[-1])
        trained = sorted(tuple(map(float, line.split())) for line in times.read_text().splitlines())
    overhead = overhead_of(trained, n_trials)
    row: dict[str, Any] = {"way": way, "seconds": seconds, "trials": n_trials, "load": load}
    row |= {"overhead": overhead, "start_s": trained[0][0] - began}
    row |= {
        f"{name}_ms": 1000 * found.pop(f"{name}_s") / n_run
        for name in ("driver_cpu", "driver_wall")
        if found.get(f"{name}_s")
    }
    return row | {"process_cpu_ms": 1000 * found.pop("process_cpu_s") / n_run} | found


def overhead_of(trained: list[tuple[float, ...]], n_trials: int) -> float:
    """(workers x wall time) / (sum of training time) of the first trials.

    Args:
        trained: When the training of each trial began and ended, by its beginning; at least one more than counted.
    """
    wall = trained[n_trials][0] - trained[0][0]
    return WORKERS * wall / sum(end - begin for begin, end in trained[:n_trials])


def save(path: Path, row: dict[str, Any]) -> None:
    """Write a row in the place of that of the same cell."""
    frame = pd.DataFrame([row], columns=["way", "seconds", "trials", "load", *FIGURES])
    frame = frame.astype(dict.fromkeys(FIGURES, "float64"))
    if path.exists():
        frame = pd.concat([pd.read_parquet(path), frame]).drop_duplicates(["way", "seconds"], keep="last")
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.sort_values(["seconds", "way"], ignore_index=True).to_parquet(path, index=False)


def table_of(frame: pd.DataFrame) -> Table:
    table = Table(title="dispatching trials on 2 workers", title_justify="left", box=None)
    headings = (
        "trial s",
        "trials",
        "way",
        "overhead",
        "start s",
        "CPU ms a trial",
        "driver ms a trial",
        "MiB at 100 / 1,000",
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "way" else "right", no_wrap=True)
    for row in frame.sort_values("seconds", kind="stable").to_dict("records"):
        memory = [shown(row[f"rss_mib_{count}"], ".0f") for count in (100, 1000)]
        figures = [shown(row["overhead"], ".2f"), shown(row["start_s"], ".1f"), shown(row["process_cpu_ms"], ".0f")]
        figures += [shown(row["driver_cpu_ms"], ".0f"), " / ".join(memory)]
        table.add_row(f"{row['seconds']:g}", str(row["trials"]), row["way"], *figures)
    return table


def readme_table(rows: pd.DataFrame) -> list[str]:
    """Return README's table: a row a way, overheads by training time, with the number of trials counted."""
    lines = []
    for way in WAYS:
        cells = rows[rows["way"] == way].set_index("seconds")
        figures = [
            f"{cells.loc[seconds, 'overhead']:.2f} ({cells.loc[seconds, 'trials']})" if seconds in cells.index else "-"
            for seconds in SECONDS[1:]
        ]
        lines.append([way, *figures])
    return markdown_table(["way", *(f"{seconds:g} s" for seconds in SECONDS[1:])], lines)


def shown(value: float, form: str) -> str:
    return "-" if pd.isna(value) else format(value, form)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="*", default=SECONDS, help="training time of a trial")
    parser.add_argument("--trials", type=int, help=f"counted; {N_TRIALS} if left out, {N_SHORT} of {SHORT_S} s")
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=WAYS)
    parser.add_argument("--table", action="store_true", help="only print what was measured before")
    parser.add_argument("--out", type=Path, default=OUT, help="Parquet file; rows of other cells in it are kept")
    args = parser.parse_args()
    for seconds in () if args.table else args.seconds:
        for way in args.ways:
            save(args.out, measure(way, seconds, args.trials or (N_SHORT if seconds == SHORT_S else N_TRIALS)))
    Console(soft_wrap=True, highlight=False, width=120).print(table_of(pd.read_parquet(args.out)))


if __name__ == "__main__":
    main()
