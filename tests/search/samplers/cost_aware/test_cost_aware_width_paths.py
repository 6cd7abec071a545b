"""Widths by two numbers, and costs on axes, of a real network's plan."""

from collections.abc import Callable

import numpy as np
import pytest

from autoprune.search.prepare import PreparedStudy
from autoprune.search.samplers.cost_aware.costs import KnownCosts
from autoprune.search.samplers.cost_aware.settings import KnownCostSettings, WidthPathSettings
from autoprune.search.samplers.cost_aware.width_paths import WidthPaths


@pytest.fixture
def session(tiny_study: Callable[..., PreparedStudy]) -> PreparedStudy:
    return tiny_study({"objectives": ["accuracy", "flops", "params"]})


@pytest.fixture
def costs(session: PreparedStudy) -> KnownCosts:
    return KnownCosts(
        session.space, session.table, ["flops", "params"], session.dense, log=True, settings=KnownCostSettings()
    )


def paths_of(session: PreparedStudy, costs: KnownCosts, drop: Callable[[str, int], float] | None) -> WidthPaths:
    return WidthPaths(session.space, session.table, costs.main_share, drop, WidthPathSettings())


def test_costs_are_those_of_the_table(session: PreparedStudy, costs: KnownCosts) -> None:
    groups = list(session.table.widths)
    widths = np.array([[max(1, width // 2) for width in session.table.widths.values()]])
    exact = session.table.cost(dict(zip(groups, widths[0].tolist(), strict=True)))
    dense = session.table.cost({})
    np.testing.assert_allclose(costs.shares(widths), [[exact.macs / dense.macs, exact.params / dense.params]])
    np.testing.assert_allclose(costs.axes(np.array([[1.0, 1.0]])), 1.0)
    smallest = session.space.smallest()
    blocks = session.table.cost({**session.table.widths, **smallest.widths}, smallest.removed_blocks)
    at_floor = costs.axes(np.array([[blocks.macs / dense.macs, blocks.params / dense.params]]))
    np.testing.assert_allclose(at_floor, 0.0, atol=1e-9)


@pytest.mark.parametrize("strength", [0.0, 0.7])
def test_widths_cost_about_what_is_asked(session: PreparedStudy, costs: KnownCosts, strength: float) -> None:
    paths = paths_of(session, costs, lambda group, width: 0.3 * (1 - width / session.table.widths[group]))
    shares = np.array([0.8, 0.6, 0.4, 0.2])
    widths = paths.at(shares, np.full(4, strength))
    found = costs.main_share(widths)
    assert (np.diff(found) < 0).all()
    np.testing.assert_allclose(found, shares, rtol=0.35)  # channels are few in this network
    for row in widths:
        assert all(int(width) in session.space.ratios_of(group) for group, width in zip(paths.groups, row, strict=True))


def test_a_path_by_scores_takes_the_lowest_scores_first(session: PreparedStudy, costs: KnownCosts) -> None:
    paths = paths_of(session, costs, None)
    doomed = paths.groups[-1]
    scores = {group: [5.0] * int(width) for group, width in zip(paths.groups, paths.dense, strict=True)}
    scores[doomed] = [float(n) / 100 for n in range(int(paths.dense[-1]))]
    path = paths.by_scores(paths.dense, scores)
    assert (path.widths[0] == paths.dense).all()
    assert (np.diff(path.shares) <= 0).all()
    np.testing.assert_allclose(path.shares, costs.main_share(path.widths))
    assert (path.widths[:-1, :-1] == paths.dense[:-1]).all()
    assert len(set(path.widths[:-1, -1].tolist())) == len(path.widths) - 1
    half = paths.nearest(paths.dense / 2)
    assert (paths.by_scores(half, {doomed: scores[doomed][: int(half[-1])]}).widths <= half).all()


def test_a_sensitive_group_is_spared(session: PreparedStudy, costs: KnownCosts) -> None:
    spared = session.space.plan.groups[0].name

    def drop(group: str, width: int) -> float:
        return (0.8 if group == spared else 0.01) * (1 - width / session.table.widths[group])

    paths = paths_of(session, costs, drop)
    place = paths.groups.index(spared)
    uniform, sensitive = (paths.at(np.array([0.5]), np.array([strength]))[0] for strength in (0.0, 1.0))
    assert sensitive[place] > uniform[place]
    assert (np.delete(sensitive, place) <= np.delete(uniform, place)).all()


def test_no_widths_are_wider_than_the_parent_s(session: PreparedStudy, costs: KnownCosts) -> None:
    paths = paths_of(session, costs, None)
    parent = paths.at(np.array([0.5]), np.zeros(1))
    narrower = paths.no_wider(np.stack([paths.dense, np.ones_like(paths.dense)]), parent)
    assert (narrower <= parent).all()
    np.testing.assert_array_equal(narrower[0], parent[0])
