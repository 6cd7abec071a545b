"""Products of activations, such as queries with keys: their cost falls with the channels that they run over."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.pruning.graph.values import Dim, Nodes


@dataclass(frozen=True)
class Run:
    """A dimension that a product runs over.

    Attributes:
        losses: (group, entries lost with each of its channels).
    """

    size: int
    losses: tuple[tuple[str, int], ...]

    def size_after(self, n_removed: Mapping[str, int]) -> int:
        """Return the size when so many channels of each group have left."""
        return self.size - sum(entries * n_removed.get(group, 0) for group, entries in self.losses)


@dataclass(frozen=True)
class Product:
    """One product of activations, for the whole example batch.

    Attributes:
        runs: Its cost is the product of their sizes.
    """

    module: str
    runs: tuple[Run, ...]


RawRuns = tuple[tuple[int, Dim], ...]
"""(size, nodes) of each dimension that a product runs over."""

RawProduct = tuple[str, RawRuns]
"""(module, dimensions of the product)."""

RawPositions = tuple[Nodes, RawRuns, bool]
"""(nodes of a weight, the other factor's dimensions that are not the weight's own, whether that is a weight, too)."""

Positions = Mapping[str, tuple[tuple[Run, ...], ...]]
"""Parameter or buffer -> for each product with it, the dimensions of the other factor that are not the tensor's own."""


def resolve(
    raw: Sequence[RawProduct], labels: Nodes, channel_of: Mapping[int, tuple[str, int]], widths: Mapping[str, int]
) -> list[Product]:
    """Express products by groups instead of nodes.

    Args:
        labels: Component of each node.
        channel_of: Component -> (group, channel).
    """
    products = []
    for module, runs in raw:
        resolved = tuple(Run(size, _losses(dim, labels, channel_of, widths)) for size, dim in runs)
        products.append(Product(module, resolved))
    return products


def resolve_positions(
    raw: Sequence[RawPositions],
    owner_of: Callable[[Nodes], str | None],
    labels: Nodes,
    channel_of: Mapping[int, tuple[str, int]],
    widths: Mapping[str, int],
) -> Positions:
    """Find the tensors that are multiplied along dimensions which lose channels.

    Args:
        owner_of: The tensor that a node belongs to.
    """
    found: dict[str, list[tuple[Run, ...]]] = {}
    for nodes, runs, of_weights in raw:
        name = owner_of(nodes)
        resolved = tuple(Run(size, _losses(dim, labels, channel_of, widths)) for size, dim in runs)
        # A product of constants costs the same for any number of examples, and is counted by itself.
        if name is not None and not (of_weights and not any(run.losses for run in resolved)):
            found.setdefault(name, []).append(resolved)
    return {
        name: tuple(products)
        for name, products in found.items()
        if any(run.losses for runs in products for run in runs)
    }


def _losses(
    dim: Dim, labels: Nodes, channel_of: Mapping[int, tuple[str, int]], widths: Mapping[str, int]
) -> tuple[tuple[str, int], ...]:
    if dim is None:
        return ()
    counts: dict[str, int] = {}
    numbers, times = np.unique(labels[dim[dim != 0]], return_counts=True)
    for label, n in zip(numbers.tolist(), times.tolist(), strict=True):
        if label in channel_of:
            group = channel_of[label][0]
            counts[group] = counts.get(group, 0) + n
    return tuple((group, n // widths[group]) for group, n in counts.items() if n % widths[group] == 0)
