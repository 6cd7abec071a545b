"""The dependency graph of a network, as it is built during propagation.

Every index of every dimension is a node. Nodes that leave together are connected. Blockers say which can't leave, and
why. The choices that the propagation made are kept with them.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np

from autoprune.pruning.graph.products import RawPositions, RawProduct
from autoprune.pruning.graph.values import FIXED, Dim, Nodes

ChoiceKey = tuple[str, int, int]
"""(class of the module, or the layer's own name; how many choices it made before this one; number of options)."""


CONVOLUTION = "convolution:"
"""Before a layer's name in the key of its choice: grouped convolutions each choose for themselves."""

SLICES = "slices:"
"""Before a class's name in the key of the one choice for all slices of its modules: whether their places can change."""


@dataclass(frozen=True)
class Blocker:
    """Why nodes can't leave.

    Attributes:
        module: Name of the module that ran the operation.
        quiet: Nobody would expect them to, so don't report them (the pixels of a kernel, the rows of a vocabulary).
        inexact: They can leave, but the network then differs from the masked one (statistics over channels).
    """

    operation: str
    module: str
    reason: str
    quiet: bool = False
    inexact: bool = False


SizeKind = Literal["count", "part", "width", "padding"]
"""How many heads or groups there are, how large one of them is, the width of a dimension, or what is padded to it."""


@dataclass(frozen=True)
class SizeConstraint:
    """A size that code in a module states, and the nodes whose survivors it must equal after pruning.

    Attributes:
        kind: What the size is.
        place: (number of the trace, number of the operation in it).
    """

    module: str
    size: int
    nodes: Nodes
    kind: SizeKind
    place: tuple[int, int]


@dataclass(frozen=True)
class Choice:
    """A dimension can be split in several ways; the option that was taken."""

    key: ChoiceKey
    taken: int


class DependencyGraph:
    """Collects edges and blockers while the rules run.

    Args:
        module_types: Module name -> class name.
        choices: Option to take for a choice; those not named take their default.
    """

    def __init__(self, module_types: dict[str, str], choices: dict[ChoiceKey, int]) -> None:
        self.n_nodes = 1
        self.n_own = 1
        self.edges: list[tuple[Nodes, Nodes]] = []
        self.blockers: list[tuple[Nodes, Blocker]] = []
        self.consumed: list[Nodes] = []
        self.produced: list[Nodes] = []
        self.size_constraints: list[SizeConstraint] = []
        self.products: list[RawProduct] = []
        self.positions: list[RawPositions] = []
        self.choices: list[Choice] = []
        self.module = ""
        self.operation = ""
        self.place = (0, 0)
        self._module_types = module_types
        self._taken = choices
        self._ordinals: defaultdict[str, int] = defaultdict(int)

    def new_dim(self, size: int) -> Dim:
        """Add nodes, one for each index. A dimension of size 1 or 0 has none that could leave."""
        return self.new_nodes(size) if size > 1 else None

    def new_nodes(self, size: int) -> Nodes:
        """Add nodes, whatever their number."""
        nodes = np.arange(self.n_nodes, self.n_nodes + size)
        self.n_nodes += size
        return nodes

    def connect_nodes(self, a: Nodes, b: Nodes) -> None:
        """Connect the nodes at the same place: they leave together."""
        if a is b:
            return
        if a.shape != b.shape:
            a, b = np.broadcast_arrays(a, b)
        a, b = a.reshape(-1), b.reshape(-1)
        differ = a != b
        if not differ.any():
            return
        a, b = a[differ], b[differ]
        for one, other in ((a, b), (b, a)):
            meets_fixed = one == FIXED
            if meets_fixed.any():
                self.block_dim(other[meets_fixed], "meets channels whose number is constant (padding)")
        self.edges.append((a, b))

    def connect_dims(self, a: Dim, b: Dim, reason: str = "meets a dimension whose size is constant") -> Dim:
        """Connect two dimensions of equal size. A constant one keeps the other from shrinking.

        Returns:
            The nodes of the network's own tensors, if either has them: what only those can do stays possible.
        """
        if a is None or b is None:
            live = b if a is None else a
            if live is not None:
                self.block_dim(live, reason)
            return live
        self.connect_nodes(a, b)
        return b if a.min() >= self.n_own > b.min() else a

    def block_dim(self, dim: Dim, reason: str, *, quiet: bool = False, inexact: bool = False) -> None:
        """Keep nodes from leaving, and say why."""
        if dim is not None:
            self.blockers.append((dim, Blocker(self.operation, self.module, reason, quiet, inexact)))

    def constrain_size(self, size: int, dim: Dim, kind: SizeKind = "width") -> None:
        """Constrain nodes by a size that the running module's code states."""
        if dim is not None and size > 1 and not _is_tiled(dim):
            self.size_constraints.append(SizeConstraint(self.module, size, dim, kind, self.place))

    def choose_option(self, n_options: int, default: int, owner: str | None = None) -> int:
        """Decide between options; layers of the same class decide alike."""
        owner_class = owner or self._module_types.get(self.module, self.module)
        place = owner or self.module
        key = (owner_class, self._ordinals[place], n_options)
        if owner is None:
            self._ordinals[place] += 1
        taken = self._taken.get(key, default)
        self.choices.append(Choice(key, taken))
        return taken

    def choose_slices(self) -> bool:
        """Decide whether the places at which a module slices follow its attributes."""
        return self.choose_option(2, 0, SLICES + self._module_types.get(self.module, self.module)) == 1

    def merge_dims(self, dims: Sequence[Dim], shape: Sequence[int]) -> Dim:
        """Return the nodes of several dimensions flattened into one."""
        live = [axis for axis, dim in enumerate(dims) if dim is not None and dim.min() < self.n_own]
        for axis, dim in enumerate(dims):
            if axis not in live:
                self.block_dim(dim, "is flattened together with other channels", quiet=True)
        if not live:
            return None
        widest = max(live, key=lambda axis: shape[axis])
        for axis in live:
            if axis != widest:
                self.block_dim(dims[axis], "is flattened together with other channels")
        nodes = dims[widest]
        assert nodes is not None
        lined_up = nodes.reshape([-1 if axis == widest else 1 for axis in range(len(shape))])
        return np.broadcast_to(lined_up, tuple(shape)).reshape(-1)

    def split_dim(self, dim: Dim, shape: Sequence[int]) -> tuple[Dim, ...]:
        """Split the nodes of one dimension into several, of which one alone can go on shrinking."""
        if dim is None:
            return (None,) * len(shape)
        grid = dim.reshape(tuple(shape))
        varying = [axis for axis in range(len(shape)) if (grid != grid.take([0], axis=axis)).any()]
        if not varying or grid.min() >= self.n_own:
            self.block_dim(dim, "is cut up by the code", quiet=True)
            return (None,) * len(shape)
        axis = varying[0] if len(varying) == 1 else varying[self.choose_option(len(varying), 0)]
        line = grid[tuple(slice(None) if other == axis else 0 for other in range(len(shape)))]
        if len(varying) > 1:
            self.connect_nodes(grid, line.reshape([-1 if other == axis else 1 for other in range(len(shape))]))
        last = axis == len(shape) - 1
        self.constrain_size(shape[axis], line, "count" if not last else "part" if len(varying) > 1 else "width")
        return tuple(line if other == axis else None for other in range(len(shape)))

    def tie_parts(self, dim: Nodes, n_parts: int) -> None:
        """Connect equal parts of a dimension, index by index: the code splits it, so they must keep equally many."""
        parts = dim.reshape(n_parts, -1)
        self.connect_nodes(parts, parts[:1])

    def reshape_dims(self, dims: Sequence[Dim], old: Sequence[int], new: Sequence[int]) -> tuple[Dim, ...]:
        """Return the nodes of a tensor seen in another shape."""
        result: list[Dim] = [None] * len(new)
        i = j = 0
        if prod(old) != prod(new) or 0 in old:
            raise ValueError(f"can't see shape {tuple(old)} as {tuple(new)}")
        while i < len(old) and j < len(new):
            start_i, start_j = i, j
            n_old, n_new = old[i], new[j]
            i, j = i + 1, j + 1
            while n_old != n_new:
                if n_old < n_new:
                    n_old, i = n_old * old[i], i + 1
                else:
                    n_new, j = n_new * new[j], j + 1
            olds = [axis for axis in range(start_i, i) if old[axis] != 1]
            news = [axis for axis in range(start_j, j) if new[axis] != 1]
            if not olds or all(dims[axis] is None for axis in olds):
                continue
            flat = self.merge_dims([dims[axis] for axis in olds], [old[axis] for axis in olds])
            parts = (flat,) if len(news) == 1 else self.split_dim(flat, [new[axis] for axis in news])
            for axis, part in zip(news, parts, strict=True):
                result[axis] = part
            if len(news) == 1 and dims[olds[0]] is not None:
                # Not where a batch comes first: no code states the product of its size and a width.
                self.constrain_size(new[news[0]], flat)
                if len(olds) > 1 and news[0] < len(new) - 1:
                    # Heads that share keys and values, flattened with those that don't.
                    self.constrain_size(new[news[0]], flat, "count")
                if news[0] > start_j:
                    # The only head of its kind, whose size it is.
                    self.constrain_size(new[news[0]], flat, "part")
        return tuple(result)


def _is_tiled(nodes: Nodes) -> bool:
    """Whether the same nodes come round again, as in a batch times heads: no code states such a size."""
    return bool(nodes[0] != nodes[1] and nodes[0] in nodes[2:])
