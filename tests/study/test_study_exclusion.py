"""Points that are worse than dense by more than `metric_drop`, or no better than it, are told apart."""

from typing import Any

import pandas as pd
import pytest

from autoprune.config import SearchConfig
from autoprune.config.metric import MetricSpec
from autoprune.study.dense_reference import DenseReference
from autoprune.study.exclusion import eligible, shortfall, shortfall_error, with_exclusions
from autoprune.trial import Cost, Latency

COST = Cost(params=1000, nonzero_params=1000, size_bytes=4000, macs=500)
LATENCY = Latency(1.0, "cpu", 1, 1, 20)


def config(drop: Any = None, costs: tuple[str, ...] = ("flops",)) -> SearchConfig:
    task = {"model": "m:net", "data": "m:data"}
    constraints = {} if drop is None else {"metric_drop": drop}
    return SearchConfig.model_validate(
        {"study": "s", "task": task, "objectives": ["accuracy", *costs], "constraints": constraints}
    )


def dense(metric: float, error: float | None = None, cost: Cost = COST) -> DenseReference:
    return DenseReference(metric, 1.0, cost, LATENCY, metric_se=error)


def front(*rows: tuple[float, float], error: float | None = None) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["metric.accuracy", "flops"]).assign(params=900)
    return frame.assign(number=range(len(frame)), **{"metric.accuracy_se": error})


def causes(frame: pd.DataFrame) -> list[str | None]:
    return [None if cause is None or cause != cause else cause for cause in frame["excluded"]]


@pytest.mark.parametrize(
    ("drop", "expected"),
    [
        (None, [None, None, None]),
        (0.02, [None, None, "beyond metric_drop"]),
        (0.0, [None, "beyond metric_drop", "beyond metric_drop"]),
        ("2.5%", [None, None, "beyond metric_drop"]),
        (0.5, [None, None, None]),
    ],
)
def test_a_drop_that_is_too_great(drop: Any, expected: list[str | None]) -> None:
    points = front((0.91, 900), (0.88, 500), (0.5, 100))
    excluded = with_exclusions(points, dense(0.9), config(drop))
    assert causes(excluded) == expected
    assert list(eligible(excluded)["number"]) == [number for number, cause in enumerate(expected) if cause is None]


def test_a_point_exactly_at_the_drop_holds_it() -> None:
    assert causes(with_exclusions(front((0.97 - 0.01, 10)), dense(0.97), config(0.01))) == [None]


def test_a_point_that_the_dense_network_dominates_or_equals() -> None:
    points = front((0.91, 1000), (0.9, 1000), (0.9, 999), (0.89, 1000), (0.89, 1200))
    expected = [None, "no better than dense", None, "no better than dense", "no better than dense"]
    assert causes(with_exclusions(points, dense(0.9), config())) == expected
    in_three = with_exclusions(points, dense(0.9), config(costs=("flops", "params")))
    assert causes(in_three) == [None] * 5, "they have fewer parameters"


def test_a_cost_that_was_not_measured_of_dense_dominates_nothing() -> None:
    points = front((0.5, 1000)).assign(latency_ms=2.0)
    assert causes(with_exclusions(points, dense(0.9), config(costs=("latency_ms",)))) == [None]


def test_the_shortfall_follows_the_direction_and_both_errors_count() -> None:
    rmse = MetricSpec("rmse", "minimize")
    points = pd.DataFrame({"metric.rmse": [42.0, 39.0], "metric.rmse_se": [3.0, None]})
    assert shortfall(points, dense(40.0), rmse).tolist() == [2.0, -1.0]
    assert shortfall_error(points, dense(40.0, 4.0), rmse).tolist() == [5.0, 4.0]
    assert shortfall_error(points.drop(columns="metric.rmse_se"), dense(40.0), rmse).tolist() == [0.0, 0.0]
