"""Choosing the trial to export: the knee, the best, a trial number, or a condition on the columns of the front."""

import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from autoprune.config.constraints import Drop
from autoprune.config.metric import MetricSpec
from autoprune.errors import ExportError, did_you_mean
from autoprune.study.dense_reference import DenseReference
from autoprune.study.exclusion import EXCLUDED, ROUNDING, eligible, shortfall, shortfall_error
from autoprune.study.pareto import knee

DEFAULT_DROP = 0.01
"""How much worse than dense ``best`` may be where the space file does not say, in units of :meth:`MetricSpec.unit`."""

_FORMS = 'knee, best, a trial number, or a condition such as "flops<=0.5x" or "accuracy>=0.95 and latency_ms<=4"'
_OPERATORS: Mapping[str, Callable[["pd.Series[float]", float], "pd.Series[bool]"]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_CONDITION = re.compile(r"(?P<column>[^<>=]+?)\s*(?P<symbol><=|>=|<|>)\s*(?P<value>[^\s<>=]+?)\s*(?P<relative>x?)")


def select_trial(
    front: pd.DataFrame,
    trials: pd.DataFrame,
    select: str,
    dense: DenseReference,
    metric: MetricSpec,
    drop: Drop | None,
    objectives: Sequence[str],
    *,
    kept: Collection[int] | None = None,
) -> int:
    """Choose one trial of a study.

    - ``knee``: the knee of the front (``autoprune.study.pareto.knee``).
    - ``best``: the cheapest trial of the front, by the first cost objective, whose metric is worse than the dense
      network's by ``drop`` at most even if the standard errors of both add up against it; if there is none, the
      cheapest by the figures alone (:func:`uncertain_drop` then says so).
    - ``12``: trial 12, on the front or not, if it finished and its model was kept.
    - ``flops<=0.5x and latency_ms<=4``: of the front's trials for which every condition holds, the one with the best
      metric; where all conditions are on the metric, the cheapest by the first cost objective. Conditions are joined by
      ``and`` or ``,``, compare the metric by its name, or a numeric column, by ``<=``, ``>=``, ``<`` or ``>``, and
      ``0.5x`` is half the dense network's figure.

    All but a number pass over the points that are excluded (:mod:`autoprune.study.exclusion`).

    Args:
        front: The non-dominated trials, with the columns of ``front.parquet``.
        trials: All trials, with the columns of ``trials.parquet``.
        metric: Name and direction of the study's metric.
        drop: ``metric_drop`` of the space file's constraints; ``None`` is ``DEFAULT_DROP``.
        objectives: Names of the study's objectives.
        kept: Numbers of the trials whose model is on disk; ``None`` means the front's.

    Returns:
        The trial's number.

    Raises:
        ExportError: If ``select`` can't be read, a column is unknown, no trial satisfies the conditions, or the
            numbered trial is missing, did not finish, or has no model.
    """
    wanted = select.strip()
    if re.fullmatch(r"\d+", wanted):
        return _numbered(int(wanted), front, trials, kept)
    if front.empty:
        raise ExportError(f"select {wanted!r}: the front is empty, no trial has finished yet. Search first.")
    if eligible(front).empty:
        causes = ", ".join(f"trial {row.number} is {row.excluded}" for row in front.itertuples())
        raise ExportError(
            f"select {wanted!r}: no trial of the front can be chosen: {causes}. Name one by its number, search for "
            "more trials, or allow a greater constraints.metric_drop."
        )
    front = eligible(front)
    if wanted == "knee":
        columns = metric.columns(objectives)
        known = front.dropna(subset=columns)
        if known.empty:
            raise ExportError(f"select 'knee': no trial of the front has values for {', '.join(objectives)}.")
        return int(known["number"].iloc[knee(known[columns], metric.directions(objectives))])
    cost = next((name for name in objectives if name != metric.name), "params")
    if wanted == "best":
        amount = _allowed_drop(dense, metric, drop)
        worst_case = shortfall(front, dense, metric) + shortfall_error(front, dense, metric)
        sure = front[worst_case <= amount + ROUNDING * max(1.0, abs(dense.metric))]
        if len(sure):
            return _cheapest(sure, metric, cost)
        worst = metric.value(metric.score(dense.metric) - amount)
        limit = _Condition(metric.column, "<=" if metric.is_minimized else ">=", worst)
        within = f"{amount:.4g}" if drop is None else str(drop)
        said = f"best ({metric.name} within {within} of dense, {dense.metric:.4g})"
        return _cheapest(_satisfying(front, [limit], said), metric, cost)
    conditions = [_parse(part, wanted, front, dense, metric) for part in re.split(r"\s+and\s+|,", wanted)]
    left = _satisfying(front, conditions, wanted)
    if all(condition.column == metric.column for condition in conditions):
        return _cheapest(left, metric, cost)
    best = left.sort_values([metric.column, cost], ascending=[metric.is_minimized, True], kind="stable")
    return int(best["number"].iloc[0])


def uncertain_drop(row: pd.DataFrame, dense: DenseReference, metric: MetricSpec, drop: Drop | None) -> str | None:
    """Say that the validation split is too small to tell whether a trial is within the drop; ``None`` if it tells.

    Args:
        row: The trial's row of ``trials.parquet``.
        drop: As in :func:`select_trial`.
    """
    amount = _allowed_drop(dense, metric, drop)
    worse = float(shortfall(row, dense, metric).iloc[0])
    error = float(shortfall_error(row, dense, metric).iloc[0])
    if not abs(worse - amount) < error:
        return None
    than_dense = f"{metric.text(abs(worse))} {'worse' if worse > 0 else 'better'} than dense" if worse else "as dense"
    return (
        f"its {metric.name} is {than_dense}, ±{error:.2g}: the validation split is too small to tell whether that is "
        f"within {metric.text(amount) if drop is None else drop}"
    )


def _allowed_drop(dense: DenseReference, metric: MetricSpec, drop: Drop | None) -> float:
    return DEFAULT_DROP * metric.unit(dense.metric) if drop is None else drop.amount(dense.metric)


@dataclass(frozen=True)
class _Condition:
    column: str
    symbol: str
    limit: float

    def __str__(self) -> str:
        return f"{_shown(self.column)}{self.symbol}{self.limit:.6g}"

    def holds(self, table: pd.DataFrame) -> "pd.Series[bool]":
        # Room for rounding in a limit such as dense accuracy - 0.01: a trial that is exactly there must not be lost.
        slack = 1e-9 * max(1.0, abs(self.limit)) if "=" in self.symbol else 0.0
        return _OPERATORS[self.symbol](
            _numbers(table, self.column), self.limit + (slack if self.symbol[0] == "<" else -slack)
        )


def _numbers(table: pd.DataFrame, column: str) -> "pd.Series[float]":
    return pd.to_numeric(table[column]).astype(float)


def _shown(column: str) -> str:
    """A column as a person names it: the metric by its name alone."""
    return re.sub(r"(^|\.)metric\.", r"\1", column)


def _parse(text: str, whole: str, front: pd.DataFrame, dense: DenseReference, metric: MetricSpec) -> _Condition:
    match = _CONDITION.fullmatch(text.strip())
    try:
        value = float(match["value"]) if match else None
    except ValueError:
        value = None
    if match is None or value is None:
        raise ExportError(
            f"select {whole!r} can't be read{did_you_mean(text.strip(), ['knee', 'best'])}. Write {_FORMS}."
        )
    column = match["column"]
    of_metric = rf"(lineage\.|from_dense\.)?({re.escape(metric.name)}(?:_test)?(?:_std|_se)?)"
    if named := re.fullmatch(of_metric, column):
        column = f"{named[1] or ''}metric.{named[2]}"
    # A column without any value, such as a latency that was not measured, has no numeric type.
    numeric = [
        name
        for name in front.columns
        if not _is_of_test(name, metric)
        and name not in ("error", "source", EXCLUDED)
        and (pd.api.types.is_numeric_dtype(front[name]) or front[name].isna().all())
    ]
    if _is_of_test(column, metric):
        raise ExportError(
            f"select: {_shown(column)} can't choose a trial, for then the test split no longer tests. "
            f"Use {metric.name}."
        )
    if column not in numeric:
        names = [_shown(name) for name in numeric]
        known = ", ".join(name for name in names if not name.startswith(("param.", "kept.")))
        raise ExportError(
            f"select: unknown column {column!r}{did_you_mean(column, names)}. Known: {known}, "
            "and the numeric param.<name> and kept.<group>."
        )
    if match["relative"]:
        figures = dense.figures(metric.column)
        if column not in figures:
            raise ExportError(
                f"select: {text.strip()} is relative to the dense network, whose {_shown(column)} is not known. "
                f"Relative limits can be put on: {', '.join(map(_shown, figures))}."
            )
        value *= figures[column]
    return _Condition(column, match["symbol"], value)


def _is_of_test(column: str, metric: MetricSpec) -> bool:
    return metric.test_column in column


def _satisfying(front: pd.DataFrame, conditions: Sequence[_Condition], select: str) -> pd.DataFrame:
    """Keep the rows for which all conditions hold, at least one; the error says how near the nearest comes."""
    left = front
    for position, condition in enumerate(conditions):
        holding = left[condition.holds(left)]
        if holding.empty:
            among = " with " + " and ".join(map(str, conditions[:position])) if position else ""
            values = _numbers(left, condition.column)
            if values.isna().all():
                nearest = f"None of those{among} has a value for {_shown(condition.column)}."
            else:
                row = int(np.nanargmin(values) if condition.symbol[0] == "<" else np.nanargmax(values))
                nearest = (
                    f"Of those{among}, trial {left['number'].iloc[row]} comes nearest to {condition}, "
                    f"with {_shown(condition.column)} {values.iloc[row]:.6g}."
                )
            raise ExportError(f"select {select}: no trial of the front satisfies it. {nearest}")
        left = holding
    return left


def _cheapest(table: pd.DataFrame, metric: MetricSpec, cost: str) -> int:
    order = table.sort_values([cost, metric.column], ascending=[True, metric.is_minimized], kind="stable")
    return int(order["number"].iloc[0])


def _numbered(number: int, front: pd.DataFrame, trials: pd.DataFrame, kept: Collection[int] | None) -> int:
    row = trials[trials["number"] == number]
    if row.empty:
        has = f"The study has trials 0 to {trials['number'].max()}." if len(trials) else "The study has no trial yet."
        raise ExportError(f"select {number}: there is no trial {number}. {has}")
    state, error = row["state"].iloc[0], row["error"].iloc[0]
    if state != "finished":
        cause = f" ({error})" if isinstance(error, str) and error else ""
        raise ExportError(f"select {number}: only a finished trial can be exported, trial {number} is {state}{cause}.")
    available = sorted(set(front["number"] if kept is None else kept))
    if number not in available:
        raise ExportError(
            f"select {number}: the model of trial {number} was not kept, as other trials dominate it. "
            f"Kept: {', '.join(map(str, available)) or 'none'}."
        )
    return number
