"""Residual blocks: found by what they do, ranked by the loss without them."""

import copy

import torch
from pruning_networks import ConvShortcutResNet, Depthwise, mlp, settled
from torch import nn
from torch.nn import functional as F

from autoprune.pruning.blocks.find import find_blocks
from autoprune.pruning.blocks.removed import RemovedBlock
from autoprune.pruning.planner import make_plan

X = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


def names_of(model: nn.Module) -> tuple[str, ...]:
    blocks, left_out = find_blocks(model, X)
    assert left_out == []
    assert all(block.gives == 0 for block in blocks)
    return tuple(block.name for block in blocks)


def test_single_blocks_are_found_and_not_their_stage() -> None:
    assert names_of(settled(ConvShortcutResNet())) == ("layer1.0", "layer1.1", "layer2.1")


def test_networks_without_shortcuts_have_none() -> None:
    assert names_of(mlp()) == ()
    assert names_of(Depthwise()) == ()


def test_innermost_residuals_count() -> None:
    layer = nn.Sequential(Residual(nn.Linear(64, 64)), Residual(nn.Sequential(nn.Linear(64, 9), nn.Linear(9, 64))))
    model = nn.Sequential(nn.Flatten(), layer, nn.Linear(64, 10))
    assert names_of(model) == ("1.0", "1.1")


def test_a_block_used_twice_stays() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Residual(nn.Linear(64, 64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.block(self.block(x.flatten(1)))

    blocks, left_out = find_blocks(Twice(), X)
    assert blocks == []
    assert [(item.module, item.reason) for item in left_out] == [("block", "block: it is called 2 times")]


def test_order_is_that_of_the_measured_rise() -> None:
    torch.manual_seed(0)
    model = settled(ConvShortcutResNet())
    targets = torch.arange(16) % 10

    def loss(network: nn.Module) -> float:
        with torch.no_grad():
            return float(F.cross_entropy(network.eval()(X), targets))

    rises = {}
    for name in ("layer1.0", "layer1.1", "layer2.1"):
        stage, index = name.split(".")
        without = copy.deepcopy(model)
        getattr(without, stage)[int(index)] = nn.Identity()
        rises[name] = loss(without) - loss(copy.deepcopy(model))
    plan = make_plan(model, X[:1], measure_loss=loss)
    assert plan.block_names == tuple(sorted(rises, key=lambda name: rises[name]))
    assert {block.name: block.importance for block in plan.blocks} == rises


def test_a_block_without_which_the_loss_is_not_finite_is_left_out() -> None:
    def loss(network: nn.Module) -> float:
        return float("nan") if isinstance(network.get_submodule("layer1.1"), RemovedBlock) else 1.0

    plan = make_plan(ConvShortcutResNet(), X[:1], measure_loss=loss)
    assert set(plan.block_names) == {"layer1.0", "layer2.1"}
    assert ("layer1.1", "without this block the loss is not finite") in [(e.module, e.reason) for e in plan.left_out]
