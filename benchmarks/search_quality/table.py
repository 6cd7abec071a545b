"""The tables of all runs: a row a method, the median over the seeds and the range."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console, Group, RenderableType
from rich.table import Table

from benchmarks.markdown import short
from benchmarks.search_quality.measures import SHARES, best_at, epochs_until, test_volume, volume_at
from benchmarks.search_quality.settings import SETTINGS

Measure = Callable[[pd.DataFrame], float]

_STYLE: dict[str, Any] = {"box": None, "pad_edge": False, "padding": (0, 1, 0, 0), "min_width": 40}


def tables(frame: pd.DataFrame, setting: str) -> RenderableType:
    """All tables of one setting, at most 80 columns wide."""
    rows = frame[frame["setting"] == setting]
    reference = SETTINGS[setting].reference
    runs = {str(name): [run for _, run in part.groupby("seed")] for name, part in rows.groupby("method")}

    budget = ", ".join(f"{budget:g}" for budget in sorted(set(rows["budget"])))
    dense, dense_test = rows["accuracy_dense"].median(), rows["accuracy_dense_test"].median()
    return Group(
        f"{setting}: {budget} epochs; dense accuracy {dense:.3f}, on test {dense_test:.3f}",
        f"(hypervolume: over accuracy {reference} at 1.0x MACs, so below {dense - reference:.3f})",
        _table("hypervolume, MACs linear", runs, volume_measures(reference, log=False)),
        _table("hypervolume, MACs from 0.01x on a log axis", runs, volume_measures(reference, log=True)),
        _reached(runs, reference),
        _table("best accuracy on validation, MACs at most", runs, accuracy_measures(0)),
        _table("the same networks on test", runs, accuracy_measures(1)),
        _seeds(runs),
        "",
    )


def volume_measures(reference: float, log: bool) -> dict[str, Measure]:
    """Heading -> hypervolume after that share of the epochs, on validation or on test."""
    found: dict[str, Measure] = {
        heading: lambda run, share=share: volume_at(run, share * float(run["budget"].iloc[0]), reference, log)
        for heading, share in (("1/3", 1 / 3), ("2/3", 2 / 3), ("all", 1.0))
    }
    return found | {"all, test": lambda run: test_volume(run, reference, log)}


def accuracy_measures(index: int) -> dict[str, Measure]:
    """Heading -> the best accuracy at that share of the MACs: 0 on validation, 1 of the same networks on test."""
    return {f"{share}x": lambda run, share=share: best_at(run, share)[index] for share in SHARES}


def print_tables(frame: pd.DataFrame, settings: Sequence[str], console: Console) -> None:
    """Print the tables of every setting that has runs."""
    for setting in settings:
        if (frame["setting"] == setting).any():
            console.print(tables(frame, setting))


def _reached(runs: dict[str, list[pd.DataFrame]], reference: float) -> Table:
    """When each method had what the best of the others has at the end."""
    table = Table(title="epochs until the best other method's final hypervolume", title_justify="left", **_STYLE)
    table.add_column("method", no_wrap=True)
    columns = []
    for log in (False, True):
        table.add_column("MACs log" if log else "MACs linear", justify="right", no_wrap=True)
        finals = {
            method: float(np.median([volume_at(run, float("inf"), reference, log) for run in of_method]))
            for method, of_method in runs.items()
        }
        columns.append(
            {
                method: [
                    epochs_until(
                        run, max((finals[other] for other in runs if other != method), default=0), reference, log
                    )
                    for run in of_method
                ]
                for method, of_method in runs.items()
            }
        )
    for method in sorted(runs, key=lambda name: tuple(np.median(column[name]) for column in columns)):
        table.add_row(method, *(_range(pd.Series(column[method]), _whole) for column in columns))
    return table


def _table(title: str, runs: dict[str, list[pd.DataFrame]], measures: dict[str, Measure]) -> Table:
    found = {
        method: [pd.Series([measure(run) for run in of_method]) for measure in measures.values()]
        for method, of_method in runs.items()
    }
    last = 2 if "all" in measures else 0
    table = Table(title=title, title_justify="left", **_STYLE)
    table.add_column("method", no_wrap=True)
    for heading in measures:
        table.add_column(heading, justify="right", no_wrap=True)
    for method in sorted(found, key=lambda name: -found[name][last].fillna(0.0).median()):
        table.add_row(method, *(_range(values.dropna(), short) for values in found[method]))
    return table


def _range(values: "pd.Series[float]", written: Callable[[float], str]) -> str:
    """The median, and if there are several the least and the greatest."""
    if values.empty:
        return "-"
    median = written(float(np.median(values)))
    if len(values) == 1 or math.isinf(values.min()):
        return median
    return f"{median} {written(values.min())}-{written(values.max())}"


def _whole(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) else "never"


def _seeds(runs: dict[str, list[pd.DataFrame]]) -> str:
    by_number: dict[int, list[str]] = {}
    for method, of_method in runs.items():
        by_number.setdefault(len(of_method), []).append(method)
    if len(by_number) == 1:
        return f"seeds: {next(iter(by_number))}, median and range"
    return "; ".join(f"{number} seeds: {', '.join(names)}" for number, names in sorted(by_number.items()))
