"""Importance against brute force on a plain convolution, batch norm, ReLU, convolution."""

import pytest
import torch
from pruning_networks import Concat, conv_flatten, settled
from torch import nn
from torch.nn import functional as F

from autoprune.errors import PruningError
from autoprune.pruning.channels.criteria import CRITERIA, needs_data
from autoprune.pruning.channels.importance import SCORERS, channel_scores
from autoprune.pruning.graph import analyse

X = torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(24) % 10


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(X[:12], Y[:12]), (X[12:], Y[12:])]


@pytest.fixture
def plain() -> nn.Sequential:
    torch.manual_seed(0)
    network = settled(nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 10, 3)))
    return nn.Sequential(*network, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def scores(model: nn.Module, criterion: str, root: str = "0") -> list[float]:
    (group,) = [group for group in analyse(model, X[:2]).groups if group.name == root]
    found = channel_scores(model, [group], criterion, calibration=batches, loss=F.cross_entropy)
    assert all(parameter.grad is None for parameter in model.parameters())
    return found[root].tolist()


@pytest.mark.parametrize(("criterion", "power"), [("l1", 1), ("l2", 2)])
def test_magnitude(plain: nn.Sequential, criterion: str, power: int) -> None:
    def total(weights: torch.Tensor) -> float:
        return sum(abs(w) ** power for w in weights.flatten().tolist())

    expected = [
        (total(plain[0].weight[c]) + total(plain[1].weight[c]) + total(plain[3].weight[:, c])) / 3 for c in range(6)
    ]
    assert scores(plain, criterion) == pytest.approx(expected, rel=1e-5)


def test_bn_scale(plain: nn.Sequential) -> None:
    with torch.no_grad():
        plain[1].weight[2] *= -1
    assert scores(plain, "bn_scale") == pytest.approx(plain[1].weight.abs().tolist())


def test_taylor(plain: nn.Sequential) -> None:
    plain.eval()
    loss = F.cross_entropy(plain(X[:12]), Y[:12]) + F.cross_entropy(plain(X[12:]), Y[12:])
    first, second = torch.autograd.grad(loss, [plain[0].weight, plain[3].weight])
    products = (plain[0].weight * first).abs().sum((1, 2, 3)) + (plain[3].weight * second).abs().sum((0, 2, 3))
    assert scores(plain, "taylor") == pytest.approx((products / 2).tolist(), rel=1e-4)


@pytest.mark.parametrize("criterion", ["activation", "apoz"])
def test_activations(plain: nn.Sequential, criterion: str) -> None:
    with torch.no_grad():
        received = plain[:3].eval()(X)
    values = received.abs() if criterion == "activation" else (received > 0).float()
    expected = [float(values[:, c].mean()) for c in range(6)]
    assert min(expected) < max(expected)
    assert scores(plain, criterion) == pytest.approx(expected, rel=1e-5)


def test_activations_behind_a_flatten_are_averaged_over_pixels() -> None:
    torch.manual_seed(0)
    model = settled(conv_flatten())
    with torch.no_grad():
        received = model[:6].eval()(X)
    assert scores(model, "activation", "4") == pytest.approx(received.mean((0, 2, 3)).tolist(), rel=1e-5)


def test_activations_behind_a_concat_are_those_of_the_branch() -> None:
    torch.manual_seed(0)
    model = settled(Concat()).eval()
    with torch.no_grad():
        received = F.relu(model.bn(torch.cat([model.left(X), model.right(X)], 1)))
    expected = received.mean((0, 2, 3)).tolist()
    assert scores(model, "activation", "left") == pytest.approx(expected[:6], rel=1e-5)
    assert scores(model, "activation", "right") == pytest.approx(expected[6:], rel=1e-5)


def test_fpgm_removes_the_filter_nearest_to_all_others(plain: nn.Sequential) -> None:
    filters = plain[0].weight.detach().flatten(1).tolist()
    expected = [sum(sum((a - b) ** 2 for a, b in zip(f, g, strict=True)) ** 0.5 for g in filters) for f in filters]
    assert scores(plain, "fpgm") == pytest.approx(expected, rel=1e-5)


def test_lamp_divides_by_what_is_no_smaller(plain: nn.Sequential) -> None:
    def lamp(squares: list[float]) -> list[float]:
        return [s / sum(other for other in squares if other >= s) for s in squares]

    first = lamp(plain[0].weight.square().sum((1, 2, 3)).tolist())
    second = lamp(plain[3].weight.square().sum((0, 2, 3)).tolist())
    expected = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    assert scores(plain, "lamp") == pytest.approx(expected, rel=1e-5)


def test_group_without_batch_norm_falls_back_to_l2() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    assert scores(model, "bn_scale", "1") == scores(model, "l2", "1")


def test_needs_data() -> None:
    needing = {"taylor", "fisher", "activation", "apoz", "obs"}
    assert {criterion for criterion in CRITERIA if needs_data(criterion)} == needing
    with pytest.raises(PruningError, match="did you mean 'taylor'"):
        needs_data("tayler")


def test_every_criterion_is_registered() -> None:
    assert tuple(SCORERS) == CRITERIA


class Gated(nn.Module):
    """A residual network with a gate on each channel of its two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)
        self.norm, self.b = nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1)
        self.head = nn.Linear(6, 10)

    def forward(self, x: torch.Tensor, outer: torch.Tensor | float = 1.0, inner: torch.Tensor | float = 1.0):  # type: ignore[no-untyped-def]
        x = F.relu(self.stem(x))
        inside = F.relu(self.norm(self.a(x * outer))) * inner
        # The gate on the stem's channels is on the sum too: they are the same channels.
        return self.head((F.relu(x + self.b(inside)) * outer).mean((2, 3)))


def test_fisher_is_the_squared_gradient_of_a_gate_on_each_example() -> None:
    torch.manual_seed(0)
    model = settled(Gated()).eval()
    expected = {"stem": torch.zeros(6), "a": torch.zeros(4)}
    for x, y in zip(X, Y, strict=True):
        gates = torch.ones(6, 1, 1, requires_grad=True), torch.ones(4, 1, 1, requires_grad=True)
        gradients = torch.autograd.grad(F.cross_entropy(model(x[None], *gates), y[None]), gates)
        for name, gradient in zip(expected, gradients, strict=True):
            expected[name] += gradient.flatten().square() / (2 * len(X))
    for name, values in expected.items():
        assert scores(model, "fisher", name) == pytest.approx(values.tolist(), rel=1e-4)
    assert all(p.requires_grad for p in model.parameters())


def test_fisher_looks_at_no_more_than_128_examples() -> None:
    torch.manual_seed(0)
    model, calls = settled(conv_flatten()), []
    (group, *_) = analyse(model, X[:2]).groups

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(targets.tolist())
        return F.cross_entropy(outputs, targets)

    many = [(torch.randn(100, 1, 8, 8), torch.arange(100) % 10) for _ in range(3)]
    channel_scores(model, [group], "fisher", calibration=lambda: many, loss=loss)
    assert len(calls) == 100
    assert {len(targets) for targets in calls} == {1}
