"""The order in which costs are visited, and how the epochs are shared out over them."""

import itertools

import numpy as np
import pytest

from autoprune.search.cost_aware.descent import Descent
from autoprune.search.cost_aware.history import History, Node, Pending
from autoprune.search.cost_aware.sweeps import RATES, Target, next_target

DENSE = {"accuracy": 0.9, "flops": 1000.0}

PLAN = Descent.plan(top=1.0, smallest=0.02, budget=40, shortest=1, longest=12)


def history_of(*ended: tuple[str, float], running: tuple[str, ...] = ()) -> History:
    """Finished trials as (origin, accuracy), numbered as they come, and running ones."""
    history = History({"a": 8}, DENSE)
    for number, (origin, accuracy) in enumerate(ended):
        history.nodes[number] = Node(number, np.array([4]), accuracy, {}, {}, (), None, 2, 2, origin)
    history.running = {100 + i: Pending({}, None, origin, np.array([4]), (), 2) for i, origin in enumerate(running)}
    return history


def target_after(history: History, floor: float = 0.5, plan: Descent = PLAN, rated: bool = True) -> Target:
    return next_target(plan, history, floor, lambda _: True, rated=rated)


@pytest.mark.parametrize("budget", [3, 12, 40, 300])
def test_a_descent_spends_its_epochs_on_falling_costs_and_more_on_narrow_networks(budget: float) -> None:
    plan = Descent.plan(top=1.0, smallest=0.02, budget=budget, shortest=1, longest=100)
    shares, epochs = np.array(plan.steps(0.0)).T
    assert epochs.sum() == pytest.approx(budget, rel=0.02 if budget > 3 else 0.2)
    assert (np.diff(shares) < 0).all()
    assert (np.diff(epochs) >= 0).all()
    assert shares[0] == pytest.approx(0.8)
    assert shares[-1] == pytest.approx(0.02 if len(shares) > 1 else 0.8)


def test_more_epochs_give_more_steps_and_longer_ones() -> None:
    small, large = (Descent.plan(1.0, 0.02, budget, 1, 100) for budget in (10, 60))
    assert len(small.shares) < len(large.shares)
    assert small.epochs.max() < large.epochs.max()


def test_trials_of_a_fixed_length_are_as_many_as_can_be_paid() -> None:
    plan = Descent.plan(top=1.0, smallest=0.02, budget=15, shortest=3, longest=3)
    assert plan.epochs.tolist() == [3.0] * 5


def test_a_ceiling_is_not_passed() -> None:
    plan = Descent.plan(top=0.4, smallest=0.02, budget=40, shortest=1, longest=12)
    for offset in (0.0, 0.5, 0.75):
        assert max(share for share, _ in plan.steps(offset)) <= 0.4 + 1e-9


def test_a_moved_descent_lies_between_and_ends_at_the_smallest() -> None:
    shares, moved = (np.array(PLAN.steps(offset))[:, 0] for offset in (0.0, 0.5))
    assert len(moved) == len(shares) + 1
    assert shares[0] < moved[0] < 1.0
    assert (moved[1:-1] < shares[:-1]).all()
    assert (moved[1:-1] > shares[1:]).all()
    assert moved[-1] == pytest.approx(shares[-1])


def test_the_first_sweep_is_a_chain_and_waits_for_its_last_step() -> None:
    first = target_after(history_of())
    assert first.parent is not None
    assert (first.parent.number, first.rate) == (None, RATES[0])
    second = target_after(history_of((first.origin, 0.89)))
    assert second.parent is not None
    assert second.parent.number == 0
    assert second.share < first.share
    waiting = target_after(history_of((first.origin, 0.89), running=(second.origin,)))
    assert waiting.parent is None
    assert waiting.origin.startswith("sweep 2")


def test_a_rate_that_does_harm_is_followed_by_a_lower_one_and_the_best_one_goes_on() -> None:
    rates = [f"rate {rate:g}" for rate in RATES]
    second = target_after(history_of((rates[0], 0.3)))
    assert second.origin == rates[1]
    after = target_after(history_of((rates[0], 0.3), (rates[1], 0.7), (rates[2], 0.6)))
    assert after.origin == "sweep 1 step 2"
    assert after.parent is not None
    assert after.parent.number == 1
    unrated = target_after(history_of((rates[0], 0.6)), rated=False)
    assert unrated.origin == "sweep 1 step 2"


def test_below_the_floor_no_sweep_goes_on() -> None:
    ended = [(f"rate {RATES[0]:g}", 0.89), ("sweep 1 step 2", 0.88), ("sweep 1 step 3", 0.4)]
    met = PLAN.steps(0.0)[2][0]
    seen = []
    for _ in range(30):
        target = target_after(history_of(*ended))
        seen.append(target.share)
        ended.append((target.origin, 0.8))
    assert min(seen) >= met
    assert len(set(seen)) > 5


def test_every_target_is_given_once_and_later_sweeps_fill_the_gaps() -> None:
    ended: list[tuple[str, float]] = []
    shares: list[float] = []
    for _ in range(4 * len(PLAN.shares)):
        target = target_after(history_of(*ended))
        assert target.origin not in dict(ended)
        ended.append((target.origin, 0.85))
        shares.append(target.share)
    gaps = -np.diff(np.log(sorted({round(share, 6) for share in shares}, reverse=True)))
    first = -np.diff(np.log(PLAN.shares))
    assert gaps.max() < 0.6 * first.max()
    assert all(low != high for low, high in itertools.pairwise(shares))
