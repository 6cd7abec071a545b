"""Copies of networks that keep more than parameters and buffers."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import autoprune
from autoprune.errors import PruningError
from autoprune.network.copies import copy_network


class Keeping(nn.Module):
    """Keeps what its first layer gave, in a place that ``keep`` chooses."""

    def __init__(self, keep: Callable[[nn.Module, torch.Tensor], None]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.keep = keep

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(x))
        self.keep(self, hidden)
        return self.last(hidden)


def in_attribute(module: Any, hidden: torch.Tensor) -> None:
    module.last_hidden = hidden


def in_nested_dict(module: Any, hidden: torch.Tensor) -> None:
    module.seen = {"by_layer": [{"first": hidden}]}


def in_object(module: Any, hidden: torch.Tensor) -> None:
    module.first.record = SimpleNamespace(hidden=hidden, steps=3)


@pytest.mark.parametrize("keep", [in_attribute, in_nested_dict, in_object])
def test_a_network_that_keeps_activations_is_planned_and_pruned(
    keep: Callable[[nn.Module, torch.Tensor], None],
) -> None:
    model, x = Keeping(keep), torch.randn(4, 6)
    model(x)
    copied = copy_network(model)
    assert torch.equal(copied(x), model(x))
    pruned = autoprune.plan(model, x).prune(0.5)
    assert pruned.first.out_features == 4
    assert pruned(x).shape == (4, 3)


def test_a_weight_that_a_hook_computes_is_copied() -> None:
    model = nn.Sequential(nn.utils.spectral_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 3))
    x = torch.randn(4, 6)
    model.train()(x)
    assert not model[0].weight.is_leaf
    copied = copy_network(model).eval()
    assert torch.equal(copied(x), model.eval()(x))


def test_tied_parts_stay_tied_and_the_memo_is_heeded() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    model[1].favourite = {"weight": model[0].weight}
    own = nn.Parameter(torch.zeros(4, 4))
    copied = copy_network(model, {id(model[0].weight): own})
    assert copied[0].weight is copied[1].weight is copied[1].favourite["weight"] is own


@pytest.mark.parametrize("thing", [threading.Lock(), (each for each in "ab")])
def test_what_cannot_be_copied_is_named(thing: object) -> None:
    model = Keeping(in_attribute)
    model.last.helper = {"held": [thing]}  # type: ignore[assignment]
    with pytest.raises(PruningError, match=r"attribute 'helper' of module 'last' \(Linear\) holds a dict"):
        autoprune.plan(model, torch.randn(4, 6))
