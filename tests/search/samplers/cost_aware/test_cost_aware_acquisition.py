"""What candidates are worth, after trials of known outcome."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from threadpoolctl import threadpool_info, threadpool_limits
from tiny import dense_reference

from autoprune.config.metric import MetricSpec
from autoprune.search.prepare import PreparedStudy
from autoprune.search.samplers.cost_aware.acquisition import Acquisition
from autoprune.search.samplers.cost_aware.candidates import Candidate, CandidateGenerator
from autoprune.search.samplers.cost_aware.costs import KnownCosts
from autoprune.search.samplers.cost_aware.ehvi import EHVI
from autoprune.search.samplers.cost_aware.features import Features
from autoprune.search.samplers.cost_aware.history import History, PendingTrial, TrainedModel
from autoprune.search.samplers.cost_aware.initial_design import InitialDesign
from autoprune.search.samplers.cost_aware.score_model import ScoreModel
from autoprune.search.samplers.cost_aware.settings import CostAwareSettings
from autoprune.search.samplers.cost_aware.width_paths import WidthPaths
from autoprune.trial import Cost

SETTINGS = CostAwareSettings()

DESIGN = InitialDesign.plan(
    SETTINGS.initial_design, max_share=1.0, min_share=0.05, budget_epochs=20, min_epochs=1, max_epochs=4
)


@pytest.fixture
def generator(tiny_study: Callable[..., PreparedStudy]) -> CandidateGenerator:
    session = tiny_study({"objectives": ["accuracy", "flops"]})
    costs = KnownCosts(session.space, session.table, ["flops"], session.dense, log=True, settings=SETTINGS.costs)
    paths = WidthPaths(session.space, session.table, costs.main_share, None, SETTINGS.width_paths)
    return CandidateGenerator(session.space, paths, costs, DESIGN, "tree", lambda number: {}, SETTINGS.candidates, 0.5)


def history_with(generator: CandidateGenerator, *running: PendingTrial) -> History:
    """Twelve trials from dense, the less accurate the cheaper."""
    groups = dict(zip(generator.paths.groups, generator.paths.dense.tolist(), strict=True))
    history = History(groups, dense_reference(0.9, Cost(100, 100, 400, macs=500)), MetricSpec())
    for number, share in enumerate(np.linspace(0.95, 0.2, 12)):
        widths = generator.paths.at(np.array([share]), np.zeros(1))[0]
        cost = {"flops": 1000.0 * float(generator.costs.main_share(widths[None])[0])}
        accuracy = 0.9 - 0.2 * (1 - share) ** 2
        history.trained[number] = TrainedModel(
            number, widths, accuracy, cost, generator.first_guess, (), None, 2, 2, str(number)
        )
    history.running = dict(enumerate(running, start=100))
    return history


def worth_of(generator: CandidateGenerator, history: History, candidates: list[Candidate]) -> Any:
    generator.costs._dense["flops"] = 1000.0
    front = list(history.trained.values())
    features = Features(generator.space, generator.paths, SETTINGS.features)
    return Acquisition(generator, generator.costs, features, history, front, 0.45, 0, SETTINGS).values(candidates)


def candidate(generator: CandidateGenerator, history: History, share: float) -> Candidate:
    widths = generator.paths.at(np.array([share]), np.zeros(1))[0]
    return Candidate(history.dense, widths, generator.first_guess, "x")


def test_where_the_front_has_no_network_one_is_worth_more(generator: CandidateGenerator) -> None:
    history = history_with(generator)
    covered, beyond = worth_of(generator, history, [candidate(generator, history, share) for share in (0.95, 0.1)])
    assert 0 <= covered < beyond


def test_a_running_trial_makes_another_like_it_worth_less(generator: CandidateGenerator) -> None:
    free = history_with(generator)
    like = candidate(generator, free, 0.1)
    (alone,) = worth_of(generator, free, [like])
    twin = PendingTrial(like.training, None, "x", like.widths, (), 2)
    (after,) = worth_of(generator, history_with(generator, twin), [like])
    assert after < 0.5 * alone


def test_a_stopped_trial_counts_as_it_would_have_ended(generator: CandidateGenerator) -> None:
    history = history_with(generator)
    history._curves = {number: [model.score - 0.05, model.score] for number, model in history.trained.items()}
    like = candidate(generator, history, 0.1)
    (before,) = worth_of(generator, history, [like])
    meant = PendingTrial(like.training, None, "x", like.widths, (), 2)
    history._stopped = {12: (meant, [0.2])}
    (stopped,) = history.stopped()
    assert stopped.score == pytest.approx(0.25)
    (after,) = worth_of(generator, history, [like])
    assert after < 0.5 * before
    history._stopped = {12: (meant, [0.84])}
    (promising,) = worth_of(generator, history, [like])
    assert promising > after


def test_where_no_trial_tells_how_a_stopped_one_would_have_ended_it_does_not_count(
    generator: CandidateGenerator,
) -> None:
    history = history_with(generator)
    history._curves = {0: [0.8]}
    history._stopped = {12: (PendingTrial(generator.first_guess, None, "x", generator.paths.dense, (), 4), [0.2])}
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
    features = rng.random((SETTINGS.score_model.max_fitted + 1, 3))
    model = ScoreModel(0.9, 0.8 + 0.1 * features[:, 0], SETTINGS.score_model)
    with threadpool_limits(2):
        model.fit(features)
        model.predict(features[:5])
        assert threads() == {2}
    assert seen == [{1}] * 3


def test_what_the_model_knows_nothing_of_does_not_beat_what_it_knows_to_be_good() -> None:
    rng = np.random.default_rng(0)
    features = rng.random((40, 3))
    accuracies = 0.8 + 0.05 * features[:, 0] + 0.002 * rng.standard_normal(40)
    model = ScoreModel(0.9, accuracies, SETTINGS.score_model)
    model.fit(features)
    outcomes = model.predict(np.array([[0.95, 0.5, 0.5], [0.5, -4.5, 5.5]]))
    known, unknown = outcomes[:, model.median]
    assert 0.84 < unknown < known
    ehvi = EHVI(np.array([[0.5]]), np.array([0.84]), 0.5, max_front=40)
    gained = ehvi(np.full((2, 1), 0.5), outcomes, model.outcome_weights)
    assert 0 < gained[1] < gained[0]
