"""Which points of a front are passed over when one is chosen, and why."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from autoprune.config import SearchConfig
from autoprune.config.metric import MetricSpec
from autoprune.study.dense_reference import DenseReference

EXCLUDED = "excluded"
"""Column of ``front.parquet`` with the cause; missing where there is none."""

BEYOND_DROP = "beyond metric_drop"
NO_BETTER_THAN_DENSE = "no better than dense"

ROUNDING = 1e-9
"""Share of a figure that rounding may take: a trial exactly at a limit holds it."""


def with_exclusions(front: pd.DataFrame, dense: DenseReference, config: SearchConfig) -> pd.DataFrame:
    """Add the column ``excluded`` to rows of ``front.parquet``.

    A point is excluded if its metric is worse than the dense network's by more than ``constraints.metric_drop``, where
    there is one, or if the dense network is as good or better in every objective.
    """
    metric, drop = config.metric, config.constraints.metric_drop
    causes = pd.Series([None] * len(front), index=front.index, dtype="object")
    causes[_as_good_as(front, dense, metric, config.objectives)] = NO_BETTER_THAN_DENSE
    if drop is not None:
        limit = drop.amount(dense.metric) + ROUNDING * max(1.0, abs(dense.metric))
        causes[shortfall(front, dense, metric) > limit] = BEYOND_DROP
    return front.assign(**{EXCLUDED: causes})


def eligible(front: pd.DataFrame) -> pd.DataFrame:
    """Keep the points that are not excluded."""
    return front[front[EXCLUDED].isna()] if EXCLUDED in front else front


def shortfall(front: pd.DataFrame, dense: DenseReference, metric: MetricSpec) -> "pd.Series[float]":
    """Return how much worse than the dense network's the metric of each point is; negative where it is better."""
    values = pd.to_numeric(front[metric.column]).astype(float)
    return values - dense.metric if metric.is_minimized else dense.metric - values


def shortfall_error(front: pd.DataFrame, dense: DenseReference, metric: MetricSpec) -> "pd.Series[float]":
    """Return the standard error of :func:`shortfall`; 0 where an error is not known.

    The two networks' errors count as independent. They are judged on the same examples, so the true one is smaller.
    """
    column = front.get(metric.error_column, pd.Series(np.nan, index=front.index))
    errors = pd.to_numeric(column).astype(float).fillna(0.0)
    return pd.Series(np.hypot(errors, dense.metric_se or 0.0), index=front.index)


def _as_good_as(
    front: pd.DataFrame, dense: DenseReference, metric: MetricSpec, objectives: Sequence[str]
) -> "pd.Series[bool]":
    """Where the dense network is as good or better in every objective; nowhere if one was not measured of it."""
    figures = dense.figures(metric.column)
    columns = metric.columns(objectives)
    if any(name not in figures for name in columns):
        return pd.Series(False, index=front.index)
    signs = np.array([1.0 if direction == "minimize" else -1.0 for direction in metric.directions(objectives)])
    points = signs * front[columns].astype(float).to_numpy()
    return pd.Series((signs * [figures[name] for name in columns] <= points).all(axis=1), index=front.index)
