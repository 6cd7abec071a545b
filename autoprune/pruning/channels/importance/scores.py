"""One score a channel, higher is more important: the registry of the criteria, and the one call that all go through."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from autoprune.errors import PruningError
from autoprune.pruning.channels.criteria import check_criterion, needs_data, needs_loss
from autoprune.pruning.channels.importance import activation, gradient, magnitude, obs
from autoprune.pruning.channels.importance._base import Calibration, Scorer, Subject, at_least_one
from autoprune.pruning.channels.layer_inputs import LayerInputs
from autoprune.pruning.graph import DependencyGroup
from autoprune.tasks.task import Loss

SCORERS: Mapping[str, Callable[[Subject], Scorer]] = {
    "l1": magnitude.l1,
    "l2": magnitude.l2,
    "bn_scale": magnitude.bn_scale,
    "taylor": gradient.taylor,
    "fisher": gradient.fisher,
    "fpgm": magnitude.fpgm,
    "lamp": magnitude.lamp,
    "activation": activation.activation,
    "apoz": activation.apoz,
    "obs": obs.obs,
    "random": magnitude.random,
}
"""Criterion -> what it is; ``autoprune.config.criteria`` says what each needs."""


def channel_scores(
    model: nn.Module,
    groups: Sequence[DependencyGroup],
    criterion: str,
    *,
    calibration: Calibration | None = None,
    loss: Loss | None = None,
    seed: int = 0,
    inputs: LayerInputs | None = None,
) -> dict[str, torch.Tensor]:
    """Score the channels of groups; scores compare within a group only (``global_scores`` makes them compare).

    A group that holds nothing that the criterion looks at (no batch norm for ``bn_scale``, no layer behind it for
    ``activation``) is scored by ``l2``.

    Args:
        model: Left as it was, gradients included.
        groups: Of an analysis of this network.
        criterion: A name in ``SCORERS``.
        calibration: Batches for the criteria that need data.
        loss: Loss for those that need it.
        seed: Of ``random``.
        inputs: Of the network's layers on the calibration batches, if these have been, or will be, looked at elsewhere.

    Returns:
        Group name -> scores, shape ``(n_channels,)``, float64 on the CPU.

    Raises:
        PruningError: If the criterion is unknown or lacks the data it needs, or scores are not finite.
    """
    check_criterion(criterion)
    if (needs_data(criterion) and calibration is None) or (needs_loss(criterion) and loss is None):
        what = "calibration batches and a loss" if needs_loss(criterion) else "calibration batches"
        raise PruningError(f"criterion '{criterion}' needs {what}, got none. Pass them, or choose l2.")
    given = calibration or list
    subject = Subject(model, groups, given, loss or _no_loss, seed, inputs or inputs_on(model, given, seed))
    scorer, l2 = SCORERS[criterion](subject), magnitude.l2(subject)
    return {group.name: _finite(group, scorer, l2) for group in groups}


def inputs_on(model: nn.Module, calibration: Calibration, seed: int) -> LayerInputs:
    """Record what a network's layers receive on the inputs of calibration batches."""
    return LayerInputs(model, lambda: at_least_one(inputs for inputs, _ in calibration()), seed)


def _no_loss(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
    raise AssertionError("a criterion takes a loss without saying so in autoprune.config.criteria.NEEDS")


def _finite(group: DependencyGroup, scorer: Scorer, l2: Scorer) -> torch.Tensor:
    scores = scorer(group)
    found = scores if scores is not None and bool(scores.isfinite().all()) else l2(group)
    if found is None or not bool(found.isfinite().all()):
        raise PruningError(f"the importance of {group.name}'s channels is not finite. Check the network for NaN.")
    return found
