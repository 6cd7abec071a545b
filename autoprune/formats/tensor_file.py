"""Tensors in a safetensors file: tied ones once, and those with many zeros as a bit mask and the other values."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

MASK_SUFFIX, VALUES_SUFFIX = ".__mask__", ".__values__"
_ENTRY_BYTES = 200
"""About what a second tensor adds to the file's header; a smaller saving is not worth the mask."""


def encode_tensors(
    tensors: Mapping[str, torch.Tensor], *, pack_zeros: bool = True, values: Mapping[str, Any] | None = None
) -> bytes:
    """The content of a safetensors file that holds these tensors.

    Its metadata says under ``autoprune`` which names share one tensor and which tensors are stored sparsely.

    Args:
        pack_zeros: Whether a tensor with many zeros may be stored as a mask and values, which only autoprune reads.
        values: JSON values that the metadata holds too, if there are any.
    """
    stored, ties = _without_ties(tensors)
    sparse: dict[str, list[int]] = {}
    for name in list(stored):
        packed = _pack(stored[name]) if pack_zeros else None
        if packed is not None:
            sparse[name] = list(stored.pop(name).shape)
            stored[name + MASK_SUFFIX], stored[name + VALUES_SUFFIX] = packed
    layout = {"ties": ties, "sparse": sparse} | ({"values": dict(values)} if values else {})
    return save(stored, metadata={"format": "pt", "autoprune": json.dumps(layout)})


def read_tensors(path: Path, sha256: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what ``encode_tensors`` made, bit for bit; tied tensors come under each of their names.

    Args:
        sha256: Of the file's content, in hexadecimal digits.

    Returns:
        The tensors, and the JSON values.

    Raises:
        ValueError: If the file is missing, has another content, or was not made by ``encode_tensors``.
    """
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise ValueError("its SHA-256 is not the one noted when it was written")
        with safe_open(path, framework="pt") as file:
            layout = json.loads((file.metadata() or {})["autoprune"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # the file can't be iterated
        for name, shape in layout["sparse"].items():
            tensors[name] = _unpack(tensors.pop(name + MASK_SUFFIX), tensors.pop(name + VALUES_SUFFIX), shape)
        tensors |= {alias: tensors[name] for alias, name in layout["ties"].items()}
        return tensors, dict(layout.get("values", {}))
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _without_ties(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Every tensor once, and alias -> name for the others; tensors that merely share memory become copies."""
    seen: dict[tuple[Any, ...], str] = {}
    stored: dict[str, torch.Tensor] = {}
    ties: dict[str, str] = {}
    for name, tensor in tensors.items():
        key = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and key in seen:
            ties[name] = seen[key]
        else:
            seen[key] = name
            stored[name] = tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
    return stored, ties


def _pack(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The bit mask of the elements that are not all zero bits, and their values; ``None`` if that saves nothing."""
    if tensor.ndim == 0 or tensor.numel() == 0:
        return None
    element_bytes = tensor.flatten().view(torch.uint8).view(tensor.numel(), tensor.element_size())
    kept = (element_bytes != 0).any(dim=1)
    packed_size = math.ceil(tensor.numel() / 8) + int(kept.sum()) * tensor.element_size() + _ENTRY_BYTES
    if packed_size >= tensor.numel() * tensor.element_size():
        return None
    return torch.from_numpy(np.packbits(kept.numpy())), tensor.flatten()[kept]


def _unpack(mask: torch.Tensor, values: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    kept = torch.from_numpy(np.unpackbits(mask.numpy(), count=math.prod(shape))).bool()
    if int(kept.sum()) != len(values):
        raise ValueError("a mask doesn't fit its values")
    tensor = torch.zeros(math.prod(shape), dtype=values.dtype)
    tensor[kept] = values
    return tensor.view(tuple(shape))
