"""Products of activations, such as queries with keys: their cost falls with the channels that they run over."""

from collections.abc import Mapping, Sequence
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


RawProduct = tuple[str, tuple[tuple[int, Dim], ...]]
"""(module, (size, nodes) of each dimension that the product runs over)."""


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
