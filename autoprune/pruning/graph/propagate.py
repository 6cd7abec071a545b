"""Propagate nodes through the trace: each operation's rule gives the nodes of its results."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from torch.utils._pytree import tree_map_only

from autoprune.pruning.graph.dependency_graph import ChoiceKey, DependencyGraph
from autoprune.pruning.graph.rules import RULES
from autoprune.pruning.graph.rules._base import Call
from autoprune.pruning.graph.rules.contraction import MULTIPLY
from autoprune.pruning.graph.rules.convolution import convolution
from autoprune.pruning.graph.rules.creation import CREATES
from autoprune.pruning.graph.rules.pointwise import is_pointwise, pointwise
from autoprune.pruning.graph.trace import Operation, Ref, Trace
from autoprune.pruning.graph.values import Nodes, Value, static
from autoprune.pruning.plan import OUTPUT


class OwnTensors:
    """The network's parameters and buffers, each dimension with its own nodes.

    Attributes:
        starts: (name, dimension) -> first node.
    """

    def __init__(self, shapes: dict[str, tuple[int, ...]], graph: DependencyGraph) -> None:
        self.starts: dict[tuple[str, int], int] = {}
        self.values: dict[str, Value] = {}
        for name, shape in shapes.items():
            dims = tuple(graph.new_dim(size) for size in shape)
            for dim, nodes in enumerate(dims):
                if nodes is not None:
                    self.starts[name, dim] = int(nodes[0])
            self.values[name] = Value(shape, dims, zero=True, weight=True)
        graph.n_own = graph.n_nodes
        self._starts = np.array(list(self.starts.values()))
        self._names = [name for name, _ in self.starts]

    def owner_of(self, nodes: Nodes) -> str | None:
        """Return the tensor that the first of some nodes belongs to; ``None`` if there are no nodes."""
        return self._names[int(np.searchsorted(self._starts, nodes[0], side="right")) - 1] if len(nodes) else None


def propagate(
    traces: Iterable[tuple[Trace, list[Operation]]],
    shapes: dict[str, tuple[int, ...]],
    module_types: dict[str, str],
    choices: dict[ChoiceKey, int],
    parameters: Collection[str],
) -> tuple[DependencyGraph, OwnTensors]:
    """Propagate the nodes of a network's parameters and buffers through its operations.

    Args:
        traces: Each trace with those of its operations that matter.
        shapes: Name -> shape of every parameter and buffer.
        module_types: Module name -> class name.
        choices: Which option to take where a dimension can be split in several ways.
        parameters: Names of those that are no buffers.
    """
    graph = DependencyGraph(module_types, choices)
    own = OwnTensors(shapes, graph)
    for number, (trace, operations) in enumerate(traces):
        values = {ref: own.values[name] for ref, name in trace.tensors.items()}
        of_parameters = {ref for ref, name in trace.tensors.items() if name in parameters}
        for operation in operations:
            graph.place = (number, operation.number)
            _step(graph, values, operation, of_parameters)
        graph.module, graph.operation = "", "output"
        for ref in trace.outputs:
            for dim in values.get(ref.id, static(ref.shape)).dims:
                graph.block_dim(dim, OUTPUT)
    return graph, own


def _step(graph: DependencyGraph, values: dict[int, Value], operation: Operation, of_parameters: set[int]) -> None:
    inputs = [(ref, values[ref.id]) for ref in operation.inputs() if ref.id in values]
    name = operation.name.rstrip("_") if not operation.name.endswith("__") else operation.name
    live = any(value.live for _, value in inputs)
    # The cost of a product falls by its part in that of all products of its module, so constant ones are noted, too.
    if not live and name not in CREATES and RULES.get(name) not in (*MULTIPLY, convolution):
        return
    graph.module, graph.operation = operation.module, name
    call = Call(graph, operation, tuple(ref.shape if ref is not None else () for ref in operation.results))

    def value_of(ref: Ref) -> Value:
        value = values.get(ref.id)
        return value if value is not None and value.shape == ref.shape else static(ref.shape)

    args, kwargs = tree_map_only(Ref, value_of, (operation.args, operation.kwargs))
    n_blockers, n_pairs = len(graph.blockers), len(graph.edges)
    try:
        results = _apply(call, name, args, kwargs)
        _check(results, call)
    except (NotImplementedError, ValueError, IndexError, TypeError, KeyError) as error:
        del graph.blockers[n_blockers:], graph.edges[n_pairs:]
        reason = f"goes through an operation that is not understood ({type(error).__name__}: {error})"
        for _, value in inputs:
            for dim in value.dims:
                graph.block_dim(dim, reason)
        return
    if not live and name not in CREATES:
        return
    given = {ref.id for ref, _ in inputs}
    for ref, value in zip(operation.results, results, strict=False):
        if ref is None:
            continue
        if ref.id in given and ref.id in values and values[ref.id].live and not value.live:
            continue
        if value.weight and any(source.id in of_parameters for source, _ in inputs):
            of_parameters.add(ref.id)
            value = replace(value, remade=_is_remade(operation, name, [value for _, value in inputs], value.shape))
        values[ref.id] = value


def _is_remade(operation: Operation, name: str, inputs: list[Value], shape: tuple[int, ...]) -> bool:
    """Whether a result of parameters is none of them: neither a view nor, entry by entry, of one's shape."""
    owned = [value for value in inputs if value.owned]
    if operation.func.is_view or name == "_unsafe_view":
        return not owned
    by_entry = is_pointwise(operation, name) or name == "_weight_norm_interface"
    return not (by_entry and any(value.shape == shape for value in owned))


def _apply(call: Call, name: str, args: Any, kwargs: Any) -> list[Value]:
    rule = RULES.get(name)
    if (rule is None or name in ("max", "min")) and is_pointwise(call.operation, name):
        rule = pointwise
    if rule is None:
        raise NotImplementedError("no rule")
    results = rule(call, *args, **kwargs)
    return [results] if isinstance(results, Value) else list(results)


def _check(results: list[Value], call: Call) -> None:
    for value, shape in zip(results, call.shapes, strict=False):
        if len(value.dims) != len(shape):
            raise ValueError(f"{len(value.dims)} dimensions for shape {shape}")
        for dim, size in zip(value.dims, shape, strict=True):
            if dim is not None and len(dim) != size:
                raise ValueError(f"{len(dim)} nodes for size {size}")
