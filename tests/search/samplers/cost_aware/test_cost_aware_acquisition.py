"""What candidates are worth, after trials of known outcome."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from threadpoolctl import threadpool_info, threadpool_limits
from tiny import dense_reference

from autoprune.search.prepare import PreparedStudy
from autoprune.search.samplers.cost_aware import accuracy_model as surrogate
from autoprune.search.samplers.cost_aware.acquisition import Outlook
from autoprune.search.samplers.cost_aware.candidates import Candidate, Candidates
from autoprune.search.samplers.cost_aware.costs import KnownCosts
from autoprune.search.samplers.cost_aware.ehvi import Staircase
from autoprune.search.samplers.cost_aware.features import Features
from autoprune.search.samplers.cost_aware.history import History, Node, Pending
from autoprune.search.samplers.cost_aware.initial_design import Descent
from autoprune.search.samplers.cost_aware.width_paths import Cuts
from autoprune.trial import Cost

DESCENT = Descent.plan(1.0, 0.05, 20, 1, 4)


@pytest.fixture
def draws(tiny_study: Callable[..., PreparedStudy]) -> Candidates:
    session = tiny_study({"objectives": ["accuracy", "flops"]})
    costs = KnownCosts(session.space, session.table, ["flops"], session.dense, log=True)
    cuts = Cuts(session.space, session.table, costs.main_share, None)
    return Candidates(session.space, cuts, costs, DESCENT, "tree", lambda number: {})


def history_with(draws: Candidates, *running: Pending) -> History:
    """Twelve trials from dense, the less accurate the cheaper."""
    groups = dict(zip(draws.cuts.groups, draws.cuts.dense.tolist(), strict=True))
    history = History(groups, dense_reference(0.9, Cost(100, 100, 400, macs=500)))
    for number, share in enumerate(np.linspace(0.95, 0.2, 12)):
        widths = draws.cuts.at(np.array([share]), np.zeros(1))[0]
        cost = {"flops": 1000.0 * float(draws.costs.main_share(widths[None])[0])}
        accuracy = 0.9 - 0.2 * (1 - share) ** 2
        history.nodes[number] = Node(number, widths, accuracy, cost, draws.first_guess, (), None, 2, 2, str(number))
    history.running = dict(enumerate(running, start=100))
    return history


def worth_of(draws: Candidates, history: History, candidates: list[Candidate]) -> Any:
    draws.costs._dense["flops"] = 1000.0
    front = list(history.nodes.values())
    return Outlook(draws, draws.costs, Features(draws.space, draws.cuts), history, front, 0.45, 0).scores(candidates)


def candidate(draws: Candidates, history: History, share: float) -> Candidate:
    widths = draws.cuts.at(np.array([share]), np.zeros(1))[0]
    return Candidate(history.root, widths, draws.first_guess, "x")


def test_where_the_front_has_no_network_one_is_worth_more(draws: Candidates) -> None:
    history = history_with(draws)
    covered, beyond = worth_of(draws, history, [candidate(draws, history, share) for share in (0.95, 0.1)])
    assert 0 <= covered < beyond


def test_a_running_trial_makes_another_like_it_worth_less(draws: Candidates) -> None:
    free = history_with(draws)
    like = candidate(draws, free, 0.1)
    (alone,) = worth_of(draws, free, [like])
    twin = Pending(like.training, None, "x", like.widths, (), 2)
    (after,) = worth_of(draws, history_with(draws, twin), [like])
    assert after < 0.5 * alone


def test_a_stopped_trial_counts_as_it_would_have_ended(draws: Candidates) -> None:
    history = history_with(draws)
    history._curves = {number: [node.accuracy - 0.05, node.accuracy] for number, node in history.nodes.items()}
    like = candidate(draws, history, 0.1)
    (before,) = worth_of(draws, history, [like])
    meant = Pending(like.training, None, "x", like.widths, (), 2)
    history._stopped = {12: (meant, [0.2])}
    (stopped,) = history.stopped()
    assert stopped.accuracy == pytest.approx(0.25)
    (after,) = worth_of(draws, history, [like])
    assert after < 0.5 * before
    history._stopped = {12: (meant, [0.84])}
    (promising,) = worth_of(draws, history, [like])
    assert promising > after


def test_where_no_trial_tells_how_a_stopped_one_would_have_ended_it_does_not_count(draws: Candidates) -> None:
    history = history_with(draws)
    history._curves = {0: [0.8]}
    history._stopped = {12: (Pending(draws.first_guess, None, "x", draws.cuts.dense, (), 4), [0.2])}
    assert history.stopped() == []


def test_the_model_takes_one_thread_and_leaves_the_others_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    def threads() -> set[int]:
        return {each["num_threads"] for each in threadpool_info()}

    seen: list[set[int]] = []
    for name in ("fit", "predict"):
        method = getattr(GaussianProcessRegressor, name)

        def watched(*args: Any, method: Any = method, **options: Any) -> Any:
            seen.append(threads())
            return method(*args, **options)

        monkeypatch.setattr(GaussianProcessRegressor, name, watched)
    rng = np.random.default_rng(0)
    features = rng.random((surrogate.MAX_FITTED + 1, 3))
    model = surrogate.AccuracyModel(0.9, 0.8 + 0.1 * features[:, 0])
    with threadpool_limits(2):
        model.fit(features)
        model.predict(features[:5])
        assert threads() == {2}
    assert seen == [{1}] * 3


def test_what_the_model_knows_nothing_of_does_not_beat_what_it_knows_to_be_good() -> None:
    rng = np.random.default_rng(0)
    features = rng.random((40, 3))
    model = surrogate.AccuracyModel(0.9, 0.8 + 0.05 * features[:, 0] + 0.002 * rng.standard_normal(40))
    model.fit(features)
    outcomes = model.predict(np.array([[0.95, 0.5, 0.5], [0.5, -4.5, 5.5]]))
    known, unknown = outcomes[:, surrogate.MEDIAN]
    assert 0.84 < unknown < known
    gained = Staircase(np.array([[0.5]]), np.array([0.84]), 0.5).expected_improvement(
        np.full((2, 1), 0.5), outcomes, surrogate.WEIGHTS
    )
    assert 0 < gained[1] < gained[0]
