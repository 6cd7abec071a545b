"""From unions to channels: the sets of indices that leave together, sorted into groups of alike ones."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autoprune.pruning.graph.propagate import OwnTensors
from autoprune.pruning.graph.propagation import Flow
from autoprune.pruning.graph.values import Atoms

Place = tuple[str, int]
"""A dimension of a parameter or buffer: (name, dimension)."""


@dataclass(frozen=True)
class Components:
    """Which atoms leave together.

    Attributes:
        labels: Component of each atom.
        cause: Component -> number of the first event that keeps it from leaving, or a number beyond all events.
        inexact: Component -> whether its leaving changes statistics.
    """

    labels: Atoms
    cause: Atoms
    inexact: Atoms
    n_events: int

    def fixed(self, atoms: Atoms) -> npt.NDArray[np.bool_]:
        """Whether each atom can't leave."""
        mask: npt.NDArray[np.bool_] = self.cause[self.labels[atoms]] < self.n_events
        return mask


def find_components(flow: Flow, allow_norm: bool) -> Components:
    """Unite all pairs at once.

    Args:
        allow_norm: Whether channels may leave over which statistics are taken.
    """
    from scipy.sparse import coo_matrix  # 0.2 s, which a worker is spared: the plan has been made
    from scipy.sparse.csgraph import connected_components

    if flow.pairs:
        a = np.concatenate([pair[0] for pair in flow.pairs])
        b = np.concatenate([pair[1] for pair in flow.pairs])
    else:
        a = b = np.zeros(0, dtype=np.int64)
    keep = (a != 0) & (b != 0)
    graph = coo_matrix((np.ones(keep.sum(), dtype=np.int8), (a[keep], b[keep])), shape=(flow.n_atoms, flow.n_atoms))
    n, labels = connected_components(graph, directed=False)
    n_events = len(flow.events)
    cause = np.full(n, n_events, dtype=np.int64)
    inexact = np.zeros(n, dtype=np.int64)
    for number in range(n_events - 1, -1, -1):
        atoms, event = flow.events[number]
        touched = labels[atoms[atoms != 0]]
        if event.inexact and allow_norm:
            inexact[touched] = 1
        else:
            cause[touched] = number
    return Components(labels.astype(np.int64), cause, inexact, n_events)


@dataclass(frozen=True)
class Grouped:
    """Channels with the same signature.

    Attributes:
        members: Place -> indices that leave, shape ``(width, entries per channel)``.
        exact: Whether the network without the channels equals the masked one.
    """

    width: int
    members: Mapping[Place, Atoms]
    exact: bool


def group_components(
    components: Components,
    own: OwnTensors,
    shapes: Mapping[str, tuple[int, ...]],
    used: set[str],
    makers: set[Place],
) -> list[Grouped]:
    """Sort the components that can leave by which dimensions they take entries from, and how many.

    Args:
        used: Names of the tensors that take part in the forward pass.
        makers: WorkerResources of parameters that make channels; a channel must have a part in one.
    """
    places = [place for place in own.starts if place[0] in used]
    labels_of, place_of, index_of = [], [], []
    for number, place in enumerate(places):
        size = shapes[place[0]][place[1]]
        atoms = np.arange(own.starts[place], own.starts[place] + size)
        free = np.flatnonzero(~components.fixed(atoms))
        labels_of.append(components.labels[atoms[free]])
        place_of.append(np.full(len(free), number))
        index_of.append(free)
    if not labels_of:
        return []
    label, place_number, index = (np.concatenate(x) for x in (labels_of, place_of, index_of))
    order = np.lexsort((index, place_number, label))
    label, place_number, index = label[order], place_number[order], index[order]
    bounds = np.flatnonzero(np.r_[True, label[1:] != label[:-1], True]) if len(label) else np.zeros(1, dtype=np.int64)
    alike: defaultdict[tuple[bytes, int], list[int]] = defaultdict(list)
    for number, (start, end) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        alike[place_number[start:end].tobytes(), int(components.inexact[label[start]])].append(number)
    groups = []
    for (_, inexact), numbers in alike.items():
        start, end = int(bounds[numbers[0]]), int(bounds[numbers[0] + 1])
        which = place_number[start:end]
        if not any(places[p] in makers for p in set(which.tolist())):
            continue
        numbers = sorted(numbers, key=lambda n: int(index[bounds[n]]))
        starts = bounds[numbers]
        grid = index[starts[:, None] + np.arange(end - start)]
        members = {places[p]: grid[:, which == p] for p in sorted(set(which.tolist()))}
        groups.append(Grouped(len(numbers), members, not inexact))
    return groups
