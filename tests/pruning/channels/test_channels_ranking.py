"""Global ranking against brute force: remove one channel at a time, in the order of the scores, until it is enough."""

from collections.abc import Mapping

import pytest
import torch
from pruning_networks import ConvShortcutResNet, mlp, settled
from torch import nn

from autoprune.pruning.apply import prune
from autoprune.pruning.channels.ranking import global_scores, global_widths, kept_scores
from autoprune.pruning.plan import Group, PruningPlan
from autoprune.pruning.planner import make_plan
from autoprune.trial import PruningConfig

X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def plan_of(widths: Mapping[str, int], multiples: Mapping[str, int]) -> PruningPlan:
    groups = tuple(Group(name, width, (name,), multiples.get(name, 1)) for name, width in widths.items())
    return PruningPlan(groups, (), {}, (), {})


def n_params(model: nn.Module, plan: PruningPlan, widths: Mapping[str, int]) -> int:
    result = prune(model, plan, PruningConfig(widths=dict(widths)), example_inputs=X)
    return sum(parameter.numel() for parameter in result.model.parameters())


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_the_least_important_go_first_until_it_is_enough(share: float) -> None:
    torch.manual_seed(0)
    model = settled(ConvShortcutResNet())
    plan = make_plan(model, X)
    scores = global_scores(model, plan, "l2")
    ceiling = share * n_params(model, plan, plan.group_widths)
    widths = plan.group_widths
    while n_params(model, plan, widths) > ceiling:
        lowest = {name: float(sorted(values.tolist())[len(values) - widths[name]]) for name, values in scores.items()}
        name = min((name for name in widths if widths[name] > 1), key=lowest.__getitem__)
        widths[name] -= 1
    assert global_widths(scores, plan, lambda found: n_params(model, plan, found), ceiling) == widths


@pytest.mark.parametrize("criterion", ["l1", "bn_scale", "random"])
def test_scores_have_a_mean_of_1_in_every_group(criterion: str) -> None:
    model = settled(ConvShortcutResNet())
    scores = global_scores(model, make_plan(model, X), criterion)
    assert {name: float(values.mean()) for name, values in scores.items()} == pytest.approx(dict.fromkeys(scores, 1.0))


def test_kept_scores_of_a_pruned_network_are_those_of_a_fresh_plan_of_it() -> None:
    torch.manual_seed(0)
    model = settled(ConvShortcutResNet())
    plan = make_plan(model, X)
    widths = {name: max(2, width // 2) for name, width in plan.group_widths.items()}
    pruned = prune(model, plan, PruningConfig(widths=widths), example_inputs=X).model
    scores = kept_scores(pruned, plan)
    assert {name: len(values) for name, values in scores.items()} == widths
    fresh = global_scores(pruned, make_plan(pruned, X), "l2")
    for name, values in scores.items():
        assert values == pytest.approx(sorted(fresh[name].tolist()), rel=1e-4)


def test_a_layer_of_large_weights_is_not_spared() -> None:
    torch.manual_seed(0)
    model = mlp()
    with torch.no_grad():
        model[1].weight.mul_(100)
        model[1].bias.mul_(100)
    plan = make_plan(model, X)
    scores = global_scores(model, plan, "l2")
    found = global_widths(scores, plan, lambda widths: sum(widths.values()), 17)
    assert sum(found.values()) == 17
    assert all(1 < width < plan.group_widths[name] for name, width in found.items())


def test_groups_keep_at_least_one_and_multiples_go_together() -> None:
    scores = {
        "a": torch.tensor([4.0, 1.0, 2.0, 3.0]).double(),
        "b": torch.tensor([0.1, 9.0, 0.2, 9.0, 0.3, 0.4]).double(),
    }
    plan = plan_of({"a": 4, "b": 6}, {"b": 2})

    def total(widths: Mapping[str, int]) -> int:
        return sum(widths.values())

    assert global_widths(scores, plan, total, 10) == {"a": 4, "b": 6}
    assert global_widths(scores, plan, total, 9) == {"a": 4, "b": 4}  # 0.1 and 0.2, a mean of 0.15, are the lowest
    assert global_widths(scores, plan, total, 6) == {"a": 4, "b": 2}
    assert global_widths(scores, plan, total, 5) == {"a": 3, "b": 2}
    assert global_widths(scores, plan, total, 0) == {"a": 1, "b": 2}
    assert global_widths(scores, plan, total, 7, round_to=3) == {"a": 3, "b": 6}
    assert global_widths(scores, plan, total, 0, round_to=3) == {"a": 3, "b": 6}
