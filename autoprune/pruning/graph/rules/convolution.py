"""Convolutions: dense, grouped, depthwise, transposed."""

from typing import Any

import numpy as np

from autoprune.pruning.graph.dependency_graph import CONVOLUTION
from autoprune.pruning.graph.rules._base import Call, rule
from autoprune.pruning.graph.rules.contraction import contract
from autoprune.pruning.graph.values import Dim, Nodes, Value

_GROUPS = "feeds a grouped convolution, whose groups must stay equal"


@rule("convolution", "_convolution", "convolution_overrideable", "mkldnn_convolution")
def convolution(
    call: Call,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    *_: Any,
) -> Value:
    """Convolve: input channels meet the weight's one dimension, output channels are its other."""
    for dim in weight.dims[2:]:
        call.graph.block_dim(dim, "is the side of a kernel", quiet=True)
    for dim in x.dims[2:]:
        call.graph.block_dim(dim, "is read as the side of an image")
    inner, outer = (0, 1) if transposed else (1, 0)
    if groups == 1:
        contract(call, x, x.dims[1], weight, weight.dims[inner])
        channels = weight.dims[outer]
    else:
        channels = _grouped(call, x, weight, groups, transposed)
    zero = weight.zero and (bias is None or bias.zero)
    if bias is not None and (channels is not None or bias.dims[0] is not None):
        channels = call.graph.connect_dims(channels, bias.dims[0])
    result = call.first_result([x.dims[0], channels, *[None] * (weight.ndim - 2)], zero=zero)
    if not weight.owned:
        # Kernels that the network computes: each entry of one side meets one group's channels of the other.
        each = x if transposed else result
        shared = zip((*each.shape, *weight.shape[1:]), (*each.dims, *weight.dims[1:]), strict=True)
        call.graph.products.append((call.graph.module, tuple(shared)))
    return result


def _grouped(call: Call, x: Value, weight: Value, groups: int, transposed: bool) -> Dim:
    """Convolve in groups: either whole groups leave, or the same channels of each group.

    One side of the weight holds the channels of all groups, the other those of one group, shared by all.
    """
    graph = call.graph
    spread, shared = (weight.dims[0], weight.dims[1])
    n_in, n_out = x.shape[1] // groups, call.shapes[0][1] // groups
    source = x.dims[1]
    if transposed:
        # The weight's first side is the input.
        if source is not None or spread is not None:
            source = graph.connect_dims(source, spread)
        spread = np.tile(shared, groups) if shared is not None else None
    if source is None or (spread is None and n_out > 1):
        graph.block_dim(shared, _GROUPS)
        if spread is not None and n_out > 1:
            graph.tie_parts(spread, groups)
        elif spread is not None:
            graph.block_dim(spread, _GROUPS)
        return spread
    by_group = n_in == 1 or n_out == 1 or _whole_groups(call, groups, n_in, n_out)
    if by_group:
        heads = source.reshape(groups, n_in)[:, 0]
        graph.connect_nodes(source.reshape(groups, n_in), heads[:, None])
        graph.block_dim(shared, "is the size of a group", quiet=True)
        graph.constrain_size(groups, heads, "count")
        if spread is not None and not transposed:
            graph.connect_nodes(spread.reshape(groups, n_out), heads[:, None])
        return np.repeat(heads, n_out)
    _tie_shared(call, source, shared, groups, transposed)
    if spread is not None:
        graph.tie_parts(spread, groups)
    return spread


def _whole_groups(call: Call, groups: int, n_in: int, n_out: int) -> bool:
    finest_is_groups = groups >= min(n_in, n_out)
    return call.graph.choose_option(2, 0 if finest_is_groups else 1, owner=f"{CONVOLUTION}{call.graph.module}") == 0


def _tie_shared(call: Call, source: Nodes, shared: Dim, groups: int, transposed: bool) -> None:
    call.graph.tie_parts(source, groups)
    if not transposed and shared is not None:
        call.graph.connect_nodes(source[: len(source) // groups], shared)
        call.graph.consumed.append(shared)
