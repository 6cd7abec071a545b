"""Operations that take indices out of dimensions, or put dimensions side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from autoprune.pruning.graph.rules._base import Call, carried, normalised, rule
from autoprune.pruning.graph.values import FIXED, Dim, Nodes, Value


@rule("cat", "concat")
def cat(call: Call, tensors: Sequence[Value], dim: int = 0) -> Value:
    """Concatenate along a dimension."""
    tensors = [value for value in tensors if value.shape != (0,)]
    dim %= tensors[0].ndim
    dims: list[Dim] = []
    for axis in range(tensors[0].ndim):
        parts = [value.dims[axis] for value in tensors]
        if axis == dim:
            dims.append(_joined(parts, [value.shape[axis] for value in tensors]))
            continue
        joined = parts[0]
        for part in parts[1:]:
            if joined is not None or part is not None:
                joined = call.graph.connect_dims(joined, part)
        dims.append(joined)
    return call.first_result(
        dims, zero=all(value.zero or not value.live for value in tensors), weight=_all_weights(tensors)
    )


@rule("stack")
def stack(call: Call, tensors: Sequence[Value], dim: int = 0) -> Value:
    """Stack tensors along a new dimension."""
    dims: list[Dim] = []
    for parts in zip(*(value.dims for value in tensors), strict=True):
        joined = parts[0]
        for part in parts[1:]:
            if joined is not None or part is not None:
                joined = call.graph.connect_dims(joined, part)
        dims.append(joined)
    dims.insert(dim % (len(dims) + 1), None)
    return call.first_result(dims, zero=all(value.zero for value in tensors), weight=_all_weights(tensors))


@rule("split", "unsafe_split", "split_with_sizes", "unsafe_split_with_sizes", "chunk", "split_with_sizes_copy")
def split(call: Call, value: Value, _: Any, dim: int = 0) -> list[Value]:
    """Split a dimension; equal pieces must keep equally many."""
    dim %= value.ndim
    sizes = [shape[dim] for shape in call.shapes]
    nodes = value.dims[dim]
    if nodes is not None and len(sizes) > 1 and len(set(sizes)) == 1:
        call.graph.tie_parts(nodes, len(sizes))
    results, start = [], 0
    for shape, size in zip(call.shapes, sizes, strict=True):
        dims = list(value.dims)
        piece = None if nodes is None else nodes[start : start + size]
        dims[dim] = _at_least_two(call, piece)
        call.graph.constrain_size(size, piece)
        results.append(Value(shape, tuple(dims), value.zero, value.weight))
        start += size
    return results


@rule("unbind", "unbind_copy")
def unbind(call: Call, value: Value, dim: int = 0) -> list[Value]:
    """Turn each index of a dimension into a tensor."""
    dim %= value.ndim
    call.graph.block_dim(value.dims[dim], "is taken apart entry by entry")
    dims = value.dims[:dim] + value.dims[dim + 1 :]
    return [Value(shape, dims, value.zero, value.weight) for shape in call.shapes]


@rule("select", "select_copy")
def select(call: Call, value: Value, dim: int, _: Any) -> Value:
    """Select one index of a dimension."""
    dim %= value.ndim
    call.graph.block_dim(value.dims[dim], "has an entry picked by its number")
    return carried(call, value, value.dims[:dim] + value.dims[dim + 1 :])


@rule("slice", "slice_copy", "narrow")
def slice_(call: Call, value: Value, dim: int = 0, start: Any = None, end: Any = None, step: Any = 1) -> Value:
    """Slice a run of indices: one of equal parts, or at places that the code fixes or attributes tell."""
    dim %= value.ndim
    size, n_taken = value.shape[dim], call.shapes[0][dim]
    nodes = value.dims[dim]
    if nodes is None or n_taken == size:
        return carried(call, value, value.dims)
    first = min(start or 0, size) if (start or 0) >= 0 else max(size + start, 0)
    dims = list(value.dims)
    dims[dim] = None
    is_part = step == 1 and n_taken and size % n_taken == 0 and first % n_taken == 0
    if step == 1 and n_taken and call.graph.choose_slices():
        dims[dim] = _at_least_two(call, nodes[first : first + n_taken])
        call.graph.constrain_size(n_taken, dims[dim])
        call.graph.constrain_size(first, nodes[:first] if first else None)
    elif is_part:
        call.graph.tie_parts(nodes, size // n_taken)
        dims[dim] = _at_least_two(call, nodes[first : first + n_taken])
        call.graph.constrain_size(n_taken, dims[dim])
    else:
        call.graph.block_dim(nodes, "is sliced at places that the code fixes")
    return carried(call, value, dims)


@rule("constant_pad_nd", "pad")
def constant_pad(call: Call, value: Value, pad: Sequence[int], fill: float = 0, *_: Any) -> Value:
    """Pad a dimension with a constant number of entries, or one that an attribute tells."""
    dims = list(value.dims)
    for i in range(len(pad) // 2):
        axis = value.ndim - 1 - i
        before, after = pad[2 * i], pad[2 * i + 1]
        nodes = dims[axis]
        if nodes is None or (before == 0 and after == 0):
            continue
        if before < 0 or after < 0:
            call.graph.block_dim(nodes, "is cropped at places that the code fixes")
            dims[axis] = None
        elif call.graph.choose_option(2, 0) == 0:
            dims[axis] = np.pad(nodes, (before, after), constant_values=FIXED)
        else:
            dims[axis] = _padded(call, nodes, before, after)
    return carried(call, value, dims, zero=value.zero and fill == 0)


def _padded(call: Call, nodes: Nodes, before: int, after: int) -> Nodes:
    """Pad with entries that leave in pairs, so that the sides stay as alike as they are."""
    graph = call.graph
    head, tail = graph.new_nodes(before), graph.new_nodes(after)
    n_pairs = min(before, after)
    if n_pairs:
        graph.connect_nodes(head[:n_pairs], tail[:n_pairs])
        graph.block_dim(np.concatenate([head[n_pairs:], tail[n_pairs:]]), "is padded unequally")
        graph.constrain_size(before, head, "padding")
    graph.constrain_size(before + after, np.concatenate([head, tail]), "padding")
    return np.concatenate([head, nodes, tail])


@rule("roll")
def roll(call: Call, value: Value, shifts: Any, dims: Any = ()) -> Value:
    """Roll indices by a constant number of places."""
    for axis in normalised(dims, value.ndim):
        call.graph.block_dim(value.dims[axis], "is moved round by a constant number of places")
    return carried(call, value, value.dims)


@rule("embedding")
def embedding(call: Call, weight: Value, indices: Value, *_: Any, **__: Any) -> Value:
    """Look up rows by number."""
    call.graph.block_dim(weight.dims[0], "is looked up by number", quiet=True)
    _block_all(call, indices)
    if weight.weight and weight.dims[1] is not None:
        call.graph.produced.append(weight.dims[1])
    return call.first_result([*(None for _ in indices.shape), weight.dims[1]], zero=weight.zero)


@rule("_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(call: Call, weight: Value, indices: Value, *others: Any) -> tuple[Value, ...]:
    """Sum, average or take the largest of rows that are looked up by number."""
    call.graph.block_dim(weight.dims[0], "is looked up by number", quiet=True)
    for value in (indices, *others):
        if isinstance(value, Value):
            _block_all(call, value)
    if weight.weight and weight.dims[1] is not None:
        call.graph.produced.append(weight.dims[1])
    return (call.first_result([None, weight.dims[1]], zero=weight.zero), *call.other_results())


@rule("index", "_unsafe_index")
def index(call: Call, value: Value, indices: Sequence[Value | None]) -> Value:
    """Look up entries by number along some dimensions."""
    indexed = [axis for axis, where in enumerate(indices) if where is not None]
    for axis in indexed:
        call.graph.block_dim(value.dims[axis], "is looked up by number", quiet=value.weight)
        where = indices[axis]
        if where is not None:
            _block_all(call, where)
    n_looked_up = len(call.shapes[0]) - (value.ndim - len(indexed))
    rest = [dim for axis, dim in enumerate(value.dims) if axis not in indexed]
    adjacent = indexed == list(range(indexed[0], indexed[-1] + 1)) if indexed else True
    place = indexed[0] if indexed and adjacent else 0
    return carried(call, value, [*rest[:place], *[None] * n_looked_up, *rest[place:]])


@rule("index_select")
def index_select(call: Call, value: Value, dim: int, where: Value) -> Value:
    """Look up entries by number along one dimension."""
    dim %= value.ndim
    call.graph.block_dim(value.dims[dim], "is looked up by number", quiet=value.weight)
    _block_all(call, where)
    dims = list(value.dims)
    dims[dim] = None
    return carried(call, value, dims)


@rule("gather", "take_along_dim")
def gather(call: Call, value: Value, dim: int, where: Value, **_: Any) -> Value:
    """Look up entries by number, differently at each place."""
    dims = list(value.dims)
    for axis in range(value.ndim):
        if axis == dim % value.ndim or value.shape[axis] != where.shape[axis]:
            call.graph.block_dim(value.dims[axis], "is looked up by number")
            call.graph.block_dim(where.dims[axis], "is looked up by number")
            dims[axis] = None
        elif dims[axis] is not None or where.dims[axis] is not None:
            dims[axis] = call.graph.connect_dims(dims[axis], where.dims[axis])
    return carried(call, value, dims)


@rule("index_add", "index_copy", "index_reduce")
def index_add(call: Call, value: Value, dim: int, where: Value, source: Value, *_: Any, **__: Any) -> Value:
    """Write or add rows at places given by number, as where a graph's messages meet in its nodes."""
    _block_all(call, where)
    return _written(call, value, source, [dim % value.ndim])


@rule("scatter", "scatter_add", "scatter_reduce")
def scatter(call: Call, value: Value, dim: int, where: Value, source: Any, *_: Any, **__: Any) -> Value:
    """Write or add entries at places given by number along a dimension."""
    if not isinstance(source, Value):
        raise NotImplementedError("writes one number to places given by number")
    written = _written(call, value, source, [dim % value.ndim])
    # Places are given for each entry: those of channels that leave must leave with them.
    return _written(call, written, Value(where.shape, where.dims, written.zero), [dim % value.ndim])


@rule("index_put", "_index_put_impl")
def index_put(call: Call, value: Value, indices: Sequence[Value | None], source: Value, *_: Any, **__: Any) -> Value:
    """Write or add rows at places given by number along the first dimension."""
    if len(indices) != 1 or indices[0] is None or indices[0].ndim != 1 or source.ndim != value.ndim:
        raise NotImplementedError("writes to places given along several dimensions")
    return index_add(call, value, 0, indices[0], source)


def _written(call: Call, value: Value, source: Value, along: Sequence[int]) -> Value:
    dims = list(value.dims)
    for axis in range(value.ndim):
        if axis in along:
            for dim in (value.dims[axis], source.dims[axis]):
                call.graph.block_dim(dim, "is written to by number")
            dims[axis] = None
        elif value.shape[axis] != source.shape[axis]:
            raise NotImplementedError("writes to a part of a dimension")
        elif dims[axis] is not None or source.dims[axis] is not None:
            dims[axis] = call.graph.connect_dims(dims[axis], source.dims[axis])
    return call.first_result(dims, zero=value.zero and source.zero)


def _joined(parts: Sequence[Dim], sizes: Sequence[int]) -> Dim:
    if all(part is None for part in parts):
        return None
    pieces: list[Nodes] = [
        np.full(size, FIXED) if part is None else part for part, size in zip(parts, sizes, strict=True)
    ]
    return np.concatenate(pieces)


def _at_least_two(call: Call, nodes: Dim) -> Dim:
    """Block a dimension of size 1: it broadcasts, so its one index can't leave."""
    if nodes is not None and len(nodes) < 2:
        call.graph.block_dim(nodes, "is the only one of its kind")
        return None
    return nodes


def _all_weights(values: Sequence[Value]) -> bool:
    return all(value.weight for value in values)


def _block_all(call: Call, value: Value) -> None:
    for dim in value.dims:
        call.graph.block_dim(dim, "is used as a number to look up by")
