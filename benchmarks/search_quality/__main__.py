"""Hypervolume against all training epochs spent: search methods and careful baselines on three settings.

Every method trains through the project's own worker, on the same splits, from the same dense network of a seed. Runs
that are in the file already are not run again; a run that is killed leaves nothing.

    python -m benchmarks.search_quality --settings digits --seeds 0 1 2 3 4
    python -m benchmarks.search_quality --table --figure search_quality.svg
"""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from rich.console import Console

from autoprune.errors import TaskError
from benchmarks.search_quality import results
from benchmarks.search_quality.lab import BudgetSpentError, Lab
from benchmarks.search_quality.measures import volume_at
from benchmarks.search_quality.methods import METHODS, Method, MethodUnavailableError
from benchmarks.search_quality.settings import SETTINGS, Setting, prepared
from benchmarks.search_quality.table import print_tables


def run_one(
    setting: Setting, method: str, seed: int, work: Path, out: Path, methods: Mapping[str, Method] = METHODS
) -> str:
    """Run a method and write its rows; returns a line about it."""
    dense_study = prepared(setting, seed, work)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        lab = Lab(setting, seed, dense_study, Path(scratch) / "run", methods[method].changes(setting))
        with contextlib.suppress(BudgetSpentError):
            methods[method].run(lab)
        rows = lab.rows()
    wall_s = time.perf_counter() - start
    rows.insert(0, "setting", setting.name)
    rows.insert(1, "method", method)
    rows.insert(2, "seed", seed)
    results.write_run(out, rows.assign(run_time_s=wall_s))
    volume = volume_at(rows, setting.budget, setting.reference, log=False)
    return f"{len(rows)} trials, {lab.worker.spent:g} epochs, hypervolume {volume:.3f}, {wall_s:.0f} s"


def main(
    description: str | None = __doc__,
    methods: Mapping[str, Method] = METHODS,
    out: Path = Path("benchmarks/results/search_quality.parquet"),
) -> None:
    """Run methods as the command line says, and print their tables."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--methods", nargs="+", choices=methods, default=list(methods))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--work", type=Path, default=Path("results/search_quality"), help="keeps the dense networks")
    parser.add_argument("--again", action="store_true", help="run again what is in the file already")
    parser.add_argument("--table", action="store_true", help="run nothing, print the tables of what is there")
    parser.add_argument("--figure", type=Path, help="file to draw into, .svg or .png")
    args = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(soft_wrap=True, highlight=False)
    wanted = [(s, m, seed) for s in args.settings for seed in args.seeds for m in args.methods]
    for name, method, seed in [] if args.table else wanted:
        if results.has_run(results.read(args.out), name, method, seed) and not args.again:
            continue
        try:
            told = run_one(SETTINGS[name], method, seed, args.work, args.out, methods)
        except (TaskError, MethodUnavailableError) as error:
            told = f"skipped: {error}"
        console.print(f"{name} {method} seed {seed}: {told}")
    frame = results.read(args.out)
    frame = frame[frame["method"].isin(args.methods)]
    print_tables(frame, args.settings, console)
    if args.figure:
        from benchmarks.search_quality.figure import draw

        draw(frame, args.settings, args.figure)


if __name__ == "__main__":
    main()
