"""The tree's candidates: of about the cost that is asked for, cut from networks that hold them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autoprune.search.cost_aware.candidates import WINDOW, Candidates
from autoprune.search.cost_aware.costs import KnownCosts
from autoprune.search.cost_aware.cuts import Cuts
from autoprune.search.cost_aware.history import Node
from autoprune.search.cost_aware.sweeps import Target
from autoprune.search.session import Session

CHANGES: dict[str, Any] = {
    "training": {"epochs": {"low": 1, "high": 9}, "lr_schedule": {"kind": "cosine", "lr": {"low": 0.001, "high": 0.1}}},
    "pruning": [
        {"method": "neuron", "criterion": ["l1", "l2"], "ratio": {"low": 0.0, "high": 0.9}},
        {"method": "weight", "scope": "global", "ratio": {"low": 0.0, "high": 0.8}},
    ],
}


@pytest.fixture
def draws(tiny_study: Callable[..., Session]) -> Candidates:
    session = tiny_study(CHANGES)
    costs = KnownCosts(session.space, session.table, ["flops"], session.dense, log=True)
    return Candidates(session.space, Cuts(session.space, session.table, costs.main_share, None), costs, "tree")


def node(draws: Candidates, number: int | None, share: float, **params: Any) -> Node:
    widths = draws.cuts.at(np.array([share]), np.zeros(1))[0]
    return Node(number, widths, 0.8, {}, params, (), None, 1, 1, "")


def share_of(draws: Candidates, widths: Any) -> float:
    return float(draws.costs.main_share(widths[None])[0])


@pytest.mark.parametrize("share", [0.9, 0.5, 0.25, 0.1])
def test_candidates_cost_about_what_the_trial_is_for_and_fit_into_their_parents(
    draws: Candidates, share: float
) -> None:
    root = node(draws, None, 1.0)
    nodes = [root, *(node(draws, number, place) for number, place in enumerate((0.7, 0.45, 0.3, 0.12)))]
    drawn = draws.draw_for(Target(share, 4.0, "x"), nodes, nodes[1:], 300, np.random.default_rng(0))
    assert len(drawn) > 20
    for each in drawn:
        assert (each.widths <= each.parent.widths).all()
        assert abs(np.log(share_of(draws, each.widths) / share)) <= 2 * WINDOW + 1e-9
        assert 4 <= draws.epochs_of(each) <= 6
        assert each.origin == "x"
    holding = {share_of(draws, each.parent.widths) for each in drawn}
    assert min(holding) >= share * np.exp(-2 * WINDOW)
    assert len({tuple(each.widths.tolist()) for each in drawn}) > 1


def test_a_network_of_that_cost_may_be_trained_on(draws: Candidates) -> None:
    nodes = [node(draws, None, 1.0), node(draws, 0, 0.3)]
    place = share_of(draws, nodes[1].widths)
    drawn = draws.draw_for(Target(place, 2.0, "x"), nodes, nodes[1:], 300, np.random.default_rng(0))
    on = [each for each in drawn if (each.widths == each.parent.widths).all()]
    assert on
    assert {each.parent.number for each in on} == {0}


def test_weights_that_are_gone_stay_gone(draws: Candidates) -> None:
    name = next(name for name in draws.names if name.startswith("weight.ratio"))
    nodes = [node(draws, None, 1.0), node(draws, 0, 0.5, **{name: 0.6})]
    drawn = draws.draw_for(Target(0.2, 2.0, "x"), nodes, nodes, 300, np.random.default_rng(0))
    ratios = {float(each.training[name]) for each in drawn if each.parent.number == 0}
    assert min(ratios) >= 0.6
    assert len(ratios) > 1
