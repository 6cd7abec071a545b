"""Graph networks: the first dimension of their inputs is nodes, and no batch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import autoprune
from autoprune.cost import count_macs
from autoprune.errors import PruningError

NODES = torch.randn(6, 5)
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 3], [1, 2, 3, 4, 5, 0, 3, 0]])


def added(x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(x).index_add(0, edges[1], x[edges[0]])


def scattered(x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    places = edges[1][:, None].expand(-1, x.shape[1])
    return x.new_zeros(x.shape).scatter_add_(0, places, x.index_select(0, edges[0]))


def largest(x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    messages = x[edges[0]]
    return torch.zeros_like(x).scatter_reduce(0, edges[1][:, None].expand_as(messages), messages, "amax")


def put(x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(x).index_put_((edges[1],), x[edges[0]], accumulate=True)


def multiplied(x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    neighbours = torch.zeros(len(x), len(x), dtype=x.dtype)
    neighbours[edges[1], edges[0]] = 1
    return neighbours @ x


class Convolutions(nn.Module):
    """Two layers whose messages meet in the nodes."""

    def __init__(self, meet: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = added) -> None:
        super().__init__()
        self.meet = meet
        self.first, self.second, self.head = nn.Linear(5, 12), nn.Linear(12, 10), nn.Linear(10, 3)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        for layer in (self.first, self.second):
            x = F.relu(self.meet(layer(x), edges))
        return torch.as_tensor(self.head(x))


class Attention(nn.Module):
    """Each of two heads weighs the messages of a node's neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.values = 2, nn.Linear(5, 12)
        self.source, self.target, self.head = nn.Linear(6, 1), nn.Linear(6, 1), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        values = self.values(x).view(len(x), self.heads, -1)
        weights = (self.source(values)[edges[0]] + self.target(values)[edges[1]]).exp()
        total = torch.zeros(len(x), self.heads, 1, dtype=x.dtype).index_add(0, edges[1], weights)
        mixed = torch.zeros_like(values).index_add(0, edges[1], weights / total[edges[1]] * values[edges[0]])
        return torch.as_tensor(self.head(mixed.flatten(1)))


class Pooled(Convolutions):
    """Nodes of several graphs side by side, each with its graph's number."""

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        for layer in (self.first, self.second):
            x = F.relu(self.meet(layer(x), edges))
        graphs = torch.zeros(2, x.shape[1], dtype=x.dtype).index_add(0, torch.tensor([0, 0, 0, 1, 1, 1]), x)
        return torch.as_tensor(self.head(graphs))


class Fixed(Convolutions):
    """The edges are a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("edges", EDGES)

    def forward(self, x: torch.Tensor, edges: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x, self.get_buffer("edges"))


TWO = {"first": 12, "second": 10}
GRAPH = (NODES, EDGES)


@pytest.mark.parametrize(
    ("build", "inputs", "widths"),
    [
        (Convolutions, GRAPH, TWO),
        (lambda: Convolutions(scattered), GRAPH, TWO),
        (lambda: Convolutions(largest), GRAPH, TWO),
        (lambda: Convolutions(put), GRAPH, TWO),
        (lambda: Convolutions(multiplied), GRAPH, TWO),
        (Pooled, {"x": NODES, "edges": EDGES}, TWO),
        (Fixed, NODES, TWO),
        (Fixed, NODES[:1].expand(6, -1), TWO),
        (Attention, GRAPH, {"values": 6}),
    ],
)
def test_a_graph_network_is_planned_without_a_batch(
    build: Callable[[], nn.Module], inputs: Any, widths: dict[str, int]
) -> None:
    torch.manual_seed(0)
    plan = autoprune.plan(build(), inputs, batch_dim=None)
    assert {group.name: group.width for group in plan.groups} == widths
    for ratio in (0.5, 0.8):
        pruned = plan.prune(ratio)  # which compares it with the masked network
        assert plan.cost(plan.widths(ratio)).macs == count_macs(pruned, inputs, batch_dim=None)
    assert plan.cost({}).macs == count_macs(build(), inputs, batch_dim=None)


def test_a_single_node_stays_one() -> None:
    """With a batch, a first dimension of 1 is repeated, so that it can't be mistaken for another."""

    class Alone(Convolutions):
        def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
            assert len(x) == 1
            return super().forward(x, edges)

    plan = autoprune.plan(Alone(), (NODES[:1], torch.zeros(2, 1, dtype=torch.long)), batch_dim=None)
    assert len(plan.groups) == 2


def test_without_the_option_it_is_named() -> None:
    with pytest.raises(
        PruningError, match=r"If their first dimension is no batch, as the nodes of a graph.*batch_dim="
    ):
        autoprune.plan(Convolutions(), GRAPH)


@pytest.mark.parametrize("batch_dim", [1, -1, "none", False])
def test_no_other_dimension_is_the_batch(batch_dim: Any) -> None:
    with pytest.raises(PruningError, match="batch_dim must be 0 or None, got"):
        autoprune.plan(Convolutions(), GRAPH, batch_dim=batch_dim)
