"""How long the driver takes to suggest a trial and to be told its result, on studies of 100 to 10,000 trials.

The driver, the space and the SQLite study are real; the network is a chain of convolutions with one group for each
searched width, and a trial's accuracy comes from a formula instead of training. A study is filled up to each size by
rows put into its database, and a copy of it is opened for every sampler: ten suggestions follow, each told a result.
Main figures are CPU time of this process on one thread: medians, without the first suggestion, which reads the study.
``told`` is without trials.parquet, which is written from time to time; ``write`` is one writing. A cell in which a
suggestion takes longer than a limit is given as that, and larger studies of that sampler are left out.

    python -m benchmarks.suggest_time
    python -m benchmarks.suggest_time --dimensions 30 --trials 300 --samplers "cost_aware, tree"
"""

import argparse
import math
import shutil
import signal
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from autoprune.search.driver import Driver
from autoprune.study.folder import SCHEMA, StudyFolder
from autoprune.study.records import result_of
from autoprune.trial import TrialResult
from benchmarks.suggest_time_studies import Filling, Problem

OUT = Path("benchmarks/results/suggest_time.parquet")
SIZES = (100, 300, 1_000, 3_000, 10_000)
DIMENSIONS = (15, 30, 60, 150)
SAMPLERS = ("cost_aware, tree", "cost_aware, dense", "tpe", "nsga2", "nsga3", "gp", "random", "qmc")
N_SUGGESTIONS = 10
LIMIT_S = 20.0


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what takes more CPU time of this process."""

    def end(_: int, __: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


class Clock:
    """CPU and wall time of what runs inside, in milliseconds."""

    def __enter__(self) -> "Clock":
        self._cpu, self._wall = time.process_time(), time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu, self.wall = 1000 * (time.process_time() - self._cpu), 1000 * (time.monotonic() - self._wall)


def leave_network(folder: StudyFolder, problem: Problem, result: TrialResult) -> None:
    """What the driver looks for where it asks whether a trial's network is kept, and what its channels are worth."""
    folder.model(result.number).mkdir(exist_ok=True)
    (folder.model(result.number) / "model.safetensors").touch()
    folder.write_json(folder.record(result.number), {"scores": problem.scores(result.kept)})


def measure(problem: Problem, filled: StudyFolder, sampler: str, n_suggestions: int, limit_s: float) -> dict[str, Any]:
    """One row of the table, from a copy of a filled study."""
    name, _, start = sampler.partition(", ")
    row: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = StudyFolder(Path(scratch) / "study", problem.space.spec)
        folder.create()
        shutil.copy(filled.database, folder.database)
        folder.write_json(folder.origin, {"schema": SCHEMA, "base_dir": "."})
        folder.write_json(folder.plan, {"scores": problem.scores({})})
        with Clock() as opening:
            driver = Driver(folder, problem.space_for(name, start or "dense"), problem.table, problem.dense)
        results = [result_of(trial) for trial in driver.study.get_trials(deepcopy=False)]
        for number in driver.front.members:
            result = results[number]
            assert result is not None
            leave_network(folder, problem, result)
        suggested, told = [], []
        try:
            for _ in range(1 + n_suggestions):
                with cpu_limit(limit_s), Clock() as clock:
                    config = driver.suggest()
                assert config is not None
                suggested.append(clock)
                result = problem.result(config)
                leave_network(folder, problem, result)
                with Clock() as clock:
                    driver.complete(result)
                told.append(clock)
        except TimeoutError:
            row["over_limit_s"] = limit_s
        with Clock() as writing:
            driver.write()
    if "over_limit_s" not in row:
        for what, clocks in (("suggest", suggested[1:]), ("told", told[1:])):
            row |= {
                f"{what}_cpu_ms": statistics.median(clock.cpu for clock in clocks),
                f"{what}_wall_ms": statistics.median(clock.wall for clock in clocks),
            }
        row["first_cpu_ms"] = suggested[0].cpu
    return row | {"open_cpu_ms": opening.cpu, "write_cpu_ms": writing.cpu}


def run(dimensions: Sequence[int], sizes: Sequence[int], samplers: Sequence[str], args: argparse.Namespace) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for n_dimensions in dimensions:
        problem = Problem(n_dimensions)
        too_slow: set[str] = set()
        with tempfile.TemporaryDirectory() as scratch:
            filled = StudyFolder(Path(scratch) / "filled", problem.space.spec)
            filling = Filling(problem, filled)
            for n_trials in sizes:
                filling.up_to(n_trials)
                for sampler in samplers:
                    if sampler in too_slow:
                        continue
                    row = measure(problem, filled, sampler, args.suggestions, args.limit)
                    if "over_limit_s" in row:
                        too_slow.add(sampler)
                    save(args.out, [{"sampler": sampler, "dimensions": n_dimensions, "trials": n_trials} | row])
                    figures = ", ".join(f"{what} {value:,.1f}" for what, value in row.items())
                    console.print(f"{n_dimensions} dimensions, {n_trials:,} trials, {sampler}: {figures}")


def save(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows in the place of those of the same cells."""
    key = ["sampler", "dimensions", "trials"]
    columns = [*key, "suggest_cpu_ms", "suggest_wall_ms", "told_cpu_ms", "told_wall_ms", "first_cpu_ms"]
    frame = pd.DataFrame(rows, columns=[*columns, "open_cpu_ms", "write_cpu_ms", "over_limit_s"])
    frame = frame.astype(dict.fromkeys(frame.columns[3:], "float64"))
    if path.exists():
        frame = pd.concat([pd.read_parquet(path), frame]).drop_duplicates(key, keep="last")
    frame = frame.sort_values([*key[1:], key[0]], ignore_index=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False)


def table_of(frame: pd.DataFrame) -> Table:
    """Milliseconds of CPU time for a suggestion / for a told result."""
    table = Table(title="CPU ms a suggestion / a told result, by trials in the study", title_justify="left", box=None)
    sizes = sorted(frame["trials"].unique())
    for heading in ("dimensions", "sampler", *(f"{size:,}" for size in sizes)):
        table.add_column(heading, justify="left" if heading == "sampler" else "right", no_wrap=True)
    for n_dimensions, of_dimensions in frame.groupby("dimensions"):
        for sampler in (name for name in SAMPLERS if name in set(of_dimensions["sampler"])):
            cells = of_dimensions[of_dimensions["sampler"] == sampler].set_index("trials").reindex(sizes)
            table.add_row(str(n_dimensions), sampler, *(_cell(row) for row in cells.to_dict("records")))
    return table


def _cell(row: dict[str, Any]) -> str:
    if not math.isnan(row["suggest_cpu_ms"]):
        return f"{row['suggest_cpu_ms']:,.0f} / {row['told_cpu_ms']:,.0f}"
    return "" if math.isnan(row["over_limit_s"]) else f"> {1000 * row['over_limit_s']:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimensions", type=int, nargs="*", default=DIMENSIONS)
    parser.add_argument("--trials", type=int, nargs="*", default=SIZES)
    parser.add_argument("--samplers", nargs="*", default=SAMPLERS, choices=SAMPLERS)
    parser.add_argument("--suggestions", type=int, default=N_SUGGESTIONS, help="of which the median is taken")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="CPU seconds after which a cell is given up")
    parser.add_argument("--table", action="store_true", help="only print what was measured before")
    parser.add_argument("--out", type=Path, default=OUT, help="Parquet file; rows of other cells in it are kept")
    args = parser.parse_args()
    if not args.table:
        torch.set_num_threads(1)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        run(args.dimensions, sorted(args.trials), args.samplers, args)
    Console(soft_wrap=True, highlight=False, width=120).print(table_of(pd.read_parquet(args.out)))


if __name__ == "__main__":
    main()
