"""What a judged network gave for fixed inputs, small enough for its record: an export must give the same."""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from autoprune.errors import ExportError
from autoprune.formats.outputs import relative_difference, reproducible_outputs
from autoprune.network.call import Inputs

N_VALUES = 1024
"""Values stored of each output tensor at most, evenly spaced over it."""

TOLERANCE = 1e-3
"""Largest difference allowed, relative to the largest value stored: another machine rounds otherwise."""

SAME = "the outputs stored at the trial's end"


def stored_outputs(inputs: Inputs, outputs: Sequence[torch.Tensor] | None) -> dict[str, Any] | None:
    """Turn a network's output tensors for some inputs to JSON values; ``None`` stays ``None``."""
    if outputs is None:
        return None
    return {
        "inputs_sha256": _sha256(inputs),
        "tensors": [
            {
                "shape": list(tensor.shape),
                "values": base64.b64encode(_sampled(tensor).numpy().astype("<f4").tobytes()).decode(),
            }
            for tensor in outputs
        ],
    }


def check_stored_outputs(stored: Mapping[str, Any] | None, model: nn.Module, inputs: Inputs) -> str:
    """Compare a network with what was stored at the end of its trial.

    Args:
        stored: As :func:`stored_outputs` gave it.
        model: The network, as it is loaded now, on the CPU.

    Returns:
        ``SAME``, or in the same form what it is compared with otherwise, and why.

    Raises:
        ExportError: If it gives other outputs.
    """
    otherwise = "the network loaded from the trial's file only:"
    if stored is None:
        return f"{otherwise} the trial stored no outputs"
    if stored["inputs_sha256"] != _sha256(inputs):
        return f"{otherwise} the first validation inputs are not those that the trial ended with"
    outputs = reproducible_outputs(model, inputs)
    if outputs is None:
        return f"{otherwise} the network gives other outputs at each call"
    expected = [_decoded(tensor["values"]) for tensor in stored["tensors"]]
    shapes = [tuple(tensor["shape"]) for tensor in stored["tensors"]]
    same_shapes = shapes == [tuple(tensor.shape) for tensor in outputs]
    difference = relative_difference([_sampled(tensor) for tensor in outputs], expected) if same_shapes else math.inf
    if difference > TOLERANCE:
        told = f"they differ by {difference:.2g} of the largest" if same_shapes else f"their shapes were {shapes}"
        raise ExportError(
            f"the network built now gives other outputs than at the end of its trial ({told}, on the first "
            f"{len(tree_leaves(inputs)[0])} validation inputs). Restore its code, its arguments and the files that it "
            "reads as they were then."
        )
    return SAME


def _sampled(tensor: torch.Tensor) -> torch.Tensor:
    """Return evenly spaced values of a tensor, shape ``(n,)``, float32."""
    flat = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).detach().reshape(-1)
    n = min(N_VALUES, len(flat))
    return flat[torch.arange(n) * len(flat) // max(n, 1)].float().cpu()


def _decoded(values: str) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(values), dtype="<f4").copy())


def _sha256(inputs: Inputs) -> str:
    digest = hashlib.sha256()
    for leaf in tree_leaves(inputs):
        if isinstance(leaf, torch.Tensor):
            content = leaf.detach().cpu().contiguous().reshape(-1)
            digest.update(f"{leaf.dtype} {tuple(leaf.shape)}".encode())
            digest.update(content.view(torch.uint8).numpy().tobytes() if len(content) else b"")
        else:
            digest.update(repr(leaf).encode())
    return digest.hexdigest()
