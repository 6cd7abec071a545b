"""Tensors that the code makes up: their sizes may follow the network's widths or be constants."""

from typing import Any

from autoprune.pruning.graph.rules._base import Call, carried, rule
from autoprune.pruning.graph.values import Value


@rule("zeros", "empty", "new_zeros", "new_empty", "empty_strided", "new_empty_strided")
def blank(call: Call, *_: Any, **__: Any) -> Value:
    """Give every index a node of its own. What meets the tensor decides its size, and the forward pass proves it."""
    return _free(call, zero=True)


@rule("ones", "full", "new_ones", "new_full", "rand", "randn")
def filled(call: Call, *_: Any, **__: Any) -> Value:
    """Make a tensor as ``blank`` does, but not of zeros."""
    return _free(call, zero=False)


@rule("zeros_like", "empty_like", "zero")
def blank_like(call: Call, value: Value, *_: Any, **__: Any) -> Value:
    """Make a tensor of zeros whose size follows the given tensor."""
    return carried(call, value, value.dims, zero=True)


@rule("ones_like", "full_like", "rand_like", "randn_like", "fill", "normal", "uniform")
def filled_like(call: Call, value: Value, *_: Any, **__: Any) -> Value:
    """Make a tensor, not of zeros, whose size follows the given tensor."""
    return carried(call, value, value.dims, zero=False)


def _free(call: Call, zero: bool) -> Value:
    dims = [call.graph.new_dim(size) for size in call.shapes[0]]
    for dim, size in zip(dims, call.shapes[0], strict=True):
        call.graph.constrain_size(size, dim)
    return call.first_result(dims, zero=zero)


CREATES = frozenset(
    {
        "zeros",
        "empty",
        "new_zeros",
        "new_empty",
        "empty_strided",
        "new_empty_strided",
        "ones",
        "full",
        "new_ones",
        "new_full",
        "rand",
        "randn",
        "expand",
    }
)
"""Operations whose results can shrink though no argument can."""
