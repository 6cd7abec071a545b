"""Integers in a network's code that count channels, such as the sizes of a view."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoprune.pruning.graph.dependency_graph import SizeConstraint, SizeKind
from autoprune.pruning.graph.grouping import Components
from autoprune.pruning.graph.values import Indices


@dataclass(frozen=True)
class CountedSize:
    """An integer in a module's code, and what must stay equal to it.

    Attributes:
        channels: (group, the channels that the size counts, one as often as it counts).
        holders: (module, attribute) that hold the size in the dense network.
    """

    module: str
    size: int
    kind: SizeKind
    channels: tuple[tuple[str, Indices], ...]
    holders: tuple[tuple[str, str], ...] = ()

    def size_after(self, removed: Mapping[str, set[int]]) -> int:
        """Return the size after channels have left."""
        lost = 0
        for group, indices in self.channels:
            gone = removed.get(group)
            if gone:
                lost += int(np.isin(indices, list(gone)).sum())
        return self.size - lost


Places = Collection[tuple[int, int]]
"""Where code states a size: (number of the trace, number of the operation in it)."""


def find_sizes(
    size_constraints: list[SizeConstraint], components: Components, channel_of: Mapping[int, tuple[str, int]]
) -> list[tuple[CountedSize, Places]]:
    """Find the sizes that count channels of groups, and where; ``channel_of`` is component -> (group, channel)."""
    sizes: dict[tuple[Any, ...], CountedSize] = {}
    places: dict[tuple[Any, ...], set[tuple[int, int]]] = {}
    for constraint in size_constraints:
        by_group: dict[str, list[int]] = {}
        for label in components.labels[constraint.nodes[constraint.nodes != 0]].tolist():
            if label in channel_of:
                group_name, channel = channel_of[label]
                by_group.setdefault(group_name, []).append(channel)
        if by_group:
            channels = tuple((name, np.array(indices)) for name, indices in by_group.items())
            key = (
                constraint.module,
                constraint.size,
                constraint.kind,
                *((name, indices.tobytes()) for name, indices in channels),
            )
            sizes.setdefault(key, CountedSize(constraint.module, constraint.size, constraint.kind, channels))
            places.setdefault(key, set()).add(constraint.place)
    return [(size, places[key]) for key, size in sizes.items()]
