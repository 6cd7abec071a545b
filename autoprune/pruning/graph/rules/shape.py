"""Operations that show the same entries in another arrangement."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from autoprune.pruning.graph.rules._base import Call, carried, normalised, rule
from autoprune.pruning.graph.values import Dim, Value


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "_reshape_copy", "view_copy", "unflatten", "flatten")
def view(call: Call, value: Value, *_: Any, **__: Any) -> Value:
    """Show entries in the same order under another shape."""
    return carried(call, value, call.graph.reshape_dims(value.dims, value.shape, call.shapes[0]))


@rule("as_strided")
def as_strided(call: Call, value: Value, *_: Any, **__: Any) -> Value:
    """Restride; understood where it only adds or drops dimensions of size 1."""
    old = [(size, dim) for size, dim in zip(value.shape, value.dims, strict=True) if size != 1]
    if [size for size, _ in old] != [size for size in call.shapes[0] if size != 1]:
        raise NotImplementedError("reads memory in strides of its own")
    rest = iter(old)
    return carried(call, value, [None if size == 1 else next(rest)[1] for size in call.shapes[0]])


@rule("permute")
def permute(call: Call, value: Value, dims: Sequence[int]) -> Value:
    """Order the dimensions anew."""
    return carried(call, value, [value.dims[dim] for dim in dims])


@rule("transpose", "transpose_copy", "swapaxes")
def transpose(call: Call, value: Value, dim0: int, dim1: int) -> Value:
    """Swap two dimensions."""
    dims = list(value.dims)
    if dims:
        dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
    return carried(call, value, dims)


@rule("t", "numpy_T", "mT", "adjoint")
def t(call: Call, value: Value) -> Value:
    """Reverse the order of the dimensions."""
    return carried(call, value, value.dims[::-1])


@rule("unsqueeze")
def unsqueeze(call: Call, value: Value, dim: int) -> Value:
    """Add a dimension of size 1."""
    dims = list(value.dims)
    dims.insert(dim % (value.ndim + 1), None)
    return carried(call, value, dims)


@rule("squeeze")
def squeeze(call: Call, value: Value, dim: int | Sequence[int] | None = None) -> Value:
    """Drop dimensions of size 1."""
    gone = set(range(value.ndim)) if dim is None else set(normalised(dim, value.ndim))
    kept = [axis for axis in range(value.ndim) if not (axis in gone and value.shape[axis] == 1)]
    return carried(call, value, [value.dims[axis] for axis in kept])


@rule("expand", "expand_copy", "broadcast_to")
def expand(call: Call, value: Value, size: Sequence[int], **_: Any) -> Value:
    """Expand dimensions of size 1, and add new ones in front; their sizes may follow a width or be constants."""
    n_new = len(call.shapes[0]) - value.ndim
    dims: list[Dim] = []
    for axis, size_after in enumerate(call.shapes[0]):
        grows = axis < n_new or (value.shape[axis - n_new] == 1 and size_after > 1)
        dims.append(call.graph.new_dim(size_after) if grows else value.dims[axis - n_new])
    return carried(call, value, dims)


@rule("repeat")
def repeat(call: Call, value: Value, repeats: Sequence[int]) -> Value:
    """Repeat the tensor along its dimensions."""
    n_new = len(repeats) - value.ndim
    dims: list[Dim] = [None] * n_new
    for dim, times in zip(value.dims, repeats[n_new:], strict=True):
        dims.append(None if dim is None else np.tile(dim, times))
    return carried(call, value, dims)


@rule("repeat_interleave")
def repeat_interleave(call: Call, value: Value, repeats: Any, dim: int | None = None, **_: Any) -> Value:
    """Repeat each index several times in a row."""
    if not isinstance(repeats, int) or dim is None:
        raise NotImplementedError("repeats an index a varying number of times")
    dims = list(value.dims)
    nodes = dims[dim]
    dims[dim] = None if nodes is None else np.repeat(nodes, repeats)
    return carried(call, value, dims)


@rule("pixel_shuffle")
def pixel_shuffle(call: Call, value: Value, upscale_factor: int) -> Value:
    """Turn each run of channels into the pixels of one: ``(C r r, H, W)`` to ``(C, H r, W r)``."""
    nodes = value.dims[-3]
    channels: Dim = None
    if nodes is not None:
        runs = nodes.reshape(-1, upscale_factor**2)
        call.graph.connect_nodes(runs, runs[:, :1])
        channels = runs[:, 0] if len(runs) > 1 else None
        if channels is None:
            call.graph.block_dim(nodes, "become the pixels of one channel")
    _block_tail(call, value, 2)
    return carried(call, value, [*value.dims[:-3], channels, None, None])


@rule("pixel_unshuffle")
def pixel_unshuffle(call: Call, value: Value, downscale_factor: int) -> Value:
    """Turn the pixels of each channel into a run of channels."""
    nodes = value.dims[-3]
    _block_tail(call, value, 2)
    channels = None if nodes is None else np.repeat(nodes, downscale_factor**2)
    return carried(call, value, [*value.dims[:-3], channels, None, None])


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(call: Call, value: Value, groups: int) -> Value:
    """Deal out the channels of several groups in turn."""
    nodes = value.dims[1]
    if nodes is None:
        return carried(call, value, value.dims)
    call.graph.tie_parts(nodes, groups)
    shuffled = nodes.reshape(groups, -1).T.reshape(-1)
    return carried(call, value, [value.dims[0], shuffled, *value.dims[2:]])


@rule("im2col")
def im2col(call: Call, value: Value, kernel_size: Sequence[int], *_: Any, **__: Any) -> Value:
    """Turn each channel into a run of entries, one for each place of the kernel."""
    _block_tail(call, value, 2)
    nodes = value.dims[-3]
    n_places = kernel_size[0] * kernel_size[1]
    return carried(call, value, [*value.dims[:-3], None if nodes is None else np.repeat(nodes, n_places), None])


@rule("flip")
def flip(call: Call, value: Value, dims: Sequence[int]) -> Value:
    """Reverse the indices of dimensions."""
    flipped = normalised(dims, value.ndim)
    return carried(call, value, [d[::-1] if i in flipped and d is not None else d for i, d in enumerate(value.dims)])


@rule("view_as_real")
def view_as_real(call: Call, value: Value) -> Value:
    """Add a last dimension of real and imaginary parts."""
    return carried(call, value, [*value.dims, None])


@rule("view_as_complex")
def view_as_complex(call: Call, value: Value) -> Value:
    """Read the last dimension as real and imaginary parts."""
    call.graph.block_dim(value.dims[-1], "is read as real and imaginary parts")
    return carried(call, value, value.dims[:-1])


def _block_tail(call: Call, value: Value, n: int) -> None:
    for dim in value.dims[value.ndim - n :]:
        call.graph.block_dim(dim, "is read as the side of an image")
