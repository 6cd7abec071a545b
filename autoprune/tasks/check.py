"""Does a task hold together? One forward pass tells before a search is begun."""

import math
from typing import Any

import torch

from autoprune.errors import TaskError
from autoprune.tasks.classification import cross_entropy, logits_of
from autoprune.tasks.forward import call_model
from autoprune.tasks.task import Data, Task


def check_task(task: Task) -> None:
    """Run the freshly built network on two training examples and judge them by the loss and the metric.

    With the default loss, the classes in the data must be as many as the network's outputs.

    Raises:
        TaskError: If a part doesn't fit the others.
    """
    model = task.build_model().eval()
    inputs, targets = task.data.train.batch(torch.arange(min(2, len(task.data.train))))
    with torch.no_grad():
        outputs = _run("the model, on two training examples,", lambda: call_model(model, inputs))
        if task.loss is cross_entropy:
            _check_classes(task.data, logits_of(outputs))
        loss = _run("the loss", lambda: task.loss(outputs, targets))
        metric = _run("the metric", lambda: task.metric(outputs, targets))
        if task.augment is not None:
            augment, generator = task.augment, torch.Generator().manual_seed(0)
            _run("the augmentation", lambda: augment(inputs, generator))
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or loss.ndim != 0:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else f"a {type(loss).__name__}"
        raise TaskError(f"task.loss must return a tensor of shape (), got {got}.")
    if not math.isfinite(loss.item()):
        raise TaskError(f"task.loss must be finite on the untrained network, got {loss.item()}.")
    if not isinstance(metric, float | int):
        raise TaskError(f"task.metric must return a float, got a {type(metric).__name__}. Wrap it in float().")
    if not math.isfinite(metric):
        raise TaskError(f"task.metric must be finite, got {metric}.")


def count_classes(data: Data) -> int | None:
    """The number of classes in the data: the splits' highest target plus one; ``None`` if targets are no integers.

    A dataset that keeps no targets in memory is sampled.

    Raises:
        TaskError: If a target is negative.
    """
    highest = -1
    for name in ("train", "validation", "test"):
        split = getattr(data, name)
        targets = getattr(split, "targets", None)
        if not isinstance(targets, torch.Tensor):
            targets = split.batch(torch.arange(min(len(split), 2000)))[1]
        if targets.is_floating_point():
            return None
        if int(targets.min()) < 0:
            raise TaskError(
                f"targets in the {name} split must be class indices from 0, got {int(targets.min())}. Number "
                f"the classes from 0."
            )
        highest = max(highest, int(targets.max()))
    return highest + 1


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


def _run(what: str, function: Any) -> Any:
    try:
        return function()
    except TaskError:
        raise
    except Exception as error:
        raise TaskError(f"{what} raised {type(error).__name__}: {error}") from error
