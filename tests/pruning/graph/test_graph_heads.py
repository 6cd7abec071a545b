"""Heads as groups: fused queries, keys and values, keys that queries share, and heads beside a hidden size."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import autoprune
from autoprune.config.task import CallableRef
from autoprune.cost import count_macs
from autoprune.formats.architecture import apply_architecture, architecture_diff

SEQUENCE = torch.randn(2, 5, 8)


class Fused(nn.Module):
    """Queries, keys and values in one layer, cut apart where attributes and a shared config say."""

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.config, self.head_dim, self.n_kv_heads = config, 4, 2
        self.qkv, self.out = nn.Linear(8, (config.num_heads + 4) * 4), nn.Linear(config.num_heads * 4, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        qkv, shape = self.qkv(x), (*x.shape[:-1], -1, self.head_dim)
        n_queries, n_keys = self.config.num_heads * self.head_dim, self.n_kv_heads * self.head_dim
        q = qkv[..., :n_queries].view(shape).transpose(1, 2)
        k = qkv[..., n_queries : n_queries + n_keys].view(shape).transpose(1, 2).repeat_interleave(3, 1)
        v = qkv[..., n_queries + n_keys :].view(shape).transpose(1, 2).repeat_interleave(3, 1)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + torch.as_tensor(self.out(y))


def test_slices_at_places_that_a_shared_config_tells() -> None:
    torch.manual_seed(0)
    config = SimpleNamespace(num_heads=6, num_layers=6)
    model = nn.Sequential(Fused(config), Fused(config))
    plan = autoprune.plan(model, SEQUENCE)
    assert {group.name: group.width for group in plan.groups} == {"0.qkv": 2, "1.qkv": 2}
    pruned = plan.prune({"0.qkv": 0.5})
    assert pruned[0].qkv.out_features == (3 + 1 + 1) * 4
    assert (pruned[0].config.num_heads, pruned[0].config.num_layers, pruned[0].n_kv_heads) == (3, 6, 1)
    assert pruned[1].config.num_heads == model[0].config.num_heads == config.num_heads == 6
    loaded = apply_architecture(
        nn.Sequential(*(Fused(config) for _ in range(2))),
        architecture_diff(model, pruned, CallableRef(callable="somewhere:net")),
    )
    loaded.load_state_dict(pruned.state_dict())
    torch.testing.assert_close(loaded(SEQUENCE), pruned(SEQUENCE), rtol=0, atol=0)
    assert config.num_heads == 6


def test_heads_that_share_keys_are_counted_where_they_are_flattened() -> None:
    class Shared(nn.Module):
        """Falcon's newer layout: for each of two keys, three queries before it and a value behind it."""

        def __init__(self) -> None:
            super().__init__()
            self.n_heads, self.n_kv_heads, self.head_dim = 6, 2, 4
            self.qkv, self.out = nn.Linear(8, 40), nn.Linear(24, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            b, n, _ = x.shape
            qkv = self.qkv(x).view(b, n, -1, self.n_heads // self.n_kv_heads + 2, self.head_dim)
            q, k, v = (
                part.flatten(2, 3)
                for part in (qkv[..., :-2, :], *(qkv[..., [i], :].expand(-1, -1, -1, 3, -1) for i in (-2, -1)))
            )
            q, k, v = (part.transpose(1, 2).reshape(b, self.n_heads, n, self.head_dim) for part in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            return torch.as_tensor(self.out(y))

    plan = autoprune.plan(Shared(), SEQUENCE)
    assert {group.name: group.width for group in plan.groups} == {"qkv": 2}
    pruned = plan.prune(0.5)
    assert (pruned.n_heads, pruned.n_kv_heads, pruned.out.in_features) == (3, 1, 12)


def test_heads_are_found_beside_a_hidden_size() -> None:
    """A hidden size takes every weight along, however heads are split."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.qkv(self.norm(x)).view(*x.shape[:2], 3, -1, 2).unbind(2)
            y = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (q, k, v)))
            return x + torch.as_tensor(self.out(y.transpose(1, 2).flatten(2)))

    model = nn.Sequential(nn.Linear(8, 8), Layer(), nn.Linear(8, 3))
    assert {group.name: group.width for group in autoprune.plan(model, SEQUENCE).groups} == {"1.qkv": 4}
    plan = autoprune.plan(model, SEQUENCE, hidden_sizes=True)
    assert {group.name: group.width for group in plan.groups} == {"0": 8, "1.qkv": 4}


class Outer(nn.Module):
    """The output's width is the input's, so heads and values stay; queries and keys may be narrower."""

    def __init__(self) -> None:
        super().__init__()
        self.n_heads, self.scale = 2, 0.3
        self.q, self.k, self.v, self.out, self.head = (nn.Linear(8, n) for n in (12, 12, 8, 8, 3))

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, scale=self.scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        q, k, v = (f(x).reshape(b, n, self.n_heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        return torch.as_tensor(self.head(self.out(self.attend(q, k, v).transpose(1, 2).reshape(b, n, c))))


class Multiplied(Outer):
    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return (q @ k.transpose(-2, -1) * self.scale).softmax(-1) @ v


class Residual(Outer):
    """Nothing is projected behind the attention, so values meet the input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        q, k, v = (f(x).reshape(b, n, self.n_heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        return torch.as_tensor(self.head(x + self.attend(q, k, v).transpose(1, 2).reshape(b, n, c)))


class ScaledByWidth(Outer):
    """The scale is computed of the width as it is, so that fewer features are no masked network."""

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1) @ v


@pytest.mark.parametrize(
    ("build", "widths"),
    [
        (Outer, {"q": 6, "out": 8}),
        (Multiplied, {"q": 6, "out": 8}),
        (Residual, {"q": 6}),
        (ScaledByWidth, {"out": 8}),
        (lambda: nn.Sequential(nn.Linear(8, 8), Outer()), {"1.q": 6, "1.out": 8}),
    ],
)
def test_queries_and_keys_leave_where_the_output_has_the_width_of_the_input(
    build: Callable[[], nn.Module], widths: Mapping[str, int]
) -> None:
    torch.manual_seed(0)
    model = build()
    plan = autoprune.plan(model, SEQUENCE)
    assert {group.name: group.width for group in plan.groups} == widths
    for ratio in (0.2, 0.5, 0.9):
        pruned = plan.prune(ratio)  # which compares it with the masked network
        assert plan.cost(plan.widths(ratio)).macs == count_macs(pruned, SEQUENCE)
        assert pruned(SEQUENCE).shape == model(SEQUENCE).shape
