"""Choosing a trial from a small study written out by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tiny import dense_reference

from autoprune.config.constraints import Constraints, Drop
from autoprune.config.metric import MetricSpec
from autoprune.errors import ExportError
from autoprune.export import select_trial
from autoprune.export.select import uncertain_drop
from autoprune.trial import Cost

TRIALS = pd.DataFrame(
    [
        # number, state, accuracy, params, flops, error, on_front
        (0, "finished", 0.970, 9000, 1000, None, True),
        (1, "finished", 0.968, 6000, 520, None, True),
        (2, "finished", 0.960, 5000, 400, None, True),
        (3, "failed", np.nan, 4000, 390, "RuntimeError: loss is NaN", False),
        (4, "finished", 0.700, 3000, 150, None, True),
        (5, "finished", 0.500, 1000, 100, None, True),
        (6, "finished", 0.400, 2000, 200, None, False),
        (7, "infeasible", np.nan, 9000, 990, "flops over 0.9x", False),
    ],
    columns=["number", "state", "metric.accuracy", "params", "flops", "error", "on_front"],
).assign(latency_ms=[None] * 8, **{"kept.layer1.0.conv1": [16, 8, 8, 8, 4, 2, 2, 16], "param.kind": "cosine"})
METRIC = MetricSpec()
FRONT = TRIALS[TRIALS["on_front"]].assign(**{"metric.accuracy_test": 0.9})
COST = Cost(params=9000, nonzero_params=9000, size_bytes=36_000, macs=500)
DENSE = dense_reference(0.970, COST)


def choose(select: str, drop: float | None = None, **extra: object) -> int:
    allowed = None if drop is None else Drop(value=drop)
    return select_trial(FRONT, TRIALS, select, DENSE, METRIC, allowed, ["accuracy", "flops"], **extra)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("select", "number"),
    [
        ("knee", 2),
        ("best", 2),
        ("0", 0),
        (" 4 ", 4),
        ("flops<=0.5x", 2),
        ("flops <= 0.52x", 1),
        ("flops<520", 2),
        ("flops<=520", 1),
        ("flops<=1.5e2", 4),
        ("accuracy>=0.95", 2),
        ("accuracy>=1.0x", 0),
        ("accuracy>0.6, accuracy<0.9", 4),
        ("flops<=0.9x and params<=5_000", 2),
        ("kept.layer1.0.conv1<=8", 1),
        ("params>=5000 and flops>=600", 0),
    ],
)
def test_the_trial_that_is_meant_is_found(select: str, number: int) -> None:
    assert choose(select) == number


def test_best_counts_a_trial_that_is_exactly_at_the_limit() -> None:
    assert choose("best", 0.002) == 1
    assert choose("best", 0.0) == 0
    assert choose("best", 0.3) == 4


def test_a_dominated_trial_can_be_named_if_its_model_was_kept() -> None:
    assert choose("6", kept={0, 6}) == 6


def test_equal_accuracy_goes_to_the_cheaper_trial() -> None:
    front = pd.DataFrame({"number": [3, 8], "metric.accuracy": [0.9, 0.9], "params": [5, 7], "flops": [40, 20]})
    assert select_trial(front, front, "flops<=50", DENSE, METRIC, None, ["accuracy", "flops"]) == 8


@pytest.mark.parametrize(
    ("select", "said"),
    [
        ("kneee", "'kneee' can't be read .did you mean 'knee'... Write knee, best, a trial number"),
        ("-1", "can't be read"),
        ("flops<=half", "can't be read"),
        ("flops<=0.5x or params<=3", "can't be read"),
        ("flop<=3", r"unknown column 'flop' \(did you mean 'flops'\?\). Known: number, accuracy, params, flops"),
        ("param.kind<=3", "unknown column 'param.kind'"),
        ("accuracy_test>=0.9", "the test split no longer tests. Use accuracy"),
        ("lineage.metric.accuracy_test_std<=0.1", "the test split no longer tests. Use accuracy"),
        ("latency_ms<=0.5x", "whose latency_ms is not known.* put on: accuracy, loss, params, .*flops"),
        ("latency_ms<=4", "None of those has a value for latency_ms"),
        ("flops<=0.05x", "Of those, trial 5 comes nearest to flops<=50, with flops 100"),
        ("accuracy>=0.99", "Of those, trial 0 comes nearest to accuracy>=0.99, with accuracy 0.97"),
        (
            "accuracy>=0.9 and flops<=300",
            "Of those with accuracy>=0.9, trial 2 comes nearest to flops<=300, with flops 400",
        ),
        ("12", "there is no trial 12. The study has trials 0 to 7"),
        ("3", r"trial 3 is failed \(RuntimeError: loss is NaN\)"),
        ("7", r"trial 7 is infeasible \(flops over 0.9x\)"),
        ("6", "the model of trial 6 was not kept.* Kept: 0, 1, 2, 4, 5"),
    ],
)
def test_what_names_no_trial_is_explained(select: str, said: str) -> None:
    with pytest.raises(ExportError, match=said):
        choose(select)


def test_a_mean_over_seeds_on_validation_may_choose() -> None:
    certified = FRONT.assign(
        **{"lineage.metric.accuracy": [0.9, 0.95, 0.94, 0.6, 0.4], "lineage.metric.accuracy_test": 0.9}
    )
    objectives = ["accuracy", "flops"]
    for column in ("lineage.metric.accuracy", "lineage.accuracy"):
        select = f"{column}>=0.93 and flops<=450"
        assert select_trial(certified, TRIALS, select, DENSE, METRIC, None, objectives) == 2
    with pytest.raises(ExportError, match=r"Known: number, accuracy, params, flops, .*lineage\.accuracy, and"):
        select_trial(certified, TRIALS, "lineage.acuracy>=0.93", DENSE, METRIC, None, objectives)


def test_best_says_how_near_the_front_comes() -> None:
    with pytest.raises(ExportError, match=r"best \(accuracy within 0 of dense, 0.99\).*trial 0 comes nearest"):
        select_trial(FRONT, TRIALS, "best", dense_reference(0.99, COST), METRIC, Drop(value=0.0), ["accuracy", "flops"])


def test_an_empty_front_is_explained() -> None:
    with pytest.raises(ExportError, match="the front is empty"):
        select_trial(FRONT.iloc[:0], TRIALS, "knee", DENSE, METRIC, None, ["accuracy", "flops"])


@pytest.mark.parametrize(
    ("error", "drop", "number"),
    [
        (0.0, 0.01, 2),  # by the figures alone: 0.960 is exactly at the limit
        (0.003, 0.01, 1),  # 0.960 may be 0.0142 worse, 0.968 at most 0.0062
        (0.001, 0.02, 2),
        (0.05, 0.01, 2),  # nothing is sure: the figures alone decide
    ],
)
def test_best_takes_the_errors_of_both_networks_into_account(error: float, drop: float, number: int) -> None:
    front = FRONT.assign(**{"metric.accuracy_se": error})
    dense = replace(DENSE, metric_se=error)
    allowed = Drop(value=drop)
    assert select_trial(front, TRIALS, "best", dense, METRIC, allowed, ["accuracy", "flops"]) == number
    said = uncertain_drop(front[front["number"] == number], dense, METRIC, allowed)
    assert (said is None) == (error in (0.0, 0.001, 0.003))
    assert said is None or said.startswith("its accuracy is 0.0100 worse than dense, ±0.071: the validation split is")


def test_best_of_a_metric_that_is_minimised() -> None:
    rmse = MetricSpec("rmse", "minimize")
    front = pd.DataFrame(
        {"number": [0, 1], "metric.rmse": [40.5, 41.5], "metric.rmse_se": [0.3, 0.3], "flops": [50, 20]}
    )
    dense = replace(DENSE, metric=40.0, metric_se=0.4)
    for drop, number in ((1.0, 0), (1.99, 0), (2.0, 1), ("5%", 1)):
        allowed = Constraints.model_validate({"metric_drop": drop}).metric_drop
        assert select_trial(front, front, "best", dense, rmse, allowed, ["rmse", "flops"]) == number


EXCLUDED = FRONT.assign(excluded=[None, None, None, "beyond metric_drop", "beyond metric_drop"])


@pytest.mark.parametrize(("select", "number"), [("knee", 1), ("best", 2), ("flops<=0.45x", 2), ("5", 5)])
def test_an_excluded_point_is_passed_over_but_by_its_number(select: str, number: int) -> None:
    assert select_trial(EXCLUDED, TRIALS, select, DENSE, METRIC, None, ["accuracy", "flops"]) == number


def test_excluded_points_are_named_where_no_other_is_left() -> None:
    with pytest.raises(ExportError, match=r"trial 4 is beyond metric_drop, trial 5 is .* constraints.metric_drop"):
        select_trial(EXCLUDED[3:], TRIALS, "knee", DENSE, METRIC, None, ["accuracy", "flops"])
    with pytest.raises(ExportError, match=r"trial 2 comes nearest to flops<=200, with flops 400\."):
        select_trial(EXCLUDED, TRIALS, "flops<=200", DENSE, METRIC, None, ["accuracy", "flops"])
    with pytest.raises(ExportError, match=r"unknown column 'excluded'"):
        select_trial(EXCLUDED, TRIALS, "excluded<=2", DENSE, METRIC, None, ["accuracy", "flops"])


RMSE = MetricSpec("rmse", "minimize")
ERRORS = pd.DataFrame(
    [(0, "finished", 40.0, 900, 800), (1, "finished", 44.0, 400, 300), (2, "finished", 60.0, 100, 90)],
    columns=["number", "state", "metric.rmse", "params", "flops"],
).assign(error=None, on_front=True)


@pytest.mark.parametrize(
    ("select", "drop", "number"),
    [
        ("best", None, 0),
        ("best", Drop(value=5.0), 1),
        ("best", Drop(value=0.5, relative=True), 2),
        ("rmse<=45", None, 1),
        ("rmse<=1.2x", None, 1),
        ("metric.rmse<50 and flops<=400", None, 1),
        ("flops<=900", None, 0),
        ("knee", None, 1),
    ],
)
def test_a_metric_that_is_better_when_lower(select: str, drop: Drop | None, number: int) -> None:
    dense = dense_reference(40.0, COST)
    assert select_trial(ERRORS, ERRORS, select, dense, RMSE, drop, ["rmse", "flops"]) == number
    with pytest.raises(ExportError, match=r"trial 0 comes nearest to rmse<=39, with rmse 40"):
        select_trial(ERRORS, ERRORS, "rmse<=39", dense, RMSE, drop, ["rmse", "flops"])
