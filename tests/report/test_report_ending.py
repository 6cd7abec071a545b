"""What is said of trials that did not finish."""

from collections.abc import Mapping

import pytest

from autoprune.config.metric import MetricSpec
from autoprune.report.ending import certification_failures, failed_trials, failures_by_cause, nothing_finished
from autoprune.study.status import StudyStatus


def status(
    failures: Mapping[int, str | None] | None = None,
    first_cause: tuple[int, str | None] | None = None,
    failed_repeats: Mapping[str, str | None] | None = None,
    **counts: int,
) -> StudyStatus:
    return StudyStatus(
        study="a",
        metric=MetricSpec(),
        is_ready=True,
        n_trials=9,
        n_ended=9,
        counts=dict.fromkeys(("finished", "stopped", "failed", "infeasible", "running", "waiting"), 0) | counts,
        failures=failures or {},
        first_cause=first_cause,
        epochs=0,
        epochs_dense=1,
        stop_early=False,
        rungs=(),
        warm_start=None,
        n_taken_over=0,
        deaths={},
        n_certified=3,
        failed_repeats=failed_repeats or {},
    )


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"failed": 3}, True),
        ({"infeasible": 3, "waiting": 2}, True),
        ({"stopped": 3}, True),
        ({"failed": 3, "finished": 1}, False),
        ({"failed": 3, "running": 1}, False),
        ({"waiting": 3}, False),
        ({}, False),
    ],
)
def test_a_study_has_failed_if_trials_ended_and_none_finished(counts: dict[str, int], expected: bool) -> None:
    assert status(**counts).has_failed == expected


def test_nothing_finished_says_what_became_of_the_trials() -> None:
    assert nothing_finished(status()) == "no trial has finished yet."
    found = nothing_finished(status(first_cause=(2, "OSError: no disk."), failed=1, infeasible=4, stopped=2))
    assert found == (
        "no trial has finished: 1 failed, 4 over a ceiling, 2 stopped early. The first, trial 2: OSError: no disk."
    )


def test_failures_are_counted_and_listed_by_cause() -> None:
    failures = dict.fromkeys(range(1, 25, 2), "ValueError: a") | {0: None, 6: "ValueError: a"}
    found = status(failures, failed=14)
    assert failed_trials(found) == "14 of 9 trials failed; the first, trial 0: cause unknown."
    assert failures_by_cause(found) == [
        ("trial 0", "cause unknown"),
        ("trials 1, 3, 5, 6, 7, 9, 11, 13, 15, 17 and 3 more", "ValueError: a"),
    ]
    assert failed_trials(status()) is None


def test_failed_certification_runs_are_told() -> None:
    assert certification_failures(status()) is None
    found = certification_failures(status(failed_repeats={"c/3-seed0.json": "ValueError: [a]", "c/4-seed1.json": None}))
    assert found == "2 of 5 certification runs failed; the first, c/3-seed0.json: ValueError: [a]."
