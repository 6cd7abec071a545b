"""The front while trials come in: equal points appear once, in whatever order they come."""

import itertools

import pytest
from tiny import dense_reference

from autoprune.config.metric import MetricSpec
from autoprune.study.front import Front
from autoprune.trial import Cost, TrialResult

RMSE = MetricSpec("rmse", "minimize")


def finished(number: int, metric: float, macs: int) -> TrialResult:
    return TrialResult(number, "finished", metric, 1.0, Cost(macs, macs, 4 * macs, macs))


@pytest.mark.parametrize("metric", [MetricSpec(), RMSE], ids=["accuracy", "rmse"])
def test_of_equal_points_the_first_trial_stays(metric: MetricSpec) -> None:
    worse, equal, other = metric.value(0.7), metric.value(0.8), metric.value(0.9)
    results = [finished(3, equal, 10), finished(5, equal, 10), finished(8, equal, 10), finished(9, other, 20)]
    results.append(finished(1, worse, 10))
    for order in itertools.permutations(results):
        front, gone = Front([metric.name, "flops"], metric), []
        for result in order:
            gone += front.add(result)
        assert front.members.keys() == {3, 9}
        assert gone == [1], "the networks of equal points stay, as later trials may start from them"


def test_what_differs_in_one_objective_is_no_equal() -> None:
    front = Front(["accuracy", "flops", "params"], MetricSpec())
    same = Cost(params=10, nonzero_params=10, size_bytes=40, macs=10)
    for number, cost in enumerate((same, Cost(20, 20, 80, macs=5), same)):
        front.add(TrialResult(number, "finished", 0.5, 1.0, cost))
    assert front.members.keys() == {0, 1}


def test_the_hypervolume_does_not_depend_on_the_unit_of_an_unbounded_metric() -> None:
    found = []
    for unit in (1.0, 1000.0):
        front = Front(["rmse", "flops"], RMSE)
        front.add(finished(0, 30.0 * unit, 50))
        front.add(finished(1, 90.0 * unit, 10))  # more than twice the dense network's
        found.append(front.hypervolume(dense_reference(40.0 * unit, Cost(100, 100, 400, 100))))
    assert found == pytest.approx([(2 - 30 / 40) * 0.5] * 2)
