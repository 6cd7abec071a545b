"""Hand inputs to any network: on which device, and as which arguments."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch.utils._pytree import tree_map_only

Inputs = Any
"""A tensor, or a tuple or dict of tensors, whose first dimension is the batch."""

BatchDim = Literal[0] | None
"""The dimension of a network's inputs that is the batch: the first, or none, as where it is the nodes of a graph."""


def call_model(model: Callable[..., Any], inputs: Inputs) -> Any:
    """Run the network: ``model(x)`` for a tensor, ``model(*x)`` for a tuple or list, ``model(**x)`` for a mapping.

    Args:
        model: The network, or a function made of one.
        inputs: Tensors whose first dimension is the batch, on the network's device.

    Returns:
        Whatever the network returns.
    """
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, tuple | list):
        return model(*inputs)
    return model(inputs)


def to_device(inputs: Inputs, device: torch.device | str) -> Inputs:
    """Move every tensor in ``inputs`` to ``device``; the nesting stays as it is, but for :func:`plain_inputs`.

    To a GPU they go from pinned memory: the process does not wait for the passes that are still running there.
    """
    to_gpu = torch.device(device).type == "cuda"

    def move(tensor: torch.Tensor) -> torch.Tensor:
        if to_gpu and tensor.device.type == "cpu":
            return tensor.pin_memory().to(device, non_blocking=True)
        return tensor.to(device)

    return tree_map_only(torch.Tensor, move, plain_inputs(inputs))


def plain_inputs(inputs: Inputs) -> Inputs:
    """Turn a mapping of any kind, such as what a tokenizer gives, into a dict; all else stays as it is."""
    return dict(inputs) if isinstance(inputs, Mapping) else inputs
