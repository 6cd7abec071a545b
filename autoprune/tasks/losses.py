"""The losses that a space file can name."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from autoprune.tasks.classification import cross_entropy, logits_of
from autoprune.tasks.resolve import check_signature
from autoprune.tasks.task import Loss


class NamedLoss:
    """A built-in loss with its arguments.

    Attributes:
        name: One of :data:`LOSSES`.
        args: As the space file has them.
    """

    def __init__(self, name: str, args: Mapping[str, Any]) -> None:
        self.name, self.args = name, dict(args)
        self._function = LOSSES[name]

    def __call__(self, outputs: Any, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean loss over the batch."""
        scores = logits_of(outputs)
        args = {
            key: torch.as_tensor(value, dtype=scores.dtype, device=scores.device) if isinstance(value, list) else value
            for key, value in self.args.items()
        }
        return self._function(scores, targets, **args)


def _cross_entropy(
    scores: torch.Tensor,
    targets: torch.Tensor,
    weight: torch.Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    if not targets.is_floating_point():
        targets = targets.long()
        if (targets == ignore_index).all():  # torch's mean over none is NaN
            return scores.sum() * 0.0
    return functional.cross_entropy(
        scores, targets, weight=weight, ignore_index=ignore_index, label_smoothing=label_smoothing
    )


def _nll(
    scores: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor | None = None, ignore_index: int = -100
) -> torch.Tensor:
    targets = targets.long()
    if (targets == ignore_index).all():
        return scores.sum() * 0.0
    return functional.nll_loss(scores, targets, weight=weight, ignore_index=ignore_index)


def _mse(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.mse_loss(scores, targets.to(scores.dtype))


def _l1(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.l1_loss(scores, targets.to(scores.dtype))


def _smooth_l1(scores: torch.Tensor, targets: torch.Tensor, beta: float = 1.0) -> torch.Tensor:
    return functional.smooth_l1_loss(scores, targets.to(scores.dtype), beta=beta)


def _huber(scores: torch.Tensor, targets: torch.Tensor, delta: float = 1.0) -> torch.Tensor:
    return functional.huber_loss(scores, targets.to(scores.dtype), delta=delta)


def _bce_with_logits(
    scores: torch.Tensor,
    targets: torch.Tensor,
    weight: torch.Tensor | None = None,
    pos_weight: torch.Tensor | float | None = None,
) -> torch.Tensor:
    if isinstance(pos_weight, int | float):
        pos_weight = torch.as_tensor(pos_weight, dtype=scores.dtype, device=scores.device)
    targets = targets.to(scores.dtype)
    return functional.binary_cross_entropy_with_logits(scores, targets, weight=weight, pos_weight=pos_weight)


def _bce(scores: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    return functional.binary_cross_entropy(scores, targets.to(scores.dtype), weight=weight)


LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "cross_entropy": _cross_entropy,
    "nll": _nll,
    "bce_with_logits": _bce_with_logits,
    "bce": _bce,
    "mse": _mse,
    "l1": _l1,
    "smooth_l1": _smooth_l1,
    "huber": _huber,
}
"""Name -> (outputs, targets, arguments) -> mean loss; names and arguments are those of ``torch.nn.functional``."""


def make_loss(name: str, args: Mapping[str, Any]) -> Loss:
    """Return a built-in loss.

    Raises:
        TaskError: If it takes no such arguments.
    """
    if name == "cross_entropy" and not args:
        return cross_entropy
    check_signature(LOSSES[name], ("outputs", "targets"), args, f"task.loss: {name}")
    return NamedLoss(name, args)


class ModuleLoss:
    """A loss that is a module, such as ``torch.nn.MSELoss``: it is moved to where the outputs are."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, outputs: Any, targets: torch.Tensor) -> torch.Tensor:
        """Return the module's loss."""
        loss: torch.Tensor = self.module.to(targets.device)(outputs, targets)
        return loss


def tensor_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of one of torch's losses, with lists of numbers, such as ``weight``, as tensors."""
    return {
        key: torch.tensor(value, dtype=torch.float32) if isinstance(value, list) else value
        for key, value in args.items()
    }
