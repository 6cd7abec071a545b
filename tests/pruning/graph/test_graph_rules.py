"""What small functions allow: the groups and their widths, worked out by hand, and the reasons for the rest."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import autoprune
from autoprune.pruning.graph import Analysis, analyse
from autoprune.pruning.graph.prove import half_of_channels
from autoprune.pruning.planner import pruning_failure
from autoprune.pruning.proof import bench

IMAGE, ROWS, SEQUENCE = torch.randn(2, 3, 8, 8), torch.randn(2, 8), torch.randn(2, 5, 8)


class Net(nn.Module):
    """Layers by name, and a function of them and the input."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


def conv(n_in: int, n_out: int, size: int = 1, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, size, **options)


def widths(analysis: Analysis) -> dict[str, int]:
    return {group.name: group.width for group in analysis.groups}


def swap(layer: nn.Module) -> nn.Module:
    """Random norm parameters."""
    for parameter in layer.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return layer


def normed(name: str) -> Callable[[Net, torch.Tensor], Any]:
    return lambda m, x: m.b(F.relu(getattr(m, name)(m.a(x))))


CASES: dict[str, tuple[Callable[[], Net], torch.Tensor, dict[str, int]]] = {
    "elementwise": (
        lambda: Net(
            lambda m, x: m.c(torch.tanh(m.a(x)) * m.b(x) + 1.0), a=nn.Linear(8, 6), b=nn.Linear(8, 6), c=nn.Linear(6, 3)
        ),
        ROWS,
        {"a": 6},
    ),
    "cat": (
        lambda: Net(
            lambda m, x: m.c(torch.cat([m.a(x), m.b(x)], 1)), a=nn.Linear(8, 6), b=nn.Linear(8, 4), c=nn.Linear(10, 3)
        ),
        ROWS,
        {"a": 6, "b": 4},
    ),
    "cat with the input": (
        lambda: Net(lambda m, x: m.c(torch.cat([m.a(x), x], 1)), a=nn.Linear(8, 6), c=nn.Linear(14, 3)),
        ROWS,
        {"a": 6},
    ),
    "flatten": (lambda: Net(lambda m, x: m.b(m.a(x).flatten(1)), a=conv(3, 6), b=nn.Linear(384, 3)), IMAGE, {"a": 6}),
    "flatten and back": (
        lambda: Net(lambda m, x: m.b(m.a(x).flatten(1).view(2, -1, 8, 8)), a=conv(3, 6), b=conv(6, 3)),
        IMAGE,
        {"a": 6},
    ),
    "depthwise": (
        lambda: Net(lambda m, x: m.c(m.b(m.a(x))), a=conv(3, 6), b=conv(6, 6, 3, groups=6), c=conv(6, 3)),
        IMAGE,
        {"a": 6},
    ),
    "depthwise with multiplier": (
        lambda: Net(lambda m, x: m.c(m.b(m.a(x))), a=conv(3, 6), b=conv(6, 12, 3, groups=6), c=conv(12, 3)),
        IMAGE,
        {"a": 6},
    ),
    "many small groups": (
        lambda: Net(lambda m, x: m.c(m.b(m.a(x))), a=conv(3, 12), b=conv(12, 12, groups=6), c=conv(12, 3)),
        IMAGE,
        {"a": 6},
    ),
    "few large groups": (
        lambda: Net(lambda m, x: m.c(m.b(m.a(x))), a=conv(3, 12), b=conv(12, 8, groups=2), c=conv(8, 3)),
        IMAGE,
        {"a": 6, "b": 4},
    ),
    "grouped on the input": (
        lambda: Net(lambda m, x: m.c(m.b(x)), b=conv(3, 12, groups=3), c=conv(12, 3)),
        IMAGE,
        {"b": 4},
    ),
    "transposed": (
        lambda: Net(lambda m, x: m.c(m.b(m.a(x))), a=conv(3, 6), b=nn.ConvTranspose2d(6, 5, 2, 2), c=conv(5, 3)),
        IMAGE,
        {"a": 6, "b": 5},
    ),
    "transposed, grouped": (
        lambda: Net(
            lambda m, x: m.c(m.b(m.a(x))), a=conv(3, 8), b=nn.ConvTranspose2d(8, 12, 2, 2, groups=2), c=conv(12, 3)
        ),
        IMAGE,
        {"a": 4, "b": 6},
    ),
    "transposed, depthwise": (
        lambda: Net(
            lambda m, x: m.c(m.b(m.a(x))), a=conv(3, 8), b=nn.ConvTranspose2d(8, 8, 2, 2, groups=8), c=conv(8, 3)
        ),
        IMAGE,
        {"a": 8},
    ),
    "batch norm": (lambda: Net(normed("n"), a=conv(3, 6), n=swap(nn.BatchNorm2d(6)), b=conv(6, 3)), IMAGE, {"a": 6}),
    "batch norm without scale": (
        lambda: Net(normed("n"), a=conv(3, 6), n=nn.BatchNorm2d(6, affine=False), b=conv(6, 3)),
        IMAGE,
        {"a": 6},
    ),
    "instance norm": (
        lambda: Net(normed("n"), a=conv(3, 6), n=swap(nn.InstanceNorm2d(6, affine=True)), b=conv(6, 3)),
        IMAGE,
        {"a": 6},
    ),
    "group norm": (
        lambda: Net(normed("n"), a=conv(3, 12), n=swap(nn.GroupNorm(4, 12)), b=conv(12, 3)),
        IMAGE,
        {"a": 4},
    ),
    "group norm, one channel a group": (
        lambda: Net(normed("n"), a=conv(3, 6), n=swap(nn.GroupNorm(6, 6)), b=conv(6, 3)),
        IMAGE,
        {"a": 6},
    ),
    "layer norm": (lambda: Net(normed("n"), a=nn.Linear(8, 6), n=nn.LayerNorm(6), b=nn.Linear(6, 3)), ROWS, {}),
    "RMS norm": (lambda: Net(normed("n"), a=nn.Linear(8, 6), n=nn.RMSNorm(6), b=nn.Linear(6, 3)), ROWS, {}),
    "layer norm over pixels": (
        lambda: Net(normed("n"), a=conv(3, 6), n=nn.LayerNorm(8), b=conv(6, 3)),
        IMAGE,
        {"a": 6},
    ),
    "weight norm": (
        lambda: Net(
            lambda m, x: m.b(F.relu(m.a(x))),
            a=nn.utils.parametrizations.weight_norm(nn.Linear(8, 6)),
            b=nn.Linear(6, 3),
        ),
        ROWS,
        {"a": 6},
    ),
    "PReLU": (lambda: Net(normed("n"), a=conv(3, 6), n=nn.PReLU(6), b=conv(6, 3)), IMAGE, {"a": 6}),
    "bilinear": (
        lambda: Net(
            lambda m, x: m.c(m.b(m.a(x), m.d(x))),
            a=nn.Linear(8, 6),
            d=nn.Linear(8, 5),
            b=nn.Bilinear(6, 5, 4),
            c=nn.Linear(4, 3),
        ),
        ROWS,
        {"a": 6, "d": 5, "b": 4},
    ),
    "GLU": (lambda: Net(lambda m, x: m.b(F.glu(m.a(x))), a=nn.Linear(8, 12), b=nn.Linear(6, 3)), ROWS, {"a": 6}),
    "halves apart": (
        lambda: Net(
            lambda m, x: m.b(m.a(x).chunk(2, 1)[0]) + m.c(m.a(x).chunk(2, 1)[1]),
            a=nn.Linear(8, 12),
            b=nn.Linear(6, 3),
            c=nn.Linear(6, 3),
        ),
        ROWS,
        {"a": 6},
    ),
    "every other": (lambda: Net(lambda m, x: m.b(m.a(x)[:, ::2]), a=nn.Linear(8, 12), b=nn.Linear(6, 3)), ROWS, {}),
    "padding": (
        lambda: Net(lambda m, x: m.b(F.pad(m.a(x), (2, 1))), a=nn.Linear(8, 6), b=nn.Linear(9, 3)),
        ROWS,
        {"a": 6},
    ),
    "padding meets channels": (
        lambda: Net(
            lambda m, x: m.c(F.pad(m.a(x), (2, 1)) + m.b(x)), a=nn.Linear(8, 6), b=nn.Linear(8, 9), c=nn.Linear(9, 3)
        ),
        ROWS,
        {"a": 6},
    ),
    "sum of channels": (
        lambda: Net(lambda m, x: m.b(F.gelu(m.a(x)).sum(1, keepdim=True) + x), a=nn.Linear(8, 6), b=nn.Linear(8, 3)),
        ROWS,
        {"a": 6},
    ),
    "sum of what is not zero": (
        lambda: Net(
            lambda m, x: m.b(torch.sigmoid(m.a(x)).sum(1, keepdim=True) + x), a=nn.Linear(8, 6), b=nn.Linear(8, 3)
        ),
        ROWS,
        {},
    ),
    "mean of channels": (
        lambda: Net(lambda m, x: m.b(m.a(x).mean(1, keepdim=True) + x), a=nn.Linear(8, 6), b=nn.Linear(8, 3)),
        ROWS,
        {},
    ),
    "softmax of channels": (
        lambda: Net(lambda m, x: m.b(m.a(x).softmax(1)), a=nn.Linear(8, 6), b=nn.Linear(6, 3)),
        ROWS,
        {},
    ),
    "sorted channels": (
        lambda: Net(lambda m, x: m.b(m.a(x).sort(1)[0]), a=nn.Linear(8, 6), b=nn.Linear(6, 3)),
        ROWS,
        {},
    ),
    "normalised vectors": (
        lambda: Net(lambda m, x: m.b(F.normalize(m.a(x), dim=1)), a=nn.Linear(8, 6), b=nn.Linear(6, 3)),
        ROWS,
        {"a": 6},
    ),
    "product of activations": (
        lambda: Net(lambda m, x: m.b(m.a(x) @ m.a(x).transpose(1, 2)), a=nn.Linear(8, 6), b=nn.Linear(5, 3)),
        SEQUENCE,
        {"a": 6},
    ),
    "einsum": (
        lambda: Net(
            lambda m, x: torch.einsum("bnd,de->bne", m.a(x), m.b.weight.T), a=nn.Linear(8, 6), b=nn.Linear(6, 3)
        ),
        SEQUENCE,
        {"a": 6},
    ),
    "pixel shuffle": (
        lambda: Net(lambda m, x: m.b(F.pixel_shuffle(m.a(x), 2)), a=conv(3, 24), b=conv(6, 3)),
        IMAGE,
        {"a": 6},
    ),
    "pixel unshuffle": (
        lambda: Net(lambda m, x: m.b(F.pixel_unshuffle(m.a(x), 2)), a=conv(3, 6), b=conv(24, 3)),
        IMAGE,
        {"a": 6},
    ),
    "unfold": (
        lambda: Net(lambda m, x: m.b(F.unfold(m.a(x), 2).transpose(1, 2)), a=conv(3, 6), b=nn.Linear(24, 3)),
        IMAGE,
        {"a": 6},
    ),
    "stack": (
        lambda: Net(
            lambda m, x: m.c(torch.stack([m.a(x), m.b(x)], 1)), a=nn.Linear(8, 6), b=nn.Linear(8, 6), c=nn.Linear(6, 3)
        ),
        ROWS,
        {"a": 6},
    ),
    "written into a buffer": (
        lambda: Net(lambda m, x: m.b(_written(m.a(x))), a=nn.Linear(8, 6), b=nn.Linear(6, 3)),
        ROWS,
        {"a": 6},
    ),
    "flip": (lambda: Net(lambda m, x: m.b(m.a(x).flip(1)), a=nn.Linear(8, 6), b=nn.Linear(6, 3)), ROWS, {"a": 6}),
    "roll": (lambda: Net(lambda m, x: m.b(m.a(x).roll(1, 1)), a=nn.Linear(8, 6), b=nn.Linear(6, 3)), ROWS, {}),
    "repeated": (
        lambda: Net(lambda m, x: m.b(m.a(x).repeat(1, 2)), a=nn.Linear(8, 6), b=nn.Linear(12, 3)),
        ROWS,
        {"a": 6},
    ),
    "outer product": (
        lambda: Net(
            lambda m, x: m.c((m.a(x)[:, :, None] * m.b(x)[:, None]).flatten(1)),
            a=nn.Linear(8, 6),
            b=nn.Linear(8, 4),
            c=nn.Linear(24, 3),
        ),
        ROWS,
        {"a": 6},
    ),
    "used twice": (lambda: Net(lambda m, x: m.b(m.a(m.a(x))), a=nn.Linear(8, 8), b=nn.Linear(8, 3)), ROWS, {}),
    "recurrent, two layers": (
        lambda: Net(
            lambda m, x: m.b(m.a(x)[0][:, -1]), a=nn.GRU(8, 6, num_layers=2, batch_first=True), b=nn.Linear(6, 3)
        ),
        SEQUENCE,
        {"a": 6},
    ),
    "interpolated": (
        lambda: Net(
            lambda m, x: m.b(F.interpolate(m.a(x), scale_factor=2, mode="bilinear")), a=conv(3, 6), b=conv(6, 3)
        ),
        IMAGE,
        {"a": 6},
    ),
    "three pools": (
        lambda: Net(
            lambda m, x: m.b(F.adaptive_avg_pool2d(F.max_pool2d(F.avg_pool2d(m.a(x), 2), 2), 1)),
            a=conv(3, 6),
            b=conv(6, 3),
        ),
        IMAGE,
        {"a": 6},
    ),
}


def _written(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    out[:, :] = x
    return out


@pytest.mark.parametrize("name", CASES)
def test_groups_are_those_worked_out_by_hand(name: str) -> None:
    build, x, expected = CASES[name]
    torch.manual_seed(0)
    assert widths(analyse(build(), x)) == expected


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[2]])
def test_pruned_equals_masked(name: str) -> None:
    build, x, _ = CASES[name]
    torch.manual_seed(0)
    model = build()
    analysis = analyse(model, x)
    assert pruning_failure(bench(model, x), analysis, half_of_channels(analysis.groups)) is None
    for group in analysis.groups:
        assert pruning_failure(bench(model, x), analysis, {group.name: [group.width - 1]}) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("layer norm", "a: its output has statistics taken over its channels, which change when some leave"),
        ("softmax of channels", "a: its output has its entries compared with each other"),
        ("roll", "a: its output is moved round by a constant number of places"),
        ("every other", "a: its output is sliced at places that the code fixes"),
        ("padding meets channels", "b: 3 of 9 channels: its output meets channels whose number is constant (padding)"),
        ("used twice", "a: its output is multiplied with a dimension whose size is constant"),
        ("sum of what is not zero", "a: its output is summed over, and channels that leave are not zero there"),
    ],
)
def test_what_is_left_out_has_a_reason(name: str, reason: str) -> None:
    build, x, _ = CASES[name]
    assert any(str(blocked).startswith(reason) for blocked in analyse(build(), x).unprunable)


def test_an_unknown_operation_blocks_what_enters_it_and_nothing_else() -> None:
    model = Net(
        lambda m, x: m.c(torch.cat([torch.linalg.svdvals(m.a(x))[None].expand(2, -1), m.b(x)], 1)),
        a=nn.Linear(8, 6),
        b=nn.Linear(8, 4),
        c=nn.Linear(6, 3),
    )
    analysis = analyse(model, ROWS)
    assert widths(analysis) == {"b": 4}
    assert any(blocked.module == "a" and "not understood" in blocked.reason for blocked in analysis.unprunable)


def test_channels_behind_a_fixed_slice_can_leave_and_those_in_it_not() -> None:
    model = Net(
        lambda m, x: m.b(m.a(x)[:, :5]) + m.c(m.a(x)[:, 5:]), a=nn.Linear(8, 12), b=nn.Linear(5, 3), c=nn.Linear(7, 3)
    )
    plan = autoprune.plan(model, ROWS)
    (group,) = plan.groups
    assert (group.width, group.layers) == (7, ("a", "c"))
    assert any(item.module.startswith("a") and "forward pass fails" in item.reason for item in plan.left_out)
    assert plan.prune(0.5).a.out_features == 5 + 4


def test_hidden_size_can_leave_where_a_norm_is_allowed_to_change() -> None:
    model = Net(normed("n"), a=nn.Linear(8, 6), n=nn.LayerNorm(6), b=nn.Linear(6, 3))
    (group,) = analyse(model, ROWS, allow_norm=True).groups
    assert (group.name, group.width, group.exact) == ("a", 6, False)
