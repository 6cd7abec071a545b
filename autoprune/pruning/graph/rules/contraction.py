"""Matrix products, distances and attention: the dimension summed over must be the same channels on both sides."""

from typing import Any

import numpy as np

from autoprune.pruning.graph.rules._base import Call, rule
from autoprune.pruning.graph.rules.pointwise import pointwise
from autoprune.pruning.graph.values import Dim, Value

_NOT_ZERO = "is summed over in a product of activations, where channels that leave are not zero"


def contract(call: Call, a: Value, dim_a: Dim, b: Value, dim_b: Dim) -> None:
    """Tie two dimensions that are multiplied and summed over."""
    if dim_a is None and dim_b is None:
        return
    live = call.graph.connect_dims(dim_a, dim_b, "is multiplied with a dimension whose size is constant")
    if not ((a.zero and a.live) or (b.zero and b.live)):
        call.graph.block_dim(live, _NOT_ZERO)
    for value, dim in ((a, dim_a), (b, dim_b)):
        if value.weight and dim is not None:
            call.graph.consumed.append(dim)


def _note_positions(call: Call, weight: Value, other: Value, free: int) -> None:
    """Note along which dimensions a weight is multiplied that are not its own: the free one, and those of a batch."""
    graph = call.graph
    own = [dim[(dim > 0) & (dim < graph.n_own)] for dim in weight.dims if dim is not None]
    nodes = np.concatenate([*own, np.zeros(0, dtype=np.int64)])
    of_others = [
        axis
        for axis, dim in enumerate(weight.dims[: weight.ndim - 2])
        if dim is None or dim.min() >= graph.n_own  # a batch that the weight is expanded to
    ]
    axes = [*of_others, free]
    runs = tuple((other.shape[axis], other.dims[axis]) for axis in axes)
    graph.positions.append((nodes, runs, other.weight))


@rule("mm", "bmm")
def matrix_product(call: Call, a: Value, b: Value, *_: Any) -> Value:
    """Multiply rows of one matrix with columns of another, for each matrix of a batch."""
    contract(call, a, a.dims[-1], b, b.dims[-2])
    if b.owned:
        _note_positions(call, b, a, a.ndim - 2)
    elif a.owned:
        _note_positions(call, a, b, b.ndim - 1)
    else:
        runs = zip((*a.shape, b.shape[-1]), (*a.dims, b.dims[-1]), strict=True)
        call.graph.products.append((call.graph.module, tuple(runs)))
    batch: list[Dim] = []
    for dim_a, dim_b in zip(a.dims[:-2], b.dims[:-2], strict=True):
        batch.append(call.graph.connect_dims(dim_a, dim_b) if dim_a is not None or dim_b is not None else None)
    shared_zero = (a.zero or b.zero) if any(dim is not None for dim in batch) else True
    zero = shared_zero and (a.dims[-2] is None or a.zero) and (b.dims[-1] is None or b.zero)
    return call.first_result([*batch, a.dims[-2], b.dims[-1]], zero=zero, weight=a.weight and b.weight)


@rule("_grouped_mm")
def grouped_product(call: Call, a: Value, b: Value, *_: Any, **__: Any) -> Value:
    """Multiply each expert's tokens with its matrix: ``(tokens, I) x (experts, I, O)`` to ``(tokens, O)``."""
    if a.ndim != 2 or b.ndim != 3:
        raise NotImplementedError("neither side holds all experts' tokens")
    call.graph.block_dim(b.dims[0], "is picked by a router")
    contract(call, a, a.dims[1], b, b.dims[1])
    return call.first_result([a.dims[0], b.dims[2]], zero=b.zero and (a.dims[0] is None or a.zero))


@rule("addmm", "baddbmm", "_sparse_addmm")
def added_product(call: Call, bias: Value, a: Value, b: Value, **_: Any) -> Value:
    """Add something to a matrix product."""
    return _add(call, matrix_product(call, a, b), bias)


@rule("addmv")
def added_vector_product(call: Call, bias: Value, a: Value, b: Value, **_: Any) -> Value:
    """Add something to a matrix times a vector."""
    return _add(call, vector_product(call, a, b), bias)


@rule("mv")
def vector_product(call: Call, a: Value, b: Value) -> Value:
    """Multiply a matrix with a vector."""
    contract(call, a, a.dims[1], b, b.dims[0])
    if b.owned:
        _note_positions(call, b, a, 0)
    elif not a.owned:
        call.graph.products.append((call.graph.module, tuple(zip(a.shape, a.dims, strict=True))))
    return call.first_result([a.dims[0]], zero=a.zero, weight=a.weight and b.weight)


@rule("dot")
def dot(call: Call, a: Value, b: Value) -> Value:
    """Multiply two vectors."""
    contract(call, a, a.dims[0], b, b.dims[0])
    if not (a.owned or b.owned):
        call.graph.products.append((call.graph.module, ((a.shape[0], a.dims[0]),)))
    return call.first_result([], zero=True)


@rule("_cdist_forward", "_euclidean_dist")
def distances(call: Call, a: Value, b: Value, *_: Any) -> Value:
    """Take the distance of each point to each other: features that are zero in both add nothing."""
    if a.shape[:-2] != b.shape[:-2]:
        raise NotImplementedError("distances between batches of different sizes")
    contract(call, a, a.dims[-1], b, b.dims[-1])
    for value in (a, b):
        if not value.zero:
            call.graph.block_dim(value.dims[-1], _NOT_ZERO)
    if b.owned:
        _note_positions(call, b, a, a.ndim - 2)
    elif a.owned:
        _note_positions(call, a, b, b.ndim - 2)
    else:
        runs = zip((*a.shape, b.shape[-2]), (*a.dims, b.dims[-2]), strict=True)
        call.graph.products.append((call.graph.module, tuple(runs)))
    batch: list[Dim] = []
    for dim_a, dim_b in zip(a.dims[:-2], b.dims[:-2], strict=True):
        batch.append(call.graph.connect_dims(dim_a, dim_b) if dim_a is not None or dim_b is not None else None)
    return call.first_result([*batch, a.dims[-2], b.dims[-2]], zero=False)


@rule("linear")
def linear(call: Call, x: Value, weight: Value, bias: Value | None = None) -> Value:
    """Apply a linear layer in one operation."""
    contract(call, x, x.dims[-1], weight, weight.dims[1])
    result = call.first_result([*x.dims[:-1], weight.dims[0]], zero=weight.zero and all(d is None for d in x.dims[:-1]))
    return result if bias is None else _add(call, result, bias)


@rule("_trilinear")
def trilinear(call: Call, a: Value, b: Value, c: Value, *lists: Any) -> Value:
    """Apply ``nn.Bilinear``: ``(N, I1) x (O, I1, I2) x (N, I2)`` to ``(N, O)``."""
    if not (a.ndim == c.ndim == 2 and b.ndim == 3 and [list(x) for x in lists[:4]] == [[1, 3], [0], [1, 2], [2, 3]]):
        raise NotImplementedError("a product of three tensors in an order not known")
    contract(call, a, a.dims[1], b, b.dims[1])
    contract(call, c, c.dims[1], b, b.dims[2])
    return call.first_result([None, b.dims[0]], zero=b.zero)


@rule(
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention", "scaled_dot_product_attention"
)
@rule("_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention")
@rule("_scaled_dot_product_fused_attention_overrideable", "_scaled_dot_product_attention_math")
def attention(call: Call, query: Value, key: Value, value: Value, *args: Any, **kwargs: Any) -> tuple[Value, ...]:
    """Attend in one operation; tensors are ``(..., heads, tokens, size of a head)``."""
    graph = call.graph
    sizes = (query.dims[-1], key.dims[-1])
    if kwargs.get("scale") is None:
        for dim in sizes:
            graph.block_dim(dim, "is the size of a head, whose root scales the attention")
    contract(call, query, query.dims[-1], key, key.dims[-1])
    for dim in (query.dims[-2], key.dims[-2], value.dims[-2]):
        graph.block_dim(dim, "has its entries compared with each other")
    batch: list[Dim] = list(query.dims[:-2])
    for place in range(-query.ndim, -2):
        for other in (key, value):
            dim = other.dims[place]
            repeats = query.shape[place] // other.shape[place]
            if dim is not None and repeats > 1:
                dim = np.repeat(dim, repeats)
            if batch[place + 2] is not None or dim is not None:
                batch[place + 2] = graph.connect_dims(batch[place + 2], dim)
    bias = kwargs.get("attn_mask", next((arg for arg in args if isinstance(arg, Value)), None))
    if isinstance(bias, Value):
        for place in range(-bias.ndim, 0):
            if place >= -2:
                graph.block_dim(bias.dims[place], "has its entries compared with each other")
            elif bias.shape[place] > 1:
                graph.connect_dims(batch[place + 2], bias.dims[place], "meets a mask whose size is constant")
    shared = (*zip(query.shape[:-2], batch, strict=True), (query.shape[-2], None), (key.shape[-2], None))
    for size, dim in ((query.shape[-1], query.dims[-1]), (value.shape[-1], value.dims[-1])):
        graph.products.append((graph.module, (*shared, (size, dim))))
    return (call.first_result([*batch, None, value.dims[-1]], zero=value.zero), *call.other_results())


def _add(call: Call, product: Value, bias: Value) -> Value:
    result = pointwise(call, product, bias)
    assert isinstance(result, list)
    zero = product.zero and (bias.zero or not bias.live)
    if not bias.live and any(dim is not None for dim in product.dims):
        zero = False
    return Value(result[0].shape, result[0].dims, zero, product.weight and bias.weight)


MULTIPLY = (matrix_product, added_product, added_vector_product, vector_product, dot, distances, attention)
"""The rules that note products of activations, as does that of convolutions."""
