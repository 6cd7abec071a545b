"""Neuron pruning: the widths that a network has, and the channels that go when a group shrinks."""

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import nn

from autoprune.pruning.copies import named_tensors
from autoprune.pruning.plan import PruningPlan


def current_widths(model: nn.Module, plan: PruningPlan, without: Collection[str] = ()) -> dict[str, int]:
    """Count the channels that a network has in every group of its plan; 0 where removed blocks took them all.

    Each dimension that shrinks says ``dense size - present size = sum over groups of entries x channels lost``; the
    channels lost solve these equations.

    Args:
        without: Blocks that are looked at as if they were removed.
    """
    dense_shapes: Mapping[str, list[int]] = plan.graph["shapes"]
    gone = tuple(f"{block}." for block in without)
    shapes = {name: tuple(tensor.shape) for name, tensor in named_tensors(model) if not name.startswith(gone)}
    numbers = {group.name: number for number, group in enumerate(plan.groups)}
    rows: dict[tuple[tuple[int, int], ...], int] = {}
    for name, dims in plan.shrink.items():
        for dim, losses in dims.items() if name in shapes else ():
            row = tuple(sorted((numbers[group], entries) for group, entries in losses.items()))
            rows[row] = dense_shapes[plan.graph["same"][name]][dim] - shapes[name][dim]
    entries = np.zeros((len(rows), len(numbers)))
    for equation, row in zip(entries, rows, strict=True):
        for number, count in row:
            equation[number] = count
    lost = np.linalg.lstsq(entries, np.array(list(rows.values())), rcond=None)[0] if rows else np.zeros(len(numbers))
    present = np.atleast_1d(entries.any(axis=0))
    return {
        group.name: group.width - round(float(lost[number])) if present[number] else 0
        for group, number in zip(plan.groups, numbers.values(), strict=True)
    }


def least_important(scores: torch.Tensor, n_lost: int) -> list[int]:
    """Find the ``n_lost`` lowest scores, shape ``(n_channels,)``; returns ascending indices, of equal ones the last."""
    order = torch.argsort(scores.cpu(), descending=True, stable=True)
    return sorted(order[len(order) - n_lost :].tolist())
