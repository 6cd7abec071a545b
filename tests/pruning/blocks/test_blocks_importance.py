"""What a block's importance is: the loss without it, or the angle by which it turns its input."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import autoprune
from autoprune.errors import PruningError
from autoprune.pruning.blocks.importance import angular_distances
from autoprune.pruning.plan import Block
from autoprune.pruning.planner import make_plan, rank_blocks_by_angle


class Turn(nn.Module):
    """Turns its stream by an angle in the first two features; leaves the others alone."""

    def __init__(self, angle: float, n_features: int = 2) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(n_features, n_features))
        c, s = math.cos(angle), math.sin(angle)
        self.matrix.data[:2, :2] = torch.tensor([[c - 1, s], [-s, c - 1]])

    def forward(self, hidden: torch.Tensor, mask: None = None) -> tuple[torch.Tensor, None]:
        return hidden + hidden @ self.matrix, mask


class Turns(nn.Module):
    def __init__(self, *angles: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(map(Turn, angles))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x, _ = layer(mask=None, hidden=x)
        return x


ANGLES = (0.4, 2.5, 0.0, math.pi)
BLOCKS = [Block(f"layers.{number}", gives=("hidden", None)) for number in range(4)]
X = torch.randn(6, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_angles_are_those_that_the_layers_turn_by() -> None:
    model = Turns(*ANGLES).double()
    found = angular_distances(model, BLOCKS, X.split([4, 2]))
    assert list(found.values()) == pytest.approx([angle / math.pi for angle in ANGLES], abs=1e-7)
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Scale(nn.Module):
    """Makes the first half of an image's features negative: half of the squared length turns round."""

    def __init__(self) -> None:
        super().__init__()
        self.sign = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x * (self.sign - 1)


def test_images_are_one_vector_each() -> None:
    model = Scale()
    model.sign.data[0] = -1
    image = torch.ones(2, 4, 3, 3)
    image[1, 1:] = 0
    # The cosines are 1/2 (a quarter of the length is turned round) and -1.
    found = angular_distances(nn.Sequential(model), [Block("0")], [image])
    assert found["0"] == pytest.approx((1 / 3 + 1) / 2, abs=1e-6)


def test_a_vector_of_zeros_that_stays_one_is_not_turned() -> None:
    assert angular_distances(Turns(0.3), [BLOCKS[0]], [torch.zeros(1, 2, 2)]) == {"layers.0": 0.0}


def test_no_batch_and_a_nan_are_errors() -> None:
    with pytest.raises(PruningError, match=r"angular distance of block 'layers.0' must be finite.*from 0 vectors"):
        angular_distances(Turns(0.3), [BLOCKS[0]], [])
    with pytest.raises(PruningError, match="got nan"):
        angular_distances(Turns(0.3), [BLOCKS[0]], [torch.full((1, 2, 2), torch.nan)])


def test_plan_in_order_of_the_angles() -> None:
    model = Turns(0.9, 0.1, 0.5).double()
    plan = make_plan(model, X)
    ranked = rank_blocks_by_angle(plan, model, [X])
    assert ranked.block_names == ("layers.1", "layers.2", "layers.0")
    assert [block.importance for block in ranked.blocks] == pytest.approx([a / math.pi for a in (0.1, 0.5, 0.9)])
    assert {block.gives for block in ranked.blocks} == {("hidden", None)}


def test_from_python() -> None:
    model = Turns(0.9, 0.1, 0.5).double()
    plan = autoprune.plan(model, X)
    data = [(X[:4], model(X[:4]).detach()), (X[4:], model(X[4:]).detach())]
    assert list(plan.block_importance(data, "angular")) == ["layers.1", "layers.2", "layers.0"]
    rises = plan.block_importance(data, loss=F.mse_loss)
    assert list(rises) == ["layers.1", "layers.2", "layers.0"]
    # Turning by an angle moves a vector by 2 sin(angle / 2) of its length; the loss is the mean over both features.
    expected = [float((2 * math.sin(a / 2)) ** 2 * X.square().mean()) for a in (0.1, 0.5, 0.9)]
    assert list(rises.values()) == pytest.approx(expected)
    with pytest.raises(PruningError, match=r"unknown importance 'angel'. Known: angular, loss"):
        plan.block_importance(data, "angel")  # type: ignore[arg-type]
    with pytest.raises(PruningError, match="at least one batch"):
        plan.block_importance([])
    with pytest.raises(PruningError, match=r"unknown block 'layers\.3'"):
        plan.prune(blocks=["layers.3"])
