"""What of a network can leave together, and what can't and why."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.network.call import call_model
from autoprune.pruning.graph.attributes import with_holders
from autoprune.pruning.graph.choices import best_choices
from autoprune.pruning.graph.grouping import Components, Grouped, Place, find_components, group_components
from autoprune.pruning.graph.products import Product, resolve
from autoprune.pruning.graph.propagate import OwnTensors, walk
from autoprune.pruning.graph.propagation import SLICES, ChoiceKey, Flow
from autoprune.pruning.graph.sizes import CountedSize, find_sizes
from autoprune.pruning.graph.trace import Operation, Tape, record
from autoprune.pruning.graph.unprunable import Blocked, find_blocked, owner_of
from autoprune.pruning.graph.values import Atoms
from autoprune.pruning.proof import tensors_in


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of which any may leave, each with all that belongs to it.

    Attributes:
        name: The first module in module order that makes the channels.
        width: Number of channels.
        layers: All modules that lose something, in module order.
        members: (tensor name, dimension) -> indices that leave with each channel, shape ``(width, entries)``.
        consumers: Those of the members that read the channels; the others make or scale them.
        exact: Whether the network without the channels equals the masked one; ``False`` only with ``allow_norm``.
        multiple: The number of channels kept must be a multiple of this; some kernels know no other.
    """

    name: str
    width: int
    layers: tuple[str, ...]
    members: Mapping[Place, Atoms]
    consumers: frozenset[Place]
    exact: bool = True
    multiple: int = 1

    @property
    def makers(self) -> list[str]:
        """Modules that make or scale the channels."""
        return list(dict.fromkeys(owner_of(name) for name, dim in self.members if (name, dim) not in self.consumers))

    @property
    def shrink(self) -> dict[str, dict[int, int]]:
        """Tensor name -> dimension -> entries lost along it with each channel."""
        table: dict[str, dict[int, int]] = {}
        for (name, dim), indices in self.members.items():
            table.setdefault(name, {})[dim] = indices.shape[1]
        return table


@dataclass(frozen=True)
class Analysis:
    """All that a network's pruning needs to know.

    Attributes:
        groups: In module order.
        sizes: Integers in the modules' code that must follow.
        products: Products of activations, whose cost no weight tells.
        same: Name of a parameter or buffer -> the name that ``groups`` knows it by.
    """

    groups: tuple[ChannelGroup, ...]
    blocked: tuple[Blocked, ...]
    sizes: tuple[CountedSize, ...]
    shapes: Mapping[str, tuple[int, ...]]
    same: Mapping[str, str]
    products: tuple[Product, ...] = ()
    choices: Mapping[ChoiceKey, int] = field(default_factory=dict)

    def group(self, name: str) -> ChannelGroup:
        """The group of this name."""
        return next(group for group in self.groups if group.name == name)

    def leaving_out(self, reasons: Mapping[str, str]) -> "Analysis":
        """The same without some groups.

        Args:
            reasons: Group name -> why it can't be pruned.
        """
        groups = tuple(group for group in self.groups if group.name not in reasons)
        blocked = (
            *self.blocked,
            *(
                Blocked(g.name, "proof", g.name, reasons[g.name], g.width, g.width)
                for g in self.groups
                if g.name in reasons
            ),
        )
        return replace(self, groups=groups, blocked=blocked)


def no_analysis(model: nn.Module) -> Analysis:
    """What is said of a network that can't be followed: no groups."""
    tensors = dict((*model.named_parameters(), *model.named_buffers()))
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return Analysis((), (), (), shapes, _same_names(model, tensors))


def analyse(
    model: nn.Module,
    example_inputs: Any,
    *,
    allow_norm: bool = False,
    choices: Mapping[ChoiceKey, int] | None = None,
) -> Analysis:
    """Find which channels of a network leave together.

    The network runs once in evaluation mode, and once in training mode if parts of it run only there. Its parameters,
    buffers and modes are as before afterwards.

    Args:
        example_inputs: A tensor, or a tuple or dict of tensors.
        allow_norm: Let channels leave over which a layer, group or RMS norm takes statistics; the network then differs
            from the masked one.
        choices: Options to take where a dimension can be split in several ways; for others the best are looked for.
    """
    tensors = dict((*model.named_parameters(), *model.named_buffers()))
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    parameters = {name for name, _ in model.named_parameters()}
    module_types = {name: type(module).__name__ for name, module in model.named_modules()}
    tapes = _record(model, example_inputs, parameters)
    reads_values_in = [module for tape, _ in tapes for module in tape.reads_values_in]
    used = {tape.tensors[ref.id] for tape, ops in tapes for op in ops for ref in op.inputs() if ref.id in tape.tensors}

    def look(options: dict[ChoiceKey, int], allow: bool) -> tuple[Flow, OwnTensors, Components, list[Grouped]]:
        flow, own = walk(tapes, shapes, module_types, options)
        components = find_components(flow, allow)
        makers = {place for place in own.starts if place[0] in parameters} - _consumed_places(flow, own)
        return flow, own, components, group_components(components, own, shapes, used, makers)

    def judge(options: dict[ChoiceKey, int]) -> tuple[Flow, int, set[str]]:
        # Hidden sizes take every parameter along, whatever the choices, and so would make all of them alike.
        flow, _, _, grouped = look(options, False)
        layers = {owner_of(name) for group in grouped if group.width > 1 for name, _ in group.members}
        return flow, _touched(grouped, shapes, parameters), layers

    taken = best_choices(judge, choices or {})
    flow, own, components, grouped = look(taken, allow_norm)
    order = {name: number for number, name in enumerate(module_types)}
    consumed = _consumed_places(flow, own)
    groups = _named([g for g in grouped if g.width > 1], consumed, order)
    in_groups: dict[Place, int] = {}
    for group in groups:
        for place, indices in group.members.items():
            in_groups[place] = in_groups.get(place, 0) + indices.size
    channel_of = _channels(components, groups, own)
    own_parameters = {name: shape for name, shape in shapes.items() if name in parameters}
    blocked = find_blocked(flow, components, own, own_parameters, used, in_groups, consumed, reads_values_in)
    blocked.sort(key=lambda item: order.get(item.module, len(order)))
    made = {choice.key: choice.taken for choice in flow.choices}
    slicing = {
        owner.removeprefix(SLICES) for (owner, *_), option in made.items() if owner.startswith(SLICES) and option
    }
    return Analysis(
        groups=tuple(groups),
        blocked=tuple(blocked),
        sizes=with_holders(model, find_sizes(flow.facts, components, channel_of), slicing),
        shapes=shapes,
        same=_same_names(model, tensors),
        products=tuple(resolve(flow.products, components.labels, channel_of, {g.name: g.width for g in groups})),
        choices=made,
    )


def _record(model: nn.Module, inputs: Any, parameters: set[str]) -> list[tuple[Tape, list[Operation]]]:
    modes = [(module, module.training) for module in model.modules()]
    run: Callable[[nn.Module], Any] = lambda network: call_model(network, inputs)  # noqa: E731
    try:
        model.eval()
        tape = record(model, run, tensors_in)
        tapes = [(tape, tape.live_operations())]
        met = {tape.tensors[ref.id] for op in tape.operations for ref in op.inputs() if ref.id in tape.tensors}
        if not parameters <= met:
            tapes += _record_training(model, run)
    finally:
        for module, training in modes:
            module.training = training
    return tapes


def _record_training(model: nn.Module, run: Callable[[nn.Module], Any]) -> list[tuple[Tape, list[Operation]]]:
    """Parts such as auxiliary classifiers run only in training mode; a network that can't run there has none."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    state = torch.get_rng_state()
    try:
        model.train()
        tape = record(model, run, tensors_in)
        return [(tape, tape.live_operations())]
    except Exception:
        return []
    finally:
        torch.set_rng_state(state)
        for buffer, value in buffers:
            buffer.copy_(value)


def _touched(grouped: list[Grouped], shapes: Mapping[str, tuple[int, ...]], parameters: set[str]) -> int:
    """Parameters that some channel takes along."""
    counts: dict[Place, int] = {}
    for group in grouped:
        if group.width > 1:
            for place, indices in group.members.items():
                counts[place] = counts.get(place, 0) + indices.size
    rest = {n: prod(size - counts.get((n, dim), 0) for dim, size in enumerate(shapes[n])) for n in parameters}
    return sum(prod(shapes[name]) - n for name, n in rest.items())


def _consumed_places(flow: Flow, own: OwnTensors) -> set[Place]:
    """Dimensions that only read channels: a product sums along them."""
    return _places(flow.consumed, flow, own) - _places(flow.produced, flow, own)


def _places(atom_lists: list[Atoms], flow: Flow, own: OwnTensors) -> set[Place]:
    """Dimensions of the network's own tensors that atoms belong to."""
    starts = np.array(list(own.starts.values()))
    places = list(own.starts)
    found: set[Place] = set()
    for atoms in atom_lists:
        atoms = atoms[(atoms > 0) & (atoms < flow.n_own)]
        for number in np.unique(np.searchsorted(starts, atoms, side="right") - 1):
            found.add(places[int(number)])
    return found


def _named(grouped: list[Grouped], consumed: set[Place], order: Mapping[str, int]) -> list[ChannelGroup]:
    def rank(name: str) -> int:
        return order.get(name, len(order))

    named = []
    for group in grouped:
        consumers = frozenset(place for place in group.members if place in consumed)
        makers = {
            owner_of(name) for name, dim in group.members if (name, dim) not in consumed and name.endswith("weight")
        }
        layers = {owner_of(name) for name, _ in group.members}
        named.append((min(makers or layers, key=rank), layers, consumers, group))
    named.sort(key=lambda item: rank(item[0]))
    result: list[ChannelGroup] = []
    seen: dict[str, int] = {}
    for name, layers, consumers, group in named:
        seen[name] = seen.get(name, 0) + 1
        unique = name if seen[name] == 1 else f"{name}#{seen[name]}"
        in_order = tuple(sorted(layers, key=rank))
        result.append(ChannelGroup(unique, group.width, in_order, group.members, consumers, group.exact))
    return result


def _channels(components: Components, groups: list[ChannelGroup], own: OwnTensors) -> dict[int, tuple[str, int]]:
    """Component -> (group, channel)."""
    channel_of: dict[int, tuple[str, int]] = {}
    for group in groups:
        (name, dim), indices = next(iter(group.members.items()))
        labels = components.labels[own.starts[name, dim] + indices[:, 0]]
        channel_of |= {label: (group.name, channel) for channel, label in enumerate(labels.tolist())}
    return channel_of


def _same_names(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    known = {id(tensor): name for name, tensor in tensors.items()}
    every = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    return {name: known[id(tensor)] for name, tensor in every}
