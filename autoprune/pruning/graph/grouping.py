"""Find the groups: connected components of the dependency graph, sorted into groups of alike ones."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from autoprune.pruning.graph.dependency_graph import DependencyGraph
from autoprune.pruning.graph.propagate import OwnTensors
from autoprune.pruning.graph.values import Indices, Nodes
from autoprune.pruning.plan import Group

TensorDim = tuple[str, int]
"""A dimension of a parameter or buffer: (name, dimension)."""


@dataclass(frozen=True, kw_only=True)
class DependencyGroup(Group):
    """A group with the entries of all tensors that belong to its channels.

    Attributes:
        members: Tensor dimension -> indices that leave with each channel, shape ``(width, entries)``.
        consumers: Those of the members that read the channels; the others make or scale them.
    """

    members: Mapping[TensorDim, Indices]
    consumers: frozenset[TensorDim]

    @property
    def makers(self) -> list[str]:
        """Modules that make or scale the channels."""
        return list(dict.fromkeys(owner_of(name) for name, dim in self.members if (name, dim) not in self.consumers))


def owner_of(tensor_name: str) -> str:
    """Return the module that a parameter belongs to; a parametrised weight is its layer's."""
    return tensor_name.rpartition(".")[0].partition(".parametrizations.")[0]


@dataclass(frozen=True)
class Components:
    """Connected components of the dependency graph: nodes that leave together.

    Attributes:
        labels: Component of each node.
        first_blocker: Component -> number of the first blocker that keeps it from leaving, or ``n_blockers``.
        inexact: Component -> whether its leaving changes statistics.
        by_norms: Component -> whether nothing keeps it from leaving but statistics, which may not change.
    """

    labels: Nodes
    first_blocker: Nodes
    inexact: Nodes
    by_norms: npt.NDArray[np.bool_]
    n_blockers: int

    def blocked(self, nodes: Nodes) -> npt.NDArray[np.bool_]:
        """Mark the nodes that can't leave."""
        mask: npt.NDArray[np.bool_] = self.first_blocker[self.labels[nodes]] < self.n_blockers
        return mask


def find_components(graph: DependencyGraph, allow_norm: bool) -> Components:
    """Find the connected components of the dependency graph.

    Args:
        allow_norm: Whether channels may leave over which statistics are taken.
    """
    from scipy.sparse import coo_matrix  # 0.2 s, which a worker is spared: the plan has been made
    from scipy.sparse.csgraph import connected_components

    if graph.edges:
        a = np.concatenate([edge[0] for edge in graph.edges])
        b = np.concatenate([edge[1] for edge in graph.edges])
    else:
        a = b = np.zeros(0, dtype=np.int64)
    keep = (a != 0) & (b != 0)
    ones = np.ones(keep.sum(), dtype=np.int8)
    adjacency = coo_matrix((ones, (a[keep], b[keep])), shape=(graph.n_nodes, graph.n_nodes))
    n, labels = connected_components(adjacency, directed=False)
    n_blockers = len(graph.blockers)
    first_blocker = np.full(n, n_blockers, dtype=np.int64)
    inexact = np.zeros(n, dtype=np.int64)
    otherwise = np.zeros(n, dtype=bool)
    for number in range(n_blockers - 1, -1, -1):
        nodes, blocker = graph.blockers[number]
        touched = labels[nodes[nodes != 0]]
        if blocker.inexact and allow_norm:
            inexact[touched] = 1
        else:
            first_blocker[touched] = number
            otherwise[touched] |= not blocker.inexact
    by_norms = ~otherwise & (first_blocker < n_blockers)
    return Components(labels.astype(np.int64), first_blocker, inexact, by_norms, n_blockers)


def group_components(
    components: Components,
    own: OwnTensors,
    shapes: Mapping[str, tuple[int, ...]],
    used: set[str],
    makers: set[TensorDim],
    consumed: set[TensorDim],
    order: Mapping[str, int],
) -> list[DependencyGroup]:
    """Sort the components that can leave by which dimensions they take entries from, and how many.

    Args:
        used: Names of the tensors that take part in the forward pass.
        makers: Dimensions of parameters that make channels; a channel must have a part in one.
        consumed: Dimensions that only read channels.
        order: Module -> its number in module order.

    Returns:
        The groups of two channels or more, in module order.
    """
    tensor_dims = [tensor_dim for tensor_dim in own.starts if tensor_dim[0] in used]
    labels_of, number_of, index_of = [], [], []
    for number, tensor_dim in enumerate(tensor_dims):
        size = shapes[tensor_dim[0]][tensor_dim[1]]
        nodes = np.arange(own.starts[tensor_dim], own.starts[tensor_dim] + size)
        free = np.flatnonzero(~components.blocked(nodes))
        labels_of.append(components.labels[nodes[free]])
        number_of.append(np.full(len(free), number))
        index_of.append(free)
    if not labels_of:
        return []
    # One entry for each node that can leave: its component, its tensor dimension, its index there.
    label, dim_number, index = (np.concatenate(x) for x in (labels_of, number_of, index_of))
    by_component = np.lexsort((index, dim_number, label))
    label, dim_number, index = label[by_component], dim_number[by_component], index[by_component]
    bounds = np.flatnonzero(np.r_[True, label[1:] != label[:-1], True]) if len(label) else np.zeros(1, dtype=np.int64)
    # Components that take as many entries from the same dimensions are channels of one group.
    alike: defaultdict[tuple[bytes, int], list[int]] = defaultdict(list)
    for number, (start, end) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        alike[dim_number[start:end].tobytes(), int(components.inexact[label[start]])].append(number)
    found = []
    for (_, inexact), numbers in alike.items():
        start, end = int(bounds[numbers[0]]), int(bounds[numbers[0] + 1])
        which = dim_number[start:end]
        if len(numbers) < 2 or not any(tensor_dims[n] in makers for n in set(which.tolist())):
            continue
        numbers = sorted(numbers, key=lambda n: int(index[bounds[n]]))
        starts = bounds[numbers]
        grid = index[starts[:, None] + np.arange(end - start)]  # (channels, entries of each)
        members = {tensor_dims[n]: grid[:, which == n] for n in sorted(set(which.tolist()))}
        found.append(_named(members, len(numbers), not inexact, consumed, order))
    found.sort(key=lambda group: order.get(group.name, len(order)))
    return _with_unique_names(found)


def _named(
    members: Mapping[TensorDim, Indices],
    width: int,
    exact: bool,
    consumed: set[TensorDim],
    order: Mapping[str, int],
) -> DependencyGroup:
    """Name a group after the first layer that makes its channels."""

    def rank(name: str) -> int:
        return order.get(name, len(order))

    consumers = frozenset(tensor_dim for tensor_dim in members if tensor_dim in consumed)
    makers = {owner_of(name) for name, dim in members if (name, dim) not in consumed and name.endswith("weight")}
    layers = {owner_of(name) for name, _ in members}
    # A parameter of the network itself has no layer to name a group after.
    name = min((makers or layers) - {""} or layers, key=rank)
    in_order = tuple(sorted(layers, key=rank))
    return DependencyGroup(name, width, in_order, exact=exact, members=members, consumers=consumers)


def _with_unique_names(groups: Sequence[DependencyGroup]) -> list[DependencyGroup]:
    seen: Counter[str] = Counter()
    result = []
    for group in groups:
        seen[group.name] += 1
        number = seen[group.name]
        result.append(group if number == 1 else replace(group, name=f"{group.name}#{number}"))
    return result
