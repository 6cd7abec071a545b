"""The default loss and metric: cross-entropy and top-1 accuracy."""

from typing import Any

import torch
from torch.nn import functional

from autoprune.errors import TaskError


def logits_of(outputs: Any) -> torch.Tensor:
    """The class scores in a network's outputs: the tensor itself, or its ``logits`` attribute.

    Raises:
        TaskError: If the outputs are neither.
    """
    logits = getattr(outputs, "logits", outputs)
    if not isinstance(logits, torch.Tensor):
        raise TaskError(
            f"the default loss and metric need a network that returns a tensor or an object with .logits, got "
            f"{type(outputs).__name__}. Name your own under task.loss and task.metric."
        )
    return logits


def cross_entropy(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over the batch.

    Args:
        outputs: Class scores, shape ``(n, n_classes, ...)``, or an object that has them as ``logits``.
        targets: Class indices, shape ``(n, ...)``, or class probabilities of the scores' shape.
    """
    return functional.cross_entropy(logits_of(outputs), targets if targets.is_floating_point() else targets.long())


def accuracy(outputs: Any, targets: torch.Tensor) -> float:
    """Share of targets that have the highest score, in [0, 1].

    Args:
        outputs: Class scores, shape ``(n, n_classes, ...)``, or an object that has them as ``logits``.
        targets: Class indices, shape ``(n, ...)``, or class probabilities of the scores' shape: the likeliest class
            is then the target.
    """
    classes = targets.argmax(dim=1) if targets.is_floating_point() else targets
    return float((logits_of(outputs).argmax(dim=1) == classes).float().mean())
