"""The initial design: how the epochs are shared out over its steps, and what its next trial is."""

import numpy as np
import pytest
from tiny import dense_reference

from autoprune.config.metric import MetricSpec
from autoprune.search.samplers.cost_aware.history import History, PendingTrial, TrainedModel
from autoprune.search.samplers.cost_aware.initial_design import DesignTrial, InitialDesign, next_design_trial
from autoprune.search.samplers.cost_aware.settings import InitialDesignSettings
from autoprune.trial import Cost

DENSE = dense_reference(0.9, Cost(100, 100, 400, macs=500))

SETTINGS = InitialDesignSettings()


def design(max_share: float = 1.0, budget: float = 40, min_epochs: int = 1, max_epochs: int = 100) -> InitialDesign:
    return InitialDesign.plan(
        SETTINGS,
        max_share=max_share,
        min_share=0.02,
        budget_epochs=budget,
        min_epochs=min_epochs,
        max_epochs=max_epochs,
    )


PLAN = design(max_epochs=12)


def history_of(*ended: tuple[str, float], running: tuple[str, ...] = ()) -> History:
    """Finished trials as (origin, accuracy), numbered as they come, and running ones."""
    history = History({"a": 8}, DENSE, MetricSpec())
    for number, (origin, accuracy) in enumerate(ended):
        history.trained[number] = TrainedModel(number, np.array([4]), accuracy, {}, {}, (), None, 2, 2, origin)
    history.running = {
        100 + i: PendingTrial({}, None, origin, np.array([4]), (), 2) for i, origin in enumerate(running)
    }
    return history


def trial_after(history: History, floor: float = 0.5, searches_lr: bool = True) -> DesignTrial | None:
    return next_design_trial(PLAN, SETTINGS, history, floor, lambda _: True, searches_lr=searches_lr)


@pytest.mark.parametrize("budget", [3, 12, 40, 300])
def test_a_design_spends_its_epochs_on_falling_costs_and_more_on_narrow_networks(budget: float) -> None:
    plan = design(budget=budget)
    shares, epochs = np.array(plan.steps).T
    assert epochs.sum() == pytest.approx(budget, rel=0.02 if budget > 3 else 0.2)
    assert (np.diff(shares) < 0).all()
    assert (np.diff(epochs) >= 0).all()
    assert shares[0] == pytest.approx(0.8)
    assert shares[-1] == pytest.approx(0.02 if len(shares) > 1 else 0.8)


def test_more_epochs_give_more_steps_and_longer_ones() -> None:
    small, large = (design(budget=budget) for budget in (10, 60))
    assert len(small.shares) < len(large.shares)
    assert small.epochs.max() < large.epochs.max()


def test_trials_of_a_fixed_length_are_as_many_as_can_be_paid() -> None:
    plan = design(budget=15, min_epochs=3, max_epochs=3)
    assert plan.epochs.tolist() == [3.0] * 5


def test_a_ceiling_is_not_passed() -> None:
    plan = design(max_share=0.4, max_epochs=12)
    assert plan.shares[0] == pytest.approx(0.4)


def test_each_step_starts_from_the_last_and_waits_for_it() -> None:
    first = trial_after(history_of())
    assert first is not None
    assert (first.parent.number, first.lr_position) == (None, SETTINGS.lr_positions[0])
    second = trial_after(history_of((first.origin, 0.89)))
    assert second is not None
    assert second.parent.number == 0
    assert second.share < first.share
    assert trial_after(history_of((first.origin, 0.89), running=(second.origin,))) is None


def test_a_rate_that_does_harm_is_followed_by_a_lower_one_that_rises_again() -> None:
    high, low, lowest = (f"rate {rate:g}" for rate in SETTINGS.lr_positions)
    second = trial_after(history_of((high, 0.3)))
    assert second is not None
    assert (second.origin, second.lr_position) == (low, SETTINGS.lr_positions[1])
    ended, rates = [(high, 0.3), (low, 0.89)], [SETTINGS.lr_positions[1]]
    while (step := trial_after(history_of(*ended))) is not None and step.lr_position is not None:
        ended.append((step.origin, 0.8))
        rates.append(step.lr_position)
    assert (np.diff(rates) > 0).all()
    assert rates[-1] == pytest.approx(SETTINGS.last_lr_position)
    third = trial_after(history_of((high, 0.6), (low, 0.7)))
    assert third is not None
    assert (third.origin, third.lr_position) == (lowest, SETTINGS.lr_positions[2])


@pytest.mark.parametrize(("accuracies", "taken"), [((0.7, 0.6), 0), ((0.6, 0.7, 0.5), 1), ((0.5, 0.6, 0.7), 2)])
def test_the_best_rate_is_taken_where_all_do_harm(accuracies: tuple[float, ...], taken: int) -> None:
    tried = [(f"rate {rate:g}", accuracy) for rate, accuracy in zip(SETTINGS.lr_positions, accuracies, strict=False)]
    after = trial_after(history_of(*tried))
    assert after is not None
    assert after.lr_position is not None
    assert (after.origin, after.parent.number) == ("descent 1", taken)
    assert SETTINGS.lr_positions[taken] < after.lr_position < SETTINGS.last_lr_position


def test_where_no_rate_is_searched_there_is_one_first_step() -> None:
    only = trial_after(history_of((f"rate {SETTINGS.lr_positions[0]:g}", 0.6)), searches_lr=False)
    assert only is not None
    assert only.origin == "descent 1"


def test_a_step_that_failed_is_passed_over() -> None:
    history = history_of((f"rate {SETTINGS.lr_positions[0]:g}", 0.89), ("descent 1", 0.88))
    history.ended[7] = PendingTrial({}, 1, "descent 2", np.array([3]), (), 2)
    step = trial_after(history)
    assert step is not None
    assert (step.origin, step.parent.number) == ("descent 3", 1)


def test_the_design_ends_below_the_floor() -> None:
    ended = [(f"rate {SETTINGS.lr_positions[0]:g}", 0.89), ("descent 1", 0.88), ("descent 2", 0.4)]
    step = trial_after(history_of(*ended))
    assert step is not None
    assert (step.origin, step.parent.number, step.share) == ("again 1", 1, None)


def test_at_its_end_each_network_that_is_left_is_trained_on_the_narrowest_first() -> None:
    ended = [(f"rate {SETTINGS.lr_positions[0]:g}", 0.89), *((f"descent {n}", 0.8) for n in range(1, len(PLAN.shares)))]
    gone = 2
    agains = []
    while (
        step := next_design_trial(PLAN, SETTINGS, history_of(*ended), 0.5, lambda n: n != gone, searches_lr=True)
    ) is not None:
        ended.append((step.origin, 0.8))
        agains.append(step)
    kept = [number for number in reversed(range(len(PLAN.shares))) if number != gone]
    assert [step.parent.number for step in agains] == kept
    assert [step.epochs for step in agains] == [PLAN.train_on_epochs[number] for number in kept]
    assert all(step.share is None and step.lr_position is None for step in agains)


def test_those_that_are_trained_on_do_not_wait_for_one_another() -> None:
    ended = [(f"rate {SETTINGS.lr_positions[0]:g}", 0.89), *((f"descent {n}", 0.8) for n in range(1, len(PLAN.shares)))]
    last = len(PLAN.shares) - 1
    step = trial_after(history_of(*ended, running=(f"again {last}",)))
    assert step is not None
    assert step.origin == f"again {last - 1}"
