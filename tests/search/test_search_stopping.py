"""Stopping inside a trial: who is stopped, who is not, and when an epoch is believed."""

import pytest
from scipy.stats import spearmanr

from autoprune.search.stopping import N_BETTER, should_stop
from autoprune.study.rungs import MIN_PAIRS, Rungs


def rungs_with(accuracies: list[float], cost: float = 1.0, epochs: int = 4) -> Rungs:
    rungs = Rungs()
    for number, accuracy in enumerate(accuracies):
        rungs.record(number, epochs, [cost], [accuracy])
    return rungs


def test_enough_better_trials_at_no_more_cost_stop_one() -> None:
    rungs = rungs_with([0.9] * N_BETTER)
    rungs.record(100, 4, [1.0], [0.8])
    assert should_stop(rungs, 100)
    rungs.record(101, 4, [1.0], [0.95])
    assert not should_stop(rungs, 101)


def test_equal_accuracy_at_equal_cost_counts_as_better() -> None:
    rungs = rungs_with([0.8] * N_BETTER)
    rungs.record(100, 4, [1.0], [0.8])
    assert should_stop(rungs, 100)


def test_a_cheaper_trial_goes_on() -> None:
    rungs = rungs_with([0.9] * 10)
    rungs.record(100, 4, [0.5], [0.2])
    assert not should_stop(rungs, 100)


def test_one_better_trial_too_few_stops_nobody() -> None:
    rungs = rungs_with([0.9] * (N_BETTER - 1))
    rungs.record(100, 4, [1.0], [0.8])
    assert not should_stop(rungs, 100)


def test_the_last_epoch_stops_nobody() -> None:
    rungs = rungs_with([0.9] * 10)
    rungs.record(101, 4, [1.0], [0.9, 0.9, 0.9, 0.1])
    assert not should_stop(rungs, 101)


@pytest.mark.parametrize(("epochs", "stops"), [(8, True), (4, True), (2, False)])
def test_trials_are_compared_at_the_same_share_of_their_epochs_with_none_longer(epochs: int, stops: bool) -> None:
    rungs = Rungs()
    for number in range(N_BETTER):
        rungs.record(number, 4, [1.0], [0.1, 0.9])
    rungs.record(100, epochs, [1.0], [0.5] * (epochs // 2))
    assert should_stop(rungs, 100) is stops


def test_before_the_first_rung_nobody_is_stopped() -> None:
    rungs = rungs_with([0.9] * 10, epochs=12)
    rungs.record(100, 12, [1.0], [0.1])
    assert not should_stop(rungs, 100)


def test_an_epoch_that_does_not_tell_the_end_stops_nobody() -> None:
    early = [0.1 * number for number in range(MIN_PAIRS)]
    for late, stops in ((list(early), True), (early[::-1], False)):
        rungs = rungs_with(early)
        for number, accuracy in enumerate(late):
            rungs.record_end(number, accuracy)
        rungs.record(100, 4, [1.0], [0.0])
        (rung,) = rungs.reached()
        assert (rung.share, rung.n_trials, rung.n_finished) == (0.25, MIN_PAIRS + 1, MIN_PAIRS)
        assert rung.correlation == pytest.approx(spearmanr(early, late).statistic)
        assert should_stop(rungs, 100) is stops
