"""Report what can't be pruned: which channels of which layer, because of which operation in which module."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.pruning.graph.dependency_graph import Blocker, DependencyGraph
from autoprune.pruning.graph.grouping import Components, TensorDim, owner_of
from autoprune.pruning.graph.propagate import OwnTensors
from autoprune.pruning.graph.values import Nodes
from autoprune.pruning.plan import UNUSED


@dataclass(frozen=True)
class UnprunableChannels:
    """Channels of a layer that can't leave.

    Attributes:
        module: Name of the layer that makes them.
        operation: The ATen operation that keeps them; ``"proof"`` if the graph allows it but the code does not.
        at: Name of the module that runs it.
        reason: Fits behind "its output".
        n_channels: How many of the layer's ``width`` channels.
        by_norms: Whether nothing but statistics keeps them, so that they leave with ``hidden_sizes``.
    """

    module: str
    operation: str
    at: str
    reason: str
    n_channels: int
    width: int
    by_norms: bool = False

    def __str__(self) -> str:
        return f"{self.module}: {self.description}"

    @property
    def description(self) -> str:
        """The reason, fit to stand behind the module's name."""
        part = "" if self.n_channels == self.width else f"{self.n_channels} of {self.width} channels: "
        if self.operation == "proof":
            return f"{part}{self.reason}"
        return f"{part}its output {self.reason} ({self.operation} in {self.at or 'the network'})"


def find_unprunable(
    graph: DependencyGraph,
    components: Components,
    own: OwnTensors,
    parameters: Mapping[str, tuple[int, ...]],
    used: set[str],
    in_groups: Mapping[TensorDim, int],
    consumed: set[TensorDim],
    reads_values_in: Sequence[str],
) -> list[UnprunableChannels]:
    """List the outputs of layers that are in no group, or not as a whole.

    Args:
        parameters: Name -> shape.
        used: Names of the tensors that take part in the forward pass.
        in_groups: TensorDim -> how many of its indices are in a group.
        consumed: Dimensions along which a product sums: a layer's inputs, which are another's outputs.
        reads_values_in: Modules whose code looks at values.
    """
    unused = UNUSED
    if reads_values_in:
        where = reads_values_in[0] or "the network"
        unused += f"; but {where} looks at values, and if others lead to this layer, what it reads may have been cut"
    found: dict[str, UnprunableChannels] = {}
    unsaid: dict[str, UnprunableChannels] = {}
    prunable = {owner_of(name) for name, _ in in_groups}
    for name, shape in parameters.items():
        module = owner_of(name)
        tensor_dims = [
            (name, dim) for dim in range(len(shape)) if (name, dim) in own.starts and (name, dim) not in consumed
        ]
        if len(shape) < 2 or not tensor_dims or module in found:
            continue
        if name not in used:
            found[module] = UnprunableChannels(module, "none", module, unused, shape[0], shape[0])
            continue
        whole = [tensor_dim for tensor_dim in tensor_dims if in_groups.get(tensor_dim, 0) == shape[tensor_dim[1]]]
        is_layer = name.endswith(("weight", "original0", "original1"))
        if whole and not is_layer:
            continue
        for tensor_dim in tensor_dims if is_layer else tensor_dims[-1:]:
            size = shape[tensor_dim[1]]
            missing = size - in_groups.get(tensor_dim, 0)
            nodes = np.arange(own.starts[tensor_dim], own.starts[tensor_dim] + size)
            blocker = _commonest_blocker(graph, components, nodes)
            if missing:
                blocker = blocker or Blocker("none", module, "has channels that all leave together")
                by_norms = bool(components.by_norms[components.labels[nodes[components.blocked(nodes)]]].any())
                account = UnprunableChannels(
                    module, blocker.operation, blocker.module, blocker.reason, missing, size, by_norms
                )
                (unsaid if blocker.quiet else found).setdefault(module, account)
    said = {module: account for module, account in unsaid.items() if module not in prunable}
    return list((said | found).values())


def _commonest_blocker(graph: DependencyGraph, components: Components, nodes: Nodes) -> Blocker | None:
    """Return the blocker that keeps most of these nodes from leaving."""
    first_blockers = components.first_blocker[components.labels[nodes]]
    first_blockers = first_blockers[first_blockers < components.n_blockers]
    if not len(first_blockers):
        return None
    numbers, counts = np.unique(first_blockers, return_counts=True)
    return graph.blockers[int(numbers[np.argmax(counts)])][1]
