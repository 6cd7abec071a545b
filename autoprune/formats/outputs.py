"""Run networks on fixed inputs, and compare what they give."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from autoprune.errors import ExportError
from autoprune.formats.network import max_difference, tensors
from autoprune.network.call import Inputs, call_model
from autoprune.network.modes import eval_mode
from autoprune.network.outputs import plain_outputs

TOLERANCE = 1e-4
"""Largest difference allowed within an output tensor, relative to its largest value."""


def outputs_of(model: nn.Module, inputs: Inputs) -> list[torch.Tensor]:
    """Run a network in evaluation mode, with the same random numbers each time, should it draw any."""
    with torch.no_grad(), eval_mode(model), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [tensor.clone() for tensor in tensors(plain_outputs(call_model(model, inputs)))]


def reproducible_outputs(model: nn.Module, inputs: Inputs) -> list[torch.Tensor] | None:
    """Run a network twice in evaluation mode; returns its output tensors, or ``None`` if they differ by themselves.

    Args:
        model: On the CPU. Its modules' modes are the same afterwards.
    """
    first, second = outputs_of(model, inputs), outputs_of(model, inputs)
    return first if relative_difference(second, first) <= TOLERANCE else None


def relative_difference(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """Compare two networks' output tensors.

    Returns:
        The largest difference within a tensor relative to the largest value expected in it. It is infinite where the
        number of tensors, a shape or a dtype differs, or one has a NaN that the other has not.
    """
    if len(found) != len(expected):
        return math.inf
    worst = 0.0
    for pair in zip(found, expected, strict=True):
        try:
            difference, scale = max_difference(*pair)
        except ExportError:
            return math.inf
        if difference:
            worst = max(worst, difference / scale if scale else math.inf)
    return worst
