"""Batch, layer, group and RMS norm."""

from collections.abc import Sequence
from typing import Any

from autoprune.pruning.graph.rules._base import Call, carried, rule
from autoprune.pruning.graph.rules.pointwise import pointwise
from autoprune.pruning.graph.rules.reduction import _STATISTICS
from autoprune.pruning.graph.values import Dim, Value, static


@rule("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
@rule("_batch_norm_with_update", "_batch_norm_no_update", "batch_norm", "miopen_batch_norm", "_batch_norm_impl_index")
def batch_norm(call: Call, x: Value, *args: Any, **kwargs: Any) -> list[Value]:
    """Normalise each channel by itself, with its own scale, shift and statistics."""
    channels = x.dims[1]
    zero = x.zero
    for argument in args[:4]:
        if isinstance(argument, Value) and argument.ndim == 1 and (channels is not None or argument.live):
            channels = call.graph.connect_dims(channels, argument.dims[0])
            zero = zero or argument.zero
    call.graph.constrain_size(x.shape[1], channels)
    first = Value(call.shapes[0], (x.dims[0], channels, *x.dims[2:]), zero)
    return [first, *(static(shape) for shape in call.shapes[1:])]


@rule("native_layer_norm", "_fused_rms_norm", "layer_norm", "rms_norm")
def layer_norm(
    call: Call, x: Value, normalized_shape: Sequence[int], weight: Value | None = None, bias: Any = None, *_: Any
) -> list[Value]:
    """Normalise by statistics over the last dimensions."""
    n = len(normalized_shape)
    for dim, size in zip(x.dims[x.ndim - n :], normalized_shape, strict=True):
        call.graph.block_dim(dim, _STATISTICS, inexact=True)
        call.graph.constrain_size(size, dim)
    result = x
    for parameter in (weight, bias):
        if isinstance(parameter, Value):
            united = pointwise(call, result, parameter)
            result = united[0] if isinstance(united, list) else united
    shifted = isinstance(bias, Value) and any(dim is not None for dim in x.dims[: x.ndim - n])
    return [carried(call, x, result.dims, zero=x.zero and not shifted), *(static(shape) for shape in call.shapes[1:])]


@rule("native_group_norm", "group_norm")
def group_norm(
    call: Call, x: Value, weight: Any, bias: Any, n: int, c: int, pixels: int, groups: int, eps: float
) -> list[Value]:
    """Normalise by statistics over each group of channels, so that whole groups can leave."""
    channels: Dim = x.dims[1]
    for parameter in (weight, bias):
        if isinstance(parameter, Value) and (channels is not None or parameter.live):
            channels = call.graph.connect_dims(channels, parameter.dims[0])
    if channels is not None:
        if groups == 1:
            call.graph.block_dim(channels, _STATISTICS, inexact=True)
        else:
            grid = channels.reshape(groups, -1)
            call.graph.connect_nodes(grid, grid[:, :1])
            call.graph.constrain_size(groups, grid[:, 0], "count")
    dims = (x.dims[0], channels, *x.dims[2:])
    return [Value(call.shapes[0], dims, x.zero), *(static(shape) for shape in call.shapes[1:])]


@rule("_weight_norm_interface")
def weight_norm(call: Call, v: Value, g: Value, dim: int = 0) -> list[Value]:
    """Scale a weight's direction by its length: rows of zeros don't change a norm."""
    united = pointwise(call, v, g)
    first = united[0] if isinstance(united, list) else united
    return [Value(v.shape, first.dims, True, True), static(call.shapes[1])]
