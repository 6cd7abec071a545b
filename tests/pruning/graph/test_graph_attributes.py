"""Attributes that hold a width follow it; those that have its value by chance neither change nor keep channels."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import autoprune

ROWS = torch.randn(2, 8)
IMAGES = torch.randn(2, 3, 6, 6)


class Detector(nn.Module):
    """As many classes as hidden channels, behind a batch norm; the view is of the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.out = self.channels = 20
        self.stem = nn.Sequential(nn.Conv2d(3, 20, 3), nn.BatchNorm2d(20), nn.ReLU())
        self.predict = nn.Conv2d(20, 20, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.predict(self.stem(x)).view(len(x), self.channels, -1))


class ReadFirst(nn.Module):
    """Both numbers are read before anything is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.out = self.hidden = 20
        self.first, self.last = nn.Linear(8, 20), nn.Linear(20, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n_rows, width, out = len(x), self.hidden, self.out
        return torch.as_tensor(self.last(F.relu(self.first(x).view(n_rows, width))).view(n_rows, out))


class ReadLate(ReadFirst):
    """Each is read where it is used, and both sound like widths."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 20

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x).view(len(x), self.hidden))
        return torch.as_tensor(self.last(x).view(len(x), self.width))


class AsManyGroups(nn.Module):
    """Four heads of hidden features, and four groups of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = self.groups = 4
        self.first, self.last = nn.Linear(8, 20), nn.Linear(20, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads, groups = self.heads, self.groups
        x = F.softmax(self.first(x).view(len(x), heads, -1), dim=-1).flatten(1)
        return torch.as_tensor(self.last(x).view(len(x), groups, -1))


@pytest.mark.parametrize(
    ("build", "inputs", "widths", "after"),
    [
        (Detector, IMAGES, {"stem.0": 20}, {"out": 20, "channels": 20}),
        (ReadFirst, ROWS, {"first": 20}, {"out": 20, "hidden": 10}),
        (ReadLate, ROWS, {"first": 20}, {"out": 20, "hidden": 10, "width": 20}),
        (AsManyGroups, ROWS, {"first": 4}, {"heads": 2, "groups": 4}),
    ],
)
def test_an_attribute_of_the_same_value_keeps_no_channels(
    build: Callable[[], nn.Module], inputs: torch.Tensor, widths: Mapping[str, int], after: Mapping[str, int]
) -> None:
    plan = autoprune.plan(build(), inputs)
    assert {group.name: group.width for group in plan.groups} == widths
    pruned = plan.prune(0.5)  # which compares it with the masked network
    assert {name: getattr(pruned, name) for name in after} == after


class NumberedWidth(nn.Module):
    """The number of features is a width, and no number of heads."""

    def __init__(self) -> None:
        super().__init__()
        self.num_features = self.n_hidden = 20
        self.first, self.cell, self.last = nn.Linear(8, 20), nn.GRUCell(20, 20), nn.Linear(20, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x)).view(-1, self.num_features)
        return torch.as_tensor(self.last(self.cell(x, x.new_zeros(len(x), self.n_hidden))))


class Lettered(nn.Module):
    """Heads, under the letter of the papers."""

    def __init__(self) -> None:
        super().__init__()
        self.h = 4
        self.qkv, self.last = nn.Linear(8, 60), nn.Linear(20, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x[None]).view(1, len(x), 3, self.h, -1).permute(2, 0, 3, 1, 4)
        return torch.as_tensor(self.last(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))


class LetteredWidth(ReadFirst):
    """The same letter for a width."""

    def __init__(self) -> None:
        super().__init__()
        self.h = 20

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.last(F.relu(self.first(x).view(len(x), self.h))))


class Directions(nn.Module):
    """Each of two directions has a width; their outputs are added."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden_size = 10
        self.both, self.last = nn.GRU(8, 10, batch_first=True, bidirectional=True), nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both = self.both(x[None])[0]
        return torch.as_tensor(self.last(both.view(1, len(x), 2, self.hidden_size).sum(2)))


@pytest.mark.parametrize(
    ("build", "widths", "after"),
    [
        (NumberedWidth, {"first": 20, "cell": 20}, {"num_features": 10, "n_hidden": 10}),
        (Lettered, {"qkv": 4}, {"h": 2}),
        (LetteredWidth, {"first": 20}, {"h": 10}),
        (Directions, {"both": 10}, {"hidden_size": 5}),
    ],
)
def test_attributes_follow_under_many_names(
    build: Callable[[], nn.Module], widths: Mapping[str, int], after: Mapping[str, int]
) -> None:
    plan = autoprune.plan(build(), ROWS)
    assert {group.name: group.width for group in plan.groups} == widths
    pruned = plan.prune(0.5)  # which compares it with the masked network
    assert {name: getattr(pruned, name) for name in after} == after


def test_equal_widths_follow_each_their_own_attribute() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = self.inner = 20
            self.a, self.b, self.c = nn.Linear(8, 20), nn.Linear(20, 20), nn.Linear(20, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden, inner = self.hidden, self.inner
            x = F.relu(self.a(x).view(len(x), hidden))
            return torch.as_tensor(self.c(F.relu(self.b(x)).view(len(x), inner)))

    plan = autoprune.plan(Twice(), ROWS)
    pruned = plan.prune({"a": 0.25, "b": 0.75})
    assert (pruned.hidden, pruned.inner) == (15, 5)


def test_a_number_that_a_module_is_handed_follows_where_it_stands() -> None:
    class Rows(nn.Module):
        def forward(self, x: torch.Tensor, width: int) -> torch.Tensor:
            return F.relu(x.view(-1, width))

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dim_hidden = self.dim_unread = 20
            self.a, self.rows, self.b = nn.Linear(8, 20), Rows(), nn.Linear(20, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.b(self.rows(self.a(x), self.dim_hidden)))

    pruned = autoprune.plan(Outer(), ROWS).prune(0.5)
    assert (pruned.dim_hidden, pruned.dim_unread) == (10, 20)


def test_reading_is_recorded_in_no_network_afterwards() -> None:
    assert "__getattribute__" not in vars(nn.Module)
    autoprune.plan(ReadFirst(), ROWS)
    assert "__getattribute__" not in vars(nn.Module)
