"""Operations that collapse, order or normalise a dimension, and those that work on pixels."""

from collections.abc import Sequence
from typing import Any

from autoprune.pruning.graph.rules._base import Call, carried, normalised, rule
from autoprune.pruning.graph.values import Value

_SUM = "is summed over, and channels that leave are not zero there"
_STATISTICS = "has statistics taken over its channels, which change when some leave"


@rule("sum", "nansum")
def sum_(call: Call, value: Value, dim: Any = None, keepdim: bool = False, **_: Any) -> Value:
    """Sum: channels that are zero add nothing."""
    return _reduce(call, value, dim, keepdim, reason=None if value.zero else _SUM)


@rule("linalg_vector_norm", "norm")
def vector_norm(call: Call, value: Value, ord: Any = 2, dim: Any = None, keepdim: bool = False, **_: Any) -> Value:
    """Take a norm: channels that are zero add nothing."""
    harmless = value.zero and isinstance(ord, int | float) and ord > 0
    return _reduce(call, value, dim, keepdim, reason=None if harmless else _SUM)


@rule("mean", "var", "std", "amax", "amin", "prod", "logsumexp", "any", "all", "argmax", "argmin", "var_mean", "median")
def reduce(call: Call, value: Value, dim: Any = None, *args: Any, **kwargs: Any) -> list[Value]:
    """Reduce to a result that depends on how many channels there are, or on each of them."""
    if isinstance(dim, bool):  # var(unbiased)
        dim = None
    first = _reduce(call, value, dim, len(call.shapes[0]) == value.ndim > 0, reason=_STATISTICS, inexact=True)
    zero = value.zero and call.operation.name not in ("logsumexp", "all", "argmax", "argmin")
    return [Value(shape, first.dims, zero, value.weight) for shape in call.shapes]


@rule("max", "min")
def maximum(call: Call, value: Value, other: Any = None, *args: Any, **kwargs: Any) -> list[Value]:
    """Take the largest of everything or along a dimension."""
    if isinstance(other, Value):
        raise NotImplementedError
    return reduce(call, value, other)


@rule("_softmax", "_log_softmax", "_safe_softmax", "softmax", "log_softmax")
def softmax(call: Call, value: Value, dim: int, *_: Any, **__: Any) -> Value:
    """Turn a dimension into shares of a whole."""
    return _along(call, value, dim, zero=False)[0]


@rule("cumsum", "cumprod", "sort", "argsort", "topk", "kthvalue", "logcumsumexp", "cummax", "cummin", "_fft_c2c")
@rule("_fft_r2c", "_fft_c2r", "msort", "tensor_split")
def along_dim(call: Call, value: Value, *args: Any, **kwargs: Any) -> list[Value]:
    """Mix the entries of a dimension."""
    name = call.operation.name
    default = -1 if name in ("sort", "argsort", "topk", "kthvalue") else 0
    place = 1 if name in ("topk", "kthvalue") else 0
    dim = kwargs.get("dim", args[place] if len(args) > place else default)
    if isinstance(dim, bool):  # sort.stable
        dim = kwargs.get("dim", -1)
    return _along(call, value, dim, zero=False)


@rule("tril", "triu", "diagonal", "linalg_inv_ex", "_linalg_det", "linalg_qr")
def matrix(call: Call, value: Value, *args: Any, **__: Any) -> list[Value]:
    """Operate on the last two dimensions as a matrix."""
    for dim in value.dims[-2:]:
        call.graph.block_dim(dim, "is one side of a matrix that the code reads by place")
    return [
        Value(shape, value.dims[: value.ndim - 2] + (None,) * (len(shape) - value.ndim + 2), False)
        for shape in call.shapes
    ]


_SPATIAL = {"1d": 1, "2d": 2, "3d": 3}


@rule("avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool2d")
@rule("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d", "max_pool1d")
@rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "mkldnn_max_pool2d", "fractional_max_pool2d")
@rule("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d")
@rule("upsample_bicubic2d", "upsample_trilinear3d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")
@rule("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "reflection_pad1d")
@rule("reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d", "replication_pad3d")
def on_pixels(call: Call, value: Value, *_: Any, **__: Any) -> list[Value]:
    """Pool, interpolate or pad each channel by itself."""
    n = next(count for digits, count in _SPATIAL.items() if digits in call.operation.name)
    for dim in value.dims[value.ndim - n :]:
        call.graph.block_dim(dim, "is read as the side of an image")
    dims = value.dims[: value.ndim - n] + (None,) * n
    return [Value(shape, dims, value.zero) for shape in call.shapes]


@rule("grid_sampler_2d", "grid_sampler_3d", "affine_grid_generator")
def grid_sampler(call: Call, value: Value, grid: Any, *_: Any) -> Value:
    """Look up pixels by coordinates, each channel by itself."""
    n_spatial = value.ndim - 2
    for dim in (*value.dims[2:], *(grid.dims if isinstance(grid, Value) else ())):
        call.graph.block_dim(dim, "is read as coordinates of pixels")
    return carried(call, value, [*value.dims[:2], *[None] * n_spatial])


@rule("unfold")
def unfold(call: Call, value: Value, dimension: int, size: int, step: int) -> Value:
    """Slide windows along a dimension."""
    dims = list(value.dims)
    call.graph.block_dim(dims[dimension], "is cut into sliding windows")
    dims[dimension] = None
    return carried(call, value, [*dims, None])


def _along(call: Call, value: Value, dim: Any, *, zero: bool) -> list[Value]:
    dims = list(value.dims)
    for axis in normalised(dim, value.ndim):
        call.graph.block_dim(dims[axis], "has its entries compared with each other", inexact=False)
        dims[axis] = None
    return [Value(shape, tuple(dims), zero, value.weight) for shape in call.shapes]


def _reduce(
    call: Call,
    value: Value,
    dim: int | Sequence[int] | None,
    keepdim: bool,
    *,
    reason: str | None,
    inexact: bool = False,
) -> Value:
    reduced = normalised(dim, value.ndim)
    dims = []
    for axis, nodes in enumerate(value.dims):
        if axis not in reduced:
            dims.append(nodes)
            continue
        if reason is not None:
            call.graph.block_dim(nodes, reason, inexact=inexact)
        if keepdim:
            dims.append(None)
    zero = value.zero
    return call.first_result(dims, zero=zero, weight=value.weight)
