"""Multiply-accumulates of the operations that torch's counter does not know, and the names of those nobody counts.

Sums, and what works entry by entry (activations, normalisation, pooling, interpolation), count as nothing.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Counted:
    """How an operation is counted.

    Attributes:
        macs: Gets the operation's arguments, and its result as ``out_val``; returns multiply-accumulates.
        factors: Which arguments are multiplied; where several are parameters, the count is due to the last.
    """

    macs: Callable[..., int]
    factors: tuple[int, ...]


def _matrix(a: Any, b: Any, *_: Any, **__: Any) -> int:
    """Count ``a @ b``: of a sparse matrix, only the entries that it stores."""
    if a.layout != torch.strided:
        return int(a._nnz() * prod(b.shape[1:]))
    if b.layout != torch.strided:
        return int(a.shape[0] * b._nnz())
    return int(a.numel() * (b.shape[-1] if b.ndim > 1 else 1))


def _added_matrix(_: Any, a: Any, b: Any, *__: Any, **___: Any) -> int:
    return _matrix(a, b)


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Count both products, for every query head; keys and values may have fewer heads."""
    n_pairs = prod(query.shape[:-1]) * key.shape[-2]
    return int(n_pairs * (query.shape[-1] + value.shape[-1]))


def _distances(a: Any, b: Any, *_: Any, out_val: Any, **__: Any) -> int:
    """Count a difference that is squared (or the like) and summed as one."""
    return int(out_val.numel() * a.shape[-1])


def _embedding_bag(weight: Any, indices: Any, *args: Any, per_sample_weights: Any = None, **_: Any) -> int:
    """Count only weighted rows: a sum of rows multiplies nothing."""
    weighted = per_sample_weights is not None or (len(args) > 4 and args[4] is not None)
    return int(indices.numel() * weight.shape[1]) if weighted else 0


_aten = torch.ops.aten
_LAST_TWO = Counted(_matrix, (0, 1))
_ADDED = Counted(_added_matrix, (1, 2))
_ATTENTION = Counted(_attention, (0, 1, 2))
_DISTANCES = Counted(_distances, (0, 1))

_BY_NAME: dict[str, Counted] = {
    "mm": _LAST_TWO,  # torch counts a sparse matrix as a dense one
    "addmm": _ADDED,
    "_addmm_activation": _ADDED,
    "baddbmm": _ADDED,
    "_sparse_addmm": _ADDED,
    "mv": _LAST_TWO,
    "addmv": _ADDED,
    "dot": _LAST_TWO,
    "vdot": _LAST_TWO,
    "_int_mm": _LAST_TWO,
    "_grouped_mm": _LAST_TWO,
    "addr": Counted(lambda _, a, b, **__: a.numel() * b.numel(), (1, 2)),
    "addbmm": _ADDED,
    "conv_tbc": Counted(lambda x, weight, *_, out_val, **__: out_val.shape[0] * x.shape[1] * weight.numel(), (0, 1)),
    # Each weight of a bilinear layer multiplies one product of inputs for each example.
    "_trilinear": Counted(lambda a, weight, b, *_, **__: a.shape[0] * weight.numel(), (0, 2, 1)),
    "_cdist_forward": _DISTANCES,
    "_euclidean_dist": _DISTANCES,
    "_pdist_forward": Counted(lambda x, *_, out_val, **__: out_val.numel() * x.shape[-1], (0,)),
    "_embedding_bag": Counted(_embedding_bag, (0,)),
    "_embedding_bag_forward_only": Counted(_embedding_bag, (0,)),
    "_scaled_dot_product_flash_attention_for_cpu": _ATTENTION,
    "_scaled_dot_product_flash_attention": _ATTENTION,
    "_scaled_dot_product_efficient_attention": _ATTENTION,
    "_scaled_dot_product_cudnn_attention": _ATTENTION,
    "_scaled_dot_product_fused_attention_overrideable": _ATTENTION,
    "_scaled_dot_product_attention_math_for_mps": _ATTENTION,
}

COUNTED: dict[Any, Counted] = {
    getattr(_aten, form): counted
    for name, counted in _BY_NAME.items()
    for form in (name, f"{name}_")  # `addmm_` writes into its argument
    if hasattr(_aten, form)
}
"""Operation -> how it is counted, for what torch's counter does not know or counts otherwise."""

_HEAVY = re.compile(
    r"linalg|fft|cholesky|inverse|triangular_solve|geqrf|ormqr|householder|matrix_exp|pdist"
    r"|conv|linear|mm(_|$)|matmul|attention|(^|_)(rnn|lstm|gru)(_|$)|encoder_layer|_dot(_|$)"
)
_LIGHT = re.compile(
    r"vector_norm|_powsum|check_errors|linalg_cross|fftfreq|convert|slice_inverse|flatten_weight|reorder"
    r"|upsample|fused_(lstm|gru)_cell"  # entry by entry; the products of a cell are operations of their own
)


@cache
def is_heavy(func: Any) -> bool:
    """Whether an operation does the work of a matrix product or more, as far as its name tells, and has no formula."""
    packet = getattr(func, "overloadpacket", func)
    if packet in COUNTED or packet in flop_registry:
        return False
    space, _, name = str(getattr(getattr(func, "_schema", None), "name", func)).rpartition("::")
    if space not in ("aten", "prim", "prims"):
        return True
    return bool(_HEAVY.search(name)) and not _LIGHT.search(name)
