"""Operations that work entry by entry: nodes at the same index leave together."""

from functools import lru_cache
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

from autoprune.pruning.graph.rules._base import Call, carried, rule
from autoprune.pruning.graph.trace import Operation
from autoprune.pruning.graph.values import Dim, Value

POINTWISE = frozenset(
    {
        "hardswish",
        "hardsigmoid",
        "hardtanh",
        "leaky_relu",
        "elu",
        "celu",
        "selu",
        "mish",
        "softshrink",
        "_prelu_kernel",
        "log_sigmoid_forward",
        "copy",
        "masked_fill",
        "lerp",
        "addcmul",
        "addcdiv",
        "clamp",
        "clamp_min",
        "clamp_max",
        "where",
        "polar",
        "complex",
        "_to_copy",
        "clone",
        "rrelu_with_noise",
        "silu",
        "gelu",
        "bernoulli",
    }
)
"""Operations that ATen does not tag as pointwise everywhere, and are."""


def is_pointwise(operation: Operation, name: str) -> bool:
    """Whether the operation works entry by entry."""
    return torch.Tag.pointwise in operation.func.tags or name in POINTWISE


def pointwise(call: Call, *args: Any, **kwargs: Any) -> Value | list[Value]:
    """Connect the operands' nodes index by index."""
    operands = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Value)]
    shape = call.shapes[0]
    dims: list[Dim] = []
    for place in range(-len(shape), 0):
        size = shape[place]
        meeting = [value.dims[place] for value in operands if value.ndim >= -place and value.shape[place] == size > 1]
        dim = meeting[0] if meeting else None
        for other in meeting[1:]:
            dim = call.graph.connect_dims(dim, other, "meets a tensor whose size is constant")
        dims.append(dim)
    weight = all(value.weight for value in operands)
    result = call.first_result(dims, zero=_stays_zero(call, args, kwargs), weight=weight)
    return [result] if len(call.shapes) == 1 else [result, *(Value(s, result.dims, False) for s in call.shapes[1:])]


def _stays_zero(call: Call, args: Any, kwargs: Any) -> bool:
    """Whether the result is zero where the operands that are zero when masked are."""
    if call.operation.name.rstrip("_") in ("copy", "bernoulli"):
        return bool(args[-1].zero) if isinstance(args[-1], Value) else bool(args[0].zero)
    try:
        plain = tree_map_only(Value, lambda value: value.zero and value.live, (args, tuple(kwargs.items())))
        return _zero_at_zero(call.operation.func, plain[0], plain[1])
    except TypeError:  # an argument that can't be hashed
        return False


@lru_cache(maxsize=4096)
def _zero_at_zero(func: Any, args: Any, kwargs: Any) -> bool:
    """Try the operation on single numbers: zero for what is zero when masked, another number for what isn't.

    Tensors stand in the arguments as booleans: whether they are zero.
    """
    tensor_arguments = {a.name for a in func._schema.arguments if "Tensor" in str(a.type)}
    names = [argument.name for argument in func._schema.arguments]

    def number(name: str, value: Any) -> Any:
        if name in tensor_arguments and isinstance(value, bool):
            return torch.tensor(0.0 if value else 0.7)
        return value

    try:
        result = func(
            *(number(name, value) for name, value in zip(names, args, strict=False)),
            **{name: number(name, value) for name, value in kwargs},
        )
        first = result[0] if isinstance(result, tuple | list) else result
        return bool(first == 0)
    except Exception:
        return False


@rule(
    "detach", "alias", "lift_fresh", "lift", "contiguous", "view_as", "_conj", "conj", "resolve_conj", "requires_grad"
)
def carry(call: Call, value: Value, *_: Any, **__: Any) -> Value:
    """Return the same entries."""
    return carried(call, value, value.dims)


@rule("native_dropout", "dropout", "alpha_dropout", "feature_dropout")
def dropout(call: Call, value: Value, *_: Any, **__: Any) -> tuple[Value, ...]:
    """Drop entries; zero stays zero."""
    return (carried(call, value, value.dims), *(Value(shape, value.dims, False) for shape in call.shapes[1:]))


@rule("glu")
def glu(call: Call, value: Value, dim: int = -1) -> Value:
    """Gate the first half of a dimension by the second."""
    dim %= value.ndim
    dims = list(value.dims)
    nodes = dims[dim]
    if nodes is not None:
        call.graph.tie_parts(nodes, 2)
        dims[dim] = nodes[: len(nodes) // 2] if len(nodes) > 2 else None
    return carried(call, value, dims)
