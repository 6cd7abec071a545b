"""The default losses and metric: cross-entropy, that of soft targets, and top-1 accuracy."""

from typing import Any

import torch
from torch.nn import functional

from autoprune.errors import TaskError
from autoprune.tasks.metrics import ExampleMean, Values


def logits_of(outputs: Any) -> torch.Tensor:
    """Return the class scores in a network's outputs: the tensor itself, or its ``logits`` attribute.

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
    """Average the cross-entropy over the batch.

    Args:
        outputs: Class scores, shape ``(n, n_classes, ...)``, or an object that has them as ``logits``.
        targets: Class indices, shape ``(n, ...)``, or class probabilities of the scores' shape.
    """
    return functional.cross_entropy(logits_of(outputs), targets if targets.is_floating_point() else targets.long())


def soft_target_loss(outputs: Any, dense_outputs: Any, temperature: float) -> torch.Tensor:
    """Average the Kullback-Leibler divergence from the dense network's class probabilities over the batch.

    Class scores are divided by the temperature first, and the divergence is multiplied by its square, so that its
    gradient is about as large at any temperature.

    Args:
        outputs, dense_outputs: Class scores, shape ``(n, n_classes, ...)``, or objects that have them as ``logits``.

    Source:
        Hinton, Vinyals & Dean 2015, Distilling the Knowledge in a Neural Network, section 2.
    """
    log_probabilities, wanted = (
        functional.log_softmax(logits_of(each) / temperature, dim=1) for each in (outputs, dense_outputs)
    )
    divergences = functional.kl_div(log_probabilities, wanted, reduction="none", log_target=True).sum(dim=1)
    return temperature**2 * divergences.mean()


def hits(outputs: Any, targets: torch.Tensor, top_k: int = 1, ignore_index: int | None = None) -> Values:
    """Tell which targets are among the highest scores.

    Args:
        outputs: Class scores, shape ``(n, n_classes, ...)``, or an object that has them as ``logits``.
        targets: Class indices, shape ``(n, ...)``, or class probabilities of the scores' shape: the likeliest class
            is then the target.
        top_k: How many of the highest scores a target may be among.
        ignore_index: Target of elements that don't count.
    """
    logits = logits_of(outputs)
    classes = targets.argmax(dim=1) if targets.is_floating_point() else targets
    found = logits.argmax(dim=1) == classes
    if top_k > 1:
        found = (logits.topk(min(top_k, logits.shape[1]), dim=1).indices == classes.unsqueeze(1)).any(dim=1)
    return found, None if ignore_index is None else classes != ignore_index


accuracy = ExampleMean(hits)
"""The share of targets that have the highest score, in [0, 1]; arguments as :func:`hits` takes them."""
