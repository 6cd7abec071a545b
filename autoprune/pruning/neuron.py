"""Neuron pruning: the widths that a network has, and the channels that go when a group shrinks."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from autoprune.pruning.graph import output_dim, width_of
from autoprune.pruning.plan import Group, PruningPlan

Shrink = Mapping[str, Mapping[int, Mapping[str, int]]]


def current_widths(model: nn.Module, plan: PruningPlan) -> dict[str, int]:
    """Channels that a network has in every group of its plan; 0 where removed blocks took them all."""
    roots = {group.name: root_of(model, group, plan.shrink) for group in plan.groups}
    return {name: width_of(model.get_submodule(root)) if root is not None else 0 for name, root in roots.items()}


def root_of(model: nn.Module, group: Group, shrink: Shrink) -> str | None:
    """The layer whose outputs are the group's channels: its namesake or, if a removed block took that, another."""
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in (group.name, *group.layers):
        module = modules.get(name)
        if not isinstance(module, _ConvNd | nn.Linear) or width_of(module) > group.width:
            continue
        if shrink.get(f"{name}.weight", {}).get(output_dim(module)) == {group.name: 1}:
            return name
    return None


def least_important(scores: torch.Tensor, n_lost: int) -> list[int]:
    """Indices, ascending, of the ``n_lost`` lowest scores, shape ``(n_channels,)``; of equal ones the last go."""
    order = torch.argsort(scores.cpu(), descending=True, stable=True)
    return sorted(order[len(order) - n_lost :].tolist())


def entries_lost(
    shapes: Mapping[str, Sequence[int]], shapes_after: Mapping[str, Sequence[int]]
) -> dict[str, dict[int, int]]:
    """Name -> dimension -> entries that it lost, where it lost any, between two states of a network's tensors."""
    losses: dict[str, dict[int, int]] = {}
    for name, shape in shapes.items():
        by_dim = {
            dim: before - after
            for dim, (before, after) in enumerate(zip(shape, shapes_after[name], strict=True))
            if before != after
        }
        if by_dim:
            losses[name] = by_dim
    return losses
