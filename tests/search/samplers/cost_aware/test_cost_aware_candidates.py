"""The tree's candidates: cut from networks that hold them, and trained for long enough."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from autoprune.search.prepare import PreparedStudy
from autoprune.search.samplers.cost_aware.candidates import MIN_KEPT, SHORTEST, Candidates
from autoprune.search.samplers.cost_aware.costs import KnownCosts
from autoprune.search.samplers.cost_aware.history import Node
from autoprune.search.samplers.cost_aware.initial_design import Descent
from autoprune.search.samplers.cost_aware.width_paths import Cuts

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
def draws(tiny_study: Callable[..., PreparedStudy]) -> Candidates:
    session = tiny_study(CHANGES)
    costs = KnownCosts(session.space, session.table, ["flops"], session.dense, log=True)
    cuts = Cuts(session.space, session.table, costs.main_share, None)
    return Candidates(session.space, cuts, costs, Descent.plan(1.0, 0.05, 40, 1, 9), "tree", scores_of)


def node(draws: Candidates, number: int | None, share: float, **params: Any) -> Node:
    widths = draws.cuts.at(np.array([share]), np.zeros(1))[0]
    return Node(number, widths, 0.8, {}, params, (), None, 1, 1, "")


def test_candidates_fit_into_their_parents_and_keep_enough_of_them(draws: Candidates) -> None:
    nodes = [node(draws, None, 1.0), *(node(draws, n, share) for n, share in enumerate((0.7, 0.45, 0.3, 0.12)))]
    drawn = draws.draw(nodes, nodes[1:], 400, np.random.default_rng(0))
    assert len(drawn) > 200
    for each in drawn:
        share, wide = draws.costs.main_share(np.stack([each.widths, each.parent.widths]))
        assert (each.widths <= each.parent.widths).all()
        assert share >= MIN_KEPT * wide
        assert draws.epochs_of(each) >= round(SHORTEST * draws.descent.epochs_at(share))
    assert {each.parent.number for each in drawn} == {None, 0, 1, 2, 3}
    assert any((each.widths == each.parent.widths).all() for each in drawn)
    assert len({tuple(each.widths.tolist()) for each in drawn}) > 20


def test_what_is_only_trained_on_is_trained_for_no_less_than_the_last_time(draws: Candidates) -> None:
    parent = replace(node(draws, 0, 0.5), epochs=7)
    drawn = draws.draw([parent], [parent], 200, np.random.default_rng(0))
    again = [each for each in drawn if (each.widths == parent.widths).all()]
    assert min(draws.epochs_of(each) for each in again) == 7
    assert min(draws.epochs_of(each) for each in drawn) < 7


def test_weights_that_are_gone_stay_gone(draws: Candidates) -> None:
    name = next(name for name in draws.names if name.startswith("weight.ratio"))
    nodes = [node(draws, None, 1.0), node(draws, 0, 0.5, **{name: 0.6})]
    drawn = draws.draw(nodes, nodes, 300, np.random.default_rng(0))
    ratios = {float(each.training[name]) for each in drawn if each.parent.number == 0}
    assert min(ratios) >= 0.6
    assert len(ratios) > 1
