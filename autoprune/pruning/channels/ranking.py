"""Ranking channels across groups: scores that compare, and the widths at which a network is small enough."""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from math import lcm

import torch
from torch import nn

from autoprune.errors import PruningError
from autoprune.pruning.channels.importance import Calibration, channel_scores
from autoprune.pruning.channels.widths import current_widths
from autoprune.pruning.copies import shareable_tensors, weight_sharing_copy
from autoprune.pruning.graph import at_widths, from_plain
from autoprune.pruning.plan import PruningPlan
from autoprune.tasks.task import Loss


def global_scores(
    model: nn.Module,
    plan: PruningPlan,
    criterion: str,
    *,
    calibration: Calibration | None = None,
    loss: Loss | None = None,
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """Score all channels of a network so that they compare across groups: each group's mean is 1.

    Args:
        model: The dense network, or one pruned under the same plan; it is not touched.
        criterion: With what it needs, as ``channel_scores`` takes it.

    Returns:
        Group name -> scores, shape ``(n_channels,)``, float64 on the CPU; those of a group whose scores are all 0 stay.
        Groups that removed blocks took with them are not there.

    Raises:
        PruningError: If the criterion is unknown or lacks the data it needs, or scores are not finite.

    Source:
        The scaling is Torch-Pruning's default (Fang et al. 2023, arXiv 2301.12900)
    """
    present = current_widths(model, plan)
    analysis = at_widths(from_plain(plan.graph), {name: max(1, width) for name, width in present.items()})
    groups = [group for group in analysis.groups if present[group.name]]
    scored = weight_sharing_copy(model, shareable_tensors(model))
    scores = channel_scores(scored, groups, criterion, calibration=calibration, loss=loss, seed=seed)
    return {name: values / values.mean() if bool(values.any()) else values for name, values in scores.items()}


def kept_scores(model: nn.Module, plan: PruningPlan) -> dict[str, list[float]]:
    """List the L2 scores of a network's channels across groups, for a search to decide what to prune.

    Args:
        model: The dense network, or one pruned under the same plan; it is not touched.

    Returns:
        Group name -> ``global_scores``, rising, to five digits; empty where a pruned network can't be scored.
    """
    try:
        scores = global_scores(model, plan, "l2")
    except PruningError:  # the next pruning will say why
        return {}
    return {name: [float(f"{score:.5g}") for score in values.sort().values.tolist()] for name, values in scores.items()}


def global_widths(
    scores: Mapping[str, torch.Tensor],
    plan: PruningPlan,
    size_of: Callable[[Mapping[str, int]], int],
    ceiling: float,
    *,
    round_to: int = 1,
) -> dict[str, int]:
    """Remove the least important channels, whichever group they are in, until the network is small enough.

    One channel goes at a time, or as many of a group together as its multiple asks for, which then count with the mean
    of their scores. Of equal ones those of earlier groups go first. Every group keeps at least one (multiple).

    Args:
        scores: Group name -> scores that compare across groups, shape ``(n_channels,)``.
        size_of: Size of the network, such as its MACs, at given widths; it must not grow when a width falls.
        ceiling: The largest size that will do.
        round_to: Channels kept are a multiple of this and of the group's own multiple, where any are removed.

    Returns:
        Group name -> channels to keep: the first widths on the way down whose size is at most the ceiling, or the
        narrowest ones if none is.
    """
    multiples = {group.name: lcm(round_to, group.multiple) for group in plan.groups}
    steps: list[tuple[float, str, int]] = []
    for name, values in scores.items():
        ascending, width, multiple = values.sort().values, len(values), multiples[name]
        start = width
        for kept in range((width - 1) // multiple * multiple, 0, -multiple):
            steps.append((float(ascending[width - start : width - kept].mean()), name, kept))
            start = kept
    steps.sort(key=lambda step: step[0])

    def widths_after(n_steps: int) -> dict[str, int]:
        return {name: len(values) for name, values in scores.items()} | {name: k for _, name, k in steps[:n_steps]}

    first = bisect_left(range(len(steps)), True, key=lambda n_steps: size_of(widths_after(n_steps)) <= ceiling)
    return widths_after(first)
