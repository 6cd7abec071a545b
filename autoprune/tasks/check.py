"""Does a task hold together? One forward pass tells before a search is begun."""

import math
from typing import Any

import torch
from torch import nn

from autoprune.errors import TaskError
from autoprune.network.call import Inputs, call_model
from autoprune.network.modes import eval_mode
from autoprune.tasks.classification import accuracy, cross_entropy, logits_of
from autoprune.tasks.splits import NamedSplit, spread_indices
from autoprune.tasks.task import Data, Split, Task
from autoprune.trial import DistillationConfig

N_EXAMPLES = 3
"""Examples of each split that are run: not 1 or 2, which a wrong shape might be broadcast over by luck."""
N_SAMPLED = 2000
"""Examples whose targets are read to count the classes, where a split keeps no targets in memory."""
N_COMPARED = 8
"""Examples that are read to see whether the targets in memory are theirs."""


def check_task(task: Task, model: nn.Module) -> None:
    """Run the network on a few training examples and judge them by the loss and the metric.

    With the default loss, the classes in the data must be as many as the network's outputs. The test split is not read.

    Args:
        model: The network, as the task builds it; its mode stays as it is.

    Raises:
        TaskError: If a part doesn't fit the others, or an example can't be read.
    """
    inputs, targets = _read(task.data, "train", torch.arange(min(N_EXAMPLES, len(task.data.train))))
    _read(task.data, "validation", torch.arange(min(N_EXAMPLES, len(task.data.validation))))
    with torch.no_grad(), eval_mode(model):
        outputs = _run(f"the model, on {len(targets)} training examples,", lambda: call_model(model, inputs))
        if targets.is_floating_point() and (task.loss is cross_entropy or task.metric is accuracy):
            _check_probabilities(targets, logits_of(outputs), normalised=task.loss is cross_entropy)
        elif task.loss is cross_entropy:
            _check_classes(task.data, logits_of(outputs))
        losses = {"task.loss": _run("the loss", lambda: task.loss(outputs, targets))}
        if task.distillation_loss is not None:
            compare = task.distillation_loss
            distilled = _run(
                "the distillation loss", lambda: compare(outputs, outputs, DistillationConfig().temperature)
            )
            losses["task.distillation_loss"] = distilled
        metric = _run("the metric", lambda: task.metric(outputs, targets))
        if task.augment is not None:
            augment, generator = task.augment, torch.Generator().manual_seed(0)
            _run("the augmentation", lambda: augment(inputs, generator))
    for name, loss in losses.items():
        _check_loss(name, loss)
    if not isinstance(metric, float | int):
        raise TaskError(f"task.metric must return a float, got a {type(metric).__name__}. Wrap it in float().")
    if not math.isfinite(metric):
        raise TaskError(f"task.metric must be finite, got {metric}.")


def _check_loss(name: str, loss: Any) -> None:
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or loss.ndim != 0:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else f"a {type(loss).__name__}"
        raise TaskError(f"{name} must return a tensor of shape (), got {got}.")
    if not math.isfinite(loss.item()):
        raise TaskError(f"{name} must be finite on the untrained network, got {loss.item()}.")


def count_classes(data: Data) -> int | None:
    """Count the classes in train and validation: the highest target plus one; ``None`` if targets are no integers.

    A split that keeps no targets in memory is sampled, evenly.

    Raises:
        TaskError: If a target is negative, or an example can't be read.
    """
    highest = -1
    for name in ("train", "validation"):
        split = getattr(data, name)
        targets = getattr(split, "targets", None)
        if not isinstance(targets, torch.Tensor) or not _as_read(data, name, targets):
            targets = _read(data, name, spread_indices(len(split), N_SAMPLED))[1]
        if targets.is_floating_point():
            return None
        if int(targets.min()) < 0:
            raise TaskError(
                f"targets in the {name} split must be class indices from 0, got {int(targets.min())}. Number "
                f"the classes from 0."
            )
        highest = max(highest, int(targets.max()))
    return highest + 1


def _as_read(data: Data, name: str, targets: torch.Tensor) -> bool:
    """Whether the targets that a split keeps in memory are those of the examples, as far as a few of them show."""
    indices = spread_indices(len(targets), N_COMPARED)
    return len(targets) == len(getattr(data, name)) and torch.equal(
        targets[indices].float(), _read(data, name, indices)[1].float()
    )


def _check_classes(data: Data, logits: torch.Tensor) -> None:
    n_classes = count_classes(data)
    if n_classes is None:
        return
    if logits.ndim < 2:
        raise TaskError(
            f"the default loss needs outputs of shape (n, n_classes), got {tuple(logits.shape)}. Name your own "
            f"under task.loss."
        )
    if logits.shape[1] != n_classes:
        raise TaskError(
            f"data has {n_classes} classes, model has {logits.shape[1]} outputs. Set the model's number of classes "
            f"under task.model, or name your own loss under task.loss."
        )


def _check_probabilities(targets: torch.Tensor, logits: torch.Tensor, *, normalised: bool) -> None:
    way_out = "Or name your own task.loss and task.metric."
    if targets.shape != logits.shape or logits.ndim < 2 or logits.shape[1] < 2:
        raise TaskError(
            f"targets are floats of shape {tuple(targets.shape)}, outputs have shape {tuple(logits.shape)}: the "
            f"default loss and metric take class indices (whole numbers), or class probabilities of the outputs' shape "
            f"with 2 or more columns. {way_out}"
        )
    sums = targets.sum(dim=1)
    if normalised and (targets.min() < 0 or not torch.allclose(sums, torch.ones_like(sums), atol=0.01)):
        raise TaskError(
            f"targets are floats of shape {tuple(targets.shape)}, which the default loss takes as class probabilities: "
            f"they must be 0 or more and add up to 1 for each example. {way_out}"
        )


def _read(data: Data, name: str, indices: torch.Tensor) -> tuple[Inputs, torch.Tensor]:
    split: Split = getattr(data, name)
    return (split if isinstance(split, NamedSplit) else NamedSplit(split, name)).batch(indices)


def _run(what: str, function: Any) -> Any:
    try:
        return function()
    except TaskError:
        raise
    except (Exception, SystemExit) as error:
        raise TaskError(f"{what} raised {type(error).__name__}: {error}") from error
