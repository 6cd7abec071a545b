"""Tables of a study for the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from rich.table import Table

from autoprune.config.metric import MetricSpec
from autoprune.study.dense_reference import DenseReference
from autoprune.study.exclusion import EXCLUDED
from autoprune.study.tables import best_first

LABELS = {
    "params": "params",
    "nonzero_params": "nonzero",
    "size_bytes": "size",
    "macs": "MACs",
    "flops": "FLOPs",
    "latency_ms": "latency",
}
"""Column of a cost in trials.parquet -> heading."""


def front_table(
    front: pd.DataFrame,
    dense: DenseReference,
    objectives: Sequence[str],
    metric: MetricSpec,
    *,
    dense_test: float | None = None,
    title: str | None = None,
) -> Table:
    """The front, best metric first, below the dense network it is compared with.

    Args:
        front: Rows of ``front.parquet``.
        objectives: Their costs come first, and these alone are also given relative to dense: 80 columns hold no more.
        dense_test: The dense network's metric on the test split, where that was read.
    """
    figures = dense.figures(metric.column)
    compared = {name: value for name, value in figures.items() if name in objectives}
    costs = [name for name in objectives if name != metric.name]
    costs += [name for name in ("flops", "params", "size_bytes", "latency_ms") if name not in costs]
    with_test = metric.test_column in front and front[metric.test_column].notna().any()
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("trial", justify="right")
    for heading in [metric.name, *(["test"] if with_test else []), *(LABELS[name] for name in costs)]:
        table.add_column(heading, justify="right", overflow="fold")

    def cells(name: str, row: Mapping[Any, Any], test: float | None) -> list[str]:
        judged = with_error(metric, row[metric.column], row.get(metric.error_column))
        metrics = [judged, *([metric.text(test)] if with_test else [])]
        return [name, *metrics, *(cost_cell(cost, row.get(cost), compared.get(cost)) for cost in costs)]

    table.add_row(*cells("dense", figures | {metric.error_column: dense.metric_se}, dense_test))
    for row in best_first(front, metric).to_dict("records"):
        signs = (sign for sign, column in (("*", "source"), ("!", EXCLUDED)) if isinstance(row.get(column), str))
        table.add_row(*cells(f"{row['number']}{''.join(signs)}", row, row.get(metric.test_column)))
    table.caption, table.caption_justify = "\n".join(_footnotes(front, metric)), "left"
    return table


def _footnotes(front: pd.DataFrame, metric: MetricSpec) -> Iterator[str]:
    """What the signs of :func:`front_table` mean, those that it has."""
    if metric.error_column in front and front[metric.error_column].notna().any():
        yield "±: standard error, from the size of the validation split"
    causes = sorted(set(front[EXCLUDED].dropna())) if EXCLUDED in front else []
    if causes:
        yield f"!: passed over by knee, best and conditions: {' or '.join(causes)}"
    taken_over = front[["number", "source"]].dropna() if "source" in front else front[:0]
    if len(taken_over):
        origins = ", ".join(f"{number} is {source}" for number, source in taken_over.itertuples(index=False))
        yield f"*: taken over from another study: {origins}"


def is_certified(front: pd.DataFrame) -> bool:
    """Whether a front has been certified, in part at least."""
    return "holds" in front


def certification_table(front: pd.DataFrame, metric: MetricSpec) -> Table:
    """What the front's points hold over seeds, mean and deviation, best metric first.

    Args:
        front: Rows of ``front.parquet`` of a study that was certified.
    """
    table = plain_table(
        f"trained again over seeds ({metric.name}, mean±deviation)",
        *(">trial", ">seeds", ">lineage", ">test", ">from dense", ">test", "holds"),
    )
    for row in best_first(front, metric).to_dict("records"):
        runs = dict.fromkeys(str(row[f"{way}.runs"]) for way in ("lineage", "from_dense"))
        figures = [
            _over_seeds(metric, row[f"{way}.{column}"], row[f"{way}.{column}_std"])
            for way in ("lineage", "from_dense")
            for column in (metric.column, metric.test_column)
        ]
        holds = "-" if pd.isna(row["holds"]) else "yes" if row["holds"] else "no"
        table.add_row(str(row["number"]), "/".join(runs), *figures, holds)
    if not front["holds"].fillna(True).all():
        table.caption = "no: another point costs no more and was as good or better on average"
    return table


def cost_cell(name: str, value: float | None, dense: float | None = None) -> str:
    """A cost with its unit, and its ratio to the dense network's if that is given: ``81.2M 0.50x``."""
    if value is None or pd.isna(value):
        return "-"
    if not dense:
        return quantity(name, value)
    ratio = value / dense
    return f"{quantity(name, value)} {ratio:{'.2f' if ratio >= 0.1 else '.2g'}}x"


def quantity(name: str, value: float) -> str:
    """A cost with its unit, in at most three significant digits: ``81.2M``, ``1.07MB``, ``2.31ms``."""
    rounded = float(f"{value:.3g}")  # before the unit is chosen, so that 999,999 is 1M
    if name == "latency_ms":
        return f"{rounded / 1e3:g}s" if rounded >= 1e3 else f"{rounded:g}ms"
    unit = "B" if name == "size_bytes" else ""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rounded >= factor:
            return f"{rounded / factor:.3g}{prefix}{unit}"
    return f"{rounded:g}{unit}"


def plain_table(title: str, *columns: str) -> Table:
    """A table without lines; columns whose heading begins with ``>`` are aligned right."""
    table = Table(
        title=title, title_justify="left", caption_justify="left", box=None, pad_edge=False, header_style="bold"
    )
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    return table


def with_error(metric: MetricSpec, value: float | None, error: float | None) -> str:
    """Write a metric with its standard error, ``0.9512±.0031``; without one where it is not known."""
    if value is None or pd.isna(value) or error is None or pd.isna(error):
        return metric.text(value)
    return f"{metric.text(value)}±{f'{error:.2g}'.removeprefix('0')}"


def _over_seeds(metric: MetricSpec, mean: float, deviation: float) -> str:
    """``0.9512±.0031``; the deviation only where there is one."""
    if pd.isna(deviation):
        return metric.text(mean)
    return f"{metric.text(mean)}±{metric.text(deviation).removeprefix('0')}"
