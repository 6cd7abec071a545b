"""Layers whose weight is computed from other tensors: they are planned, cut and proved like any other."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import autoprune
from autoprune.cost import count_macs

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network(change: Callable[[nn.Module], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.ReLU(), change(nn.Conv2d(12, 10, 3)), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(10, 4),
    )  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrised_weights_in_either_mode(norm: Callable[[nn.Module], nn.Module], training: bool) -> None:
    model = network(norm).train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plan = autoprune.plan(model, IMAGE)
    widths = {group.name: group.width for group in plan.groups}
    # The largest singular value is summed over what the layer gives, so this stays, with a reason.
    assert widths == ({"0": 12, "2": 10} if norm is parametrizations.weight_norm else {"0": 12})
    assert [item.module for item in plan.left_out] == [name for name in ("2", "6") if name not in widths]
    pruned = plan.prune(0.5)
    assert (pruned[2].in_channels, pruned[2].out_channels) == (6, 5 if "2" in widths else 10)
    assert count_macs(pruned, IMAGE) == plan.cost(plan.widths(0.5)).macs
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    # Looking at a weight in training mode would have turned the buffers of the spectral norm.
    kept = {name: tensor for name, tensor in pruned.state_dict().items() if name.endswith(("._u", "._v"))}
    assert all(set(tensor.tolist()) <= set(before[name].tolist()) for name, tensor in kept.items())


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_a_weight_that_a_hook_computes() -> None:
    model = network(nn.utils.weight_norm)
    model(IMAGE)  # from here on the layer holds a weight with a history
    plan = autoprune.plan(model, IMAGE)
    assert {group.name: group.width for group in plan.groups} == {"0": 12, "2": 10}
    pruned = plan.prune({"0": 0.5, "2": 0.5})
    assert count_macs(pruned, IMAGE) == plan.cost(plan.widths(0.5)).macs
    assert pruned[2].weight_v.shape == (5, 6, 3, 3)
    assert pruned.eval()(IMAGE).shape == (2, 4)
    pruned.train()(IMAGE).sum().backward()
    assert pruned[2].weight_g.grad is not None


def test_torchs_own_weight_masks_are_cut_with_the_weight() -> None:
    model = network(lambda layer: prune.l1_unstructured(layer, "weight", 0.5))
    plan = autoprune.plan(model, IMAGE)
    assert {group.name: group.width for group in plan.groups} == {"0": 12, "2": 10}
    pruned = plan.prune({"0": 0.5, "2": 0.5})
    assert count_macs(pruned, IMAGE) == plan.cost(plan.widths(0.5)).macs
    assert pruned[2].weight_orig.shape == pruned[2].weight_mask.shape == (5, 6, 3, 3)
    pruned(IMAGE)
    assert pruned[2].weight[pruned[2].weight_mask == 0].count_nonzero() == 0
