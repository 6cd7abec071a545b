"""The account of what can't be pruned: which channels of which layer, because of which operation in which module."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.pruning.graph.grouping import Components, Place
from autoprune.pruning.graph.propagate import OwnTensors
from autoprune.pruning.graph.propagation import Event, Flow
from autoprune.pruning.graph.values import Atoms


@dataclass(frozen=True)
class Blocked:
    """Channels that can't leave.

    Attributes:
        module: Name of the layer that makes them.
        operation: The ATen operation that keeps them; ``"proof"`` if the graph allows it but the code does not.
        at: Name of the module that runs it.
        reason: Fits behind "its output".
        n_channels: How many of the layer's ``width`` channels.
    """

    module: str
    operation: str
    at: str
    reason: str
    n_channels: int
    width: int

    def __str__(self) -> str:
        return f"{self.module}: {self.account}"

    @property
    def account(self) -> str:
        """The reason, fit to stand behind the module's name."""
        part = "" if self.n_channels == self.width else f"{self.n_channels} of {self.width} channels: "
        if self.operation == "proof":
            return f"{part}{self.reason}"
        return f"{part}its output {self.reason} ({self.operation} in {self.at or 'the network'})"


def owner_of(tensor_name: str) -> str:
    """The module that a parameter belongs to; a parametrised weight is its layer's."""
    return tensor_name.rpartition(".")[0].partition(".parametrizations.")[0]


def find_blocked(
    flow: Flow,
    components: Components,
    own: OwnTensors,
    parameters: Mapping[str, tuple[int, ...]],
    used: set[str],
    in_groups: Mapping[Place, int],
    consumed: set[Place],
    reads_values_in: Sequence[str],
) -> list[Blocked]:
    """List the outputs of layers that are in no group, or not as a whole.

    Args:
        parameters: Name -> shape.
        used: Names of the tensors that take part in the forward pass.
        in_groups: Place -> how many of its indices are in a group.
        consumed: WorkerResources along which a product sums: inputs of a layer, which are another's outputs.
        reads_values_in: Modules whose code looks at values.
    """
    unused = "takes no part in the forward pass"
    if reads_values_in:
        where = reads_values_in[0] or "the network"
        unused += f"; but {where} looks at values, and if others lead to this layer, what it reads may have been cut"
    found: dict[str, Blocked] = {}
    unsaid: dict[str, Blocked] = {}
    prunable = {owner_of(name) for name, _ in in_groups}
    for name, shape in parameters.items():
        module = owner_of(name)
        places = [(name, dim) for dim in range(len(shape)) if (name, dim) in own.starts and (name, dim) not in consumed]
        if len(shape) < 2 or not places or module in found:
            continue
        if name not in used:
            found[module] = Blocked(module, "none", module, unused, shape[0], shape[0])
            continue
        whole = [place for place in places if in_groups.get(place, 0) == shape[place[1]]]
        is_layer = name.endswith(("weight", "original0", "original1"))
        if whole and not is_layer:
            continue
        for place in places if is_layer else places[-1:]:
            size = shape[place[1]]
            missing = size - in_groups.get(place, 0)
            event = _usual_event(flow, components, np.arange(own.starts[place], own.starts[place] + size))
            if missing:
                event = event or Event("none", module, "has channels that all leave together")
                account = Blocked(module, event.operation, event.module, event.reason, missing, size)
                (unsaid if event.quiet else found).setdefault(module, account)
    said = {module: account for module, account in unsaid.items() if module not in prunable}
    return list((said | found).values())


def _usual_event(flow: Flow, components: Components, atoms: Atoms) -> Event | None:
    """The event that keeps most of these atoms from leaving."""
    causes = components.cause[components.labels[atoms]]
    causes = causes[causes < components.n_events]
    if not len(causes):
        return None
    numbers, counts = np.unique(causes, return_counts=True)
    return flow.events[int(numbers[np.argmax(counts)])][1]
