"""What a judged network gave for fixed inputs, small enough for its record: an export must give the same."""

import base64
import hashlib
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

TOLERANCE, TOLERANCE_WHOLE = 1e-3, 0.02
"""Largest difference allowed, relative to the largest value stored, and the share of whole numbers that may be others:
another machine rounds otherwise."""

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
                "float": _is_float(tensor),
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
    told = _difference(stored["tensors"], outputs)
    if told is not None:
        raise ExportError(
            f"the network built now gives other outputs than at the end of its trial ({told}, for the first "
            f"{len(tree_leaves(inputs)[0])} validation inputs). Restore its code, its arguments and the files that it "
            "reads as they were then."
        )
    return SAME


def _difference(stored: Sequence[Mapping[str, Any]], outputs: Sequence[torch.Tensor]) -> str | None:
    """Say how outputs differ from those stored, beyond rounding; ``None`` if they don't."""
    shapes = [tuple(tensor["shape"]) for tensor in stored]
    if shapes != [tuple(tensor.shape) for tensor in outputs]:
        return f"their shapes were {shapes}"
    for tensor, output in zip(stored, outputs, strict=True):
        expected, found = _decoded(tensor["values"]), _sampled(output)
        if tensor["float"] != _is_float(output):
            return "floats against whole numbers"
        if not tensor["float"]:
            share = float((expected != found).float().mean()) if len(found) else 0.0
            if share > TOLERANCE_WHOLE:
                return f"{share:.0%} of the whole numbers are others"
        elif (difference := relative_difference([found], [expected])) > TOLERANCE:
            return f"they differ by {difference:.2g} of the largest"
    return None


def _is_float(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


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
