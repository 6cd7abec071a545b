"""Recurrent layers that are handed their first state: it follows their width, or the width stays and that is said."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import nn

import autoprune

SERIES = torch.randn(2, 4, 5)


class States(nn.Module):
    """A recurrent layer between two linear ones, its first state made by ``first``."""

    kind: type[nn.RNNBase] = nn.GRU
    layers, directions = 1, 1

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.before = 12, nn.Linear(5, 7)
        self.cells = self.kind(7, 12, self.layers, batch_first=True, bidirectional=self.directions == 2)
        self.head = nn.Linear(12 * self.directions, 3)

    def first(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        return torch.zeros(self.layers * self.directions, len(x), self.hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.head(self.cells(torch.relu(self.before(x)), self.first(x))[0][:, -1]))


class OfTheLayer(States):
    layers, directions = 2, 2

    def first(self, x: torch.Tensor) -> torch.Tensor:
        return x.new_zeros(4, len(x), self.cells.hidden_size)


class Pair(States):
    kind = nn.LSTM

    def first(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.zeros(1, len(x), self.hidden), x.new_ones(1, len(x), self.hidden)


class Learned(States):
    def __init__(self) -> None:
        super().__init__()
        self.state = nn.Parameter(torch.randn(1, 1, 12))

    def first(self, x: torch.Tensor) -> torch.Tensor:
        return self.state.expand(-1, len(x), -1).contiguous()


class Kept(States):
    kind = nn.RNN

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", torch.zeros(1, 1, 12))

    def first(self, x: torch.Tensor) -> torch.Tensor:
        return self.get_buffer("state").repeat(1, len(x), 1)


class Computed(States):
    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(5, 12)

    def first(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.start(x.mean(1)))[None]


class Stepwise(nn.Module):
    """A cell, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.n_steps, self.hidden, self.cell, self.head = 4, 12, nn.LSTMCell(5, 12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = (torch.zeros(len(x), self.hidden), torch.zeros(len(x), self.hidden))
        for step in range(self.n_steps):
            state = self.cell(x[:, step], state)
        return torch.as_tensor(self.head(state[0]))


@pytest.mark.parametrize(
    ("build", "widths"),
    [
        (States, {"before": 7, "cells": 12}),
        (OfTheLayer, {"before": 7, "cells": 12}),
        (Pair, {"before": 7, "cells": 12}),
        (Learned, {"before": 7, "cells": 12}),
        (Kept, {"before": 7, "cells": 12}),
        (Computed, {"before": 7, "start": 12}),
        (Stepwise, {"cell": 12}),
    ],
)
def test_a_first_state_follows_the_width(build: Callable[[], nn.Module], widths: Mapping[str, int]) -> None:
    torch.manual_seed(0)
    plan = autoprune.plan(build(), SERIES)
    assert {group.name: group.width for group in plan.groups} == widths
    pruned = plan.prune(0.5)  # which compares it with the masked network
    assert {module.hidden_size for module in pruned.modules() if isinstance(module, nn.RNNBase | nn.RNNCellBase)} == {6}


class Written(States):
    def first(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(1, len(x), 12)


class WrittenPair(States):
    kind = nn.LSTM

    def first(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x.new_zeros(1, len(x), 12), x.new_zeros(1, len(x), self.hidden)


class Drawn(States):
    """Random numbers differ with their count, so that nothing can be compared."""

    def first(self, x: torch.Tensor) -> torch.Tensor:
        return torch.randn(1, len(x), self.hidden)


@pytest.mark.parametrize(
    ("build", "reason"), [(Written, "hidden size"), (WrittenPair, "hidden"), (Drawn, "differs from the masked")]
)
def test_a_first_state_that_can_not_follow_keeps_the_width(build: Callable[[], nn.Module], reason: str) -> None:
    torch.manual_seed(0)
    plan = autoprune.plan(build(), SERIES)
    assert [group.name for group in plan.groups] == ["before"]
    assert [item.module for item in plan.left_out if reason in item.reason] == ["cells"]
    assert plan.prune(0.5).cells.hidden_size == 12
