"""The tree's candidates: cut from networks that hold them, and trained for long enough."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from autoprune.search.prepare import PreparedStudy
from autoprune.search.samplers.cost_aware.candidates import CandidateGenerator
from autoprune.search.samplers.cost_aware.costs import KnownCosts
from autoprune.search.samplers.cost_aware.history import TrainedModel
from autoprune.search.samplers.cost_aware.initial_design import InitialDesign
from autoprune.search.samplers.cost_aware.settings import (
    CandidateSettings,
    InitialDesignSettings,
    KnownCostSettings,
    WidthPathSettings,
)
from autoprune.search.samplers.cost_aware.width_paths import WidthPaths

SETTINGS = CandidateSettings()

CHANGES: dict[str, Any] = {
    "training": {"epochs": {"low": 1, "high": 9}, "lr_schedule": {"kind": "cosine", "lr": {"low": 0.001, "high": 0.1}}},
    "pruning": [
        {"method": "neuron", "criterion": ["l1", "l2"], "ratio": {"low": 0.0, "high": 0.9}},
        {"method": "weight", "scope": "global", "ratio": {"low": 0.0, "high": 0.8}},
    ],
}


def scores_of(number: int | None) -> dict[str, list[float]]:
    """Trial 3's first group is worth less than all others."""
    return {} if number != 3 else {"conv1": [0.1, 0.2], "conv2": [1.0] * 8}


@pytest.fixture
def generator(tiny_study: Callable[..., PreparedStudy]) -> CandidateGenerator:
    session = tiny_study(CHANGES)
    costs = KnownCosts(session.space, session.table, ["flops"], session.dense, log=True, settings=KnownCostSettings())
    paths = WidthPaths(session.space, session.table, costs.main_share, None, WidthPathSettings())
    design = InitialDesign.plan(
        InitialDesignSettings(), max_share=1.0, min_share=0.05, budget_epochs=40, min_epochs=1, max_epochs=9
    )
    return CandidateGenerator(session.space, paths, costs, design, "tree", scores_of, SETTINGS, 0.5)


def trained(generator: CandidateGenerator, number: int | None, share: float, **params: Any) -> TrainedModel:
    widths = generator.paths.at(np.array([share]), np.zeros(1))[0]
    return TrainedModel(number, widths, 0.8, {}, params, (), None, 1, 1, "")


def test_candidates_fit_into_their_parents_and_keep_enough_of_them(generator: CandidateGenerator) -> None:
    models = [
        trained(generator, None, 1.0),
        *(trained(generator, n, share) for n, share in enumerate((0.7, 0.45, 0.3, 0.12))),
    ]
    drawn = generator.draw(models, models[1:], 400, np.random.default_rng(0))
    assert len(drawn) > 200
    for each in drawn:
        share, wide = generator.costs.main_share(np.stack([each.widths, each.parent.widths]))
        assert (each.widths <= each.parent.widths).all()
        assert share >= SETTINGS.min_kept_share * wide
        assert generator.epochs_of(each) >= round(SETTINGS.min_epochs_share * generator.design.epochs_at(share))
    assert {each.parent.number for each in drawn} == {None, 0, 1, 2, 3}
    assert any((each.widths == each.parent.widths).all() for each in drawn)
    assert len({tuple(each.widths.tolist()) for each in drawn}) > 20


def test_what_is_only_trained_on_is_trained_for_no_less_than_the_last_time(generator: CandidateGenerator) -> None:
    parent = replace(trained(generator, 0, 0.5), epochs=7)
    drawn = generator.draw([parent], [parent], 200, np.random.default_rng(0))
    again = [each for each in drawn if (each.widths == parent.widths).all()]
    assert min(generator.epochs_of(each) for each in again) == 7
    assert min(generator.epochs_of(each) for each in drawn) < 7


def test_weights_that_are_gone_stay_gone(generator: CandidateGenerator) -> None:
    name = next(name for name in generator.names if name.startswith("weight.ratio"))
    models = [trained(generator, None, 1.0), trained(generator, 0, 0.5, **{name: 0.6})]
    drawn = generator.draw(models, models, 300, np.random.default_rng(0))
    ratios = {float(each.training[name]) for each in drawn if each.parent.number == 0}
    assert min(ratios) >= 0.6
    assert len(ratios) > 1
