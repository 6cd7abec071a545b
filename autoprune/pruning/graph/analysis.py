"""Analyse a network: which channels leave together, and which can't leave and why."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.network.call import call_model
from autoprune.pruning.graph.attributes import Coincidence, with_holders
from autoprune.pruning.graph.choices import best_choices
from autoprune.pruning.graph.dependency_graph import SLICES, ChoiceKey, DependencyGraph
from autoprune.pruning.graph.grouping import (
    Components,
    DependencyGroup,
    TensorDim,
    find_components,
    group_components,
)
from autoprune.pruning.graph.products import Positions, Product, resolve, resolve_positions
from autoprune.pruning.graph.propagate import OwnTensors, propagate
from autoprune.pruning.graph.sizes import CountedSize, find_sizes
from autoprune.pruning.graph.trace import Operation, Trace, trace_model
from autoprune.pruning.graph.unprunable import UnprunableChannels, find_unprunable
from autoprune.pruning.graph.values import Nodes
from autoprune.pruning.proof import tensors_in


@dataclass(frozen=True)
class Analysis:
    """All that a network's pruning needs to know.

    Attributes:
        groups: In module order.
        sizes: Integers in the modules' code that must follow.
        products: Products of activations, whose cost no weight tells.
        positions: Where a weight's cost falls with more than its own entries, as that of a product along tokens.
        same: Name of a parameter or buffer -> the name that ``groups`` knows it by.
        coincidences: Attributes that have a size's value by chance.
    """

    groups: tuple[DependencyGroup, ...]
    unprunable: tuple[UnprunableChannels, ...]
    sizes: tuple[CountedSize, ...]
    shapes: Mapping[str, tuple[int, ...]]
    same: Mapping[str, str]
    products: tuple[Product, ...] = ()
    positions: Positions = field(default_factory=dict)
    choices: Mapping[ChoiceKey, int] = field(default_factory=dict)
    coincidences: frozenset[Coincidence] = frozenset()

    def group(self, name: str) -> DependencyGroup:
        """Return the group of this name."""
        return next(group for group in self.groups if group.name == name)

    def without_groups(self, reasons: Mapping[str, str]) -> "Analysis":
        """Return the analysis without some groups.

        Args:
            reasons: Group name -> why it can't be pruned.
        """
        groups = tuple(group for group in self.groups if group.name not in reasons)
        unprunable = (
            *self.unprunable,
            *(
                UnprunableChannels(g.name, "proof", g.name, reasons[g.name], g.width, g.width)
                for g in self.groups
                if g.name in reasons
            ),
        )
        return replace(self, groups=groups, unprunable=unprunable)

    def without_holders(self, coincidences: Collection[Coincidence]) -> "Analysis":
        """Return the analysis with attributes that don't follow a group's sizes."""
        sizes = tuple(
            replace(
                size,
                holders=tuple(
                    holder
                    for holder in size.holders
                    if not any((group, *holder) in coincidences for group, _ in size.channels)
                ),
            )
            for size in self.sizes
        )
        return replace(self, sizes=sizes, coincidences=self.coincidences | frozenset(coincidences))


def no_analysis(model: nn.Module) -> Analysis:
    """Return the analysis of a network that can't be traced: no groups."""
    tensors = dict((*model.named_parameters(), *model.named_buffers()))
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return Analysis((), (), (), shapes, _same_names(model, tensors))


def analyse(
    model: nn.Module,
    example_inputs: Any,
    *,
    allow_norm: bool = False,
    choices: Mapping[ChoiceKey, int] | None = None,
    coincidences: Collection[Coincidence] = (),
    all_operations: bool = False,
) -> Analysis:
    """Find which channels of a network leave together.

    The network runs once in evaluation mode, and once in training mode if parts of it run only there. Its parameters,
    buffers and modes are as before afterwards.

    Args:
        example_inputs: A tensor, or a tuple or dict of tensors.
        allow_norm: Let channels leave over which a layer, group or RMS norm takes statistics; the network then differs
            from the masked one.
        choices: Options to take where a dimension can be split in several ways; for others the best are looked for.
        coincidences: Attributes that have a size's value by chance, and so don't follow it.
        all_operations: Follow also the operations that no output depends on.
    """
    tensors = dict((*model.named_parameters(), *model.named_buffers()))
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    parameters = {name for name, _ in model.named_parameters()}
    module_types = {name: type(module).__name__ for name, module in model.named_modules()}
    traces = _traces(model, example_inputs, parameters)
    if all_operations:
        traces = [(trace, trace.operations) for trace, _ in traces]
    reads_values_in = [module for trace, _ in traces for module in trace.reads_values_in]
    used = {
        trace.tensors[ref.id] for trace, ops in traces for op in ops for ref in op.inputs() if ref.id in trace.tensors
    }

    order = {name: number for number, name in enumerate(module_types)}

    def find_groups(
        options: dict[ChoiceKey, int], allow: bool
    ) -> tuple[DependencyGraph, OwnTensors, Components, list[DependencyGroup]]:
        graph, own = propagate(traces, shapes, module_types, options, parameters)
        components = find_components(graph, allow)
        consumed = _consumed_dims(graph, own)
        makers = {tensor_dim for tensor_dim in own.starts if tensor_dim[0] in parameters} - consumed
        return graph, own, components, group_components(components, own, shapes, used, makers, consumed, order)

    def judge(options: dict[ChoiceKey, int]) -> tuple[DependencyGraph, int, set[str]]:
        # Hidden sizes take every parameter along, whatever the choices, and so would make all of them alike.
        graph, _, _, groups = find_groups(options, False)
        layers = {layer for group in groups for layer in group.layers}
        return graph, _touched(groups, shapes, parameters), layers

    taken = best_choices(judge, choices or {})
    graph, own, components, groups = find_groups(taken, allow_norm)
    consumed = _consumed_dims(graph, own)
    in_groups: dict[TensorDim, int] = {}
    for group in groups:
        for tensor_dim, indices in group.members.items():
            in_groups[tensor_dim] = in_groups.get(tensor_dim, 0) + indices.size
    channel_of = _channels(components, groups, own)
    widths = {group.name: group.width for group in groups}
    own_parameters = {name: shape for name, shape in shapes.items() if name in parameters}
    unprunable = find_unprunable(graph, components, own, own_parameters, used, in_groups, consumed, reads_values_in)
    unprunable.sort(key=lambda item: order.get(item.module, len(order)))
    made = {choice.key: choice.taken for choice in graph.choices}
    slicing = {
        owner.removeprefix(SLICES) for (owner, *_), option in made.items() if owner.startswith(SLICES) and option
    }
    return Analysis(
        groups=tuple(groups),
        unprunable=tuple(unprunable),
        sizes=with_holders(
            model,
            find_sizes(graph.size_constraints, components, channel_of),
            slicing,
            [trace.reads for trace, _ in traces],
            coincidences,
        ),
        shapes=shapes,
        same=_same_names(model, tensors),
        products=tuple(resolve(graph.products, components.labels, channel_of, widths)),
        positions=resolve_positions(graph.positions, own.owner_of, components.labels, channel_of, widths),
        choices=made,
        coincidences=frozenset(coincidences),
    )


def _traces(model: nn.Module, inputs: Any, parameters: set[str]) -> list[tuple[Trace, list[Operation]]]:
    modes = [(module, module.training) for module in model.modules()]
    run: Callable[[nn.Module], Any] = lambda network: call_model(network, inputs)  # noqa: E731
    try:
        model.eval()
        trace = trace_model(model, run, tensors_in)
        traces = [(trace, trace.live_operations())]
        met = {trace.tensors[ref.id] for op in trace.operations for ref in op.inputs() if ref.id in trace.tensors}
        if not parameters <= met:
            traces += _training_traces(model, run)
    finally:
        for module, training in modes:
            module.training = training
    return traces


def _training_traces(model: nn.Module, run: Callable[[nn.Module], Any]) -> list[tuple[Trace, list[Operation]]]:
    """Trace a network in training mode, where parts such as auxiliary classifiers run; none if it can't run there."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    state = torch.get_rng_state()
    try:
        model.train()
        trace = trace_model(model, run, tensors_in)
        return [(trace, trace.live_operations())]
    except Exception:
        return []
    finally:
        torch.set_rng_state(state)
        for buffer, value in buffers:
            buffer.copy_(value)


def _touched(groups: list[DependencyGroup], shapes: Mapping[str, tuple[int, ...]], parameters: set[str]) -> int:
    """Count the parameters that some channel takes along."""
    counts: dict[TensorDim, int] = {}
    for group in groups:
        for tensor_dim, indices in group.members.items():
            counts[tensor_dim] = counts.get(tensor_dim, 0) + indices.size
    rest = {n: prod(size - counts.get((n, dim), 0) for dim, size in enumerate(shapes[n])) for n in parameters}
    return sum(prod(shapes[name]) - n for name, n in rest.items())


def _consumed_dims(graph: DependencyGraph, own: OwnTensors) -> set[TensorDim]:
    """Find the dimensions that only read channels: a product sums along them."""
    return _tensor_dims_of(graph.consumed, graph, own) - _tensor_dims_of(graph.produced, graph, own)


def _tensor_dims_of(node_lists: list[Nodes], graph: DependencyGraph, own: OwnTensors) -> set[TensorDim]:
    """Find the dimensions of the network's own tensors that nodes belong to."""
    starts = np.array(list(own.starts.values()))
    tensor_dims = list(own.starts)
    found: set[TensorDim] = set()
    for nodes in node_lists:
        nodes = nodes[(nodes > 0) & (nodes < graph.n_own)]
        for number in np.unique(np.searchsorted(starts, nodes, side="right") - 1):
            found.add(tensor_dims[int(number)])
    return found


def _channels(components: Components, groups: list[DependencyGroup], own: OwnTensors) -> dict[int, tuple[str, int]]:
    """Map each component that is a channel to (group, channel)."""
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
