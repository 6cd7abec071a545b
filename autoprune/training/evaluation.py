"""Judging a network on one data split."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from autoprune.errors import TaskError
from autoprune.tasks.forward import call_model, to_device
from autoprune.tasks.modes import eval_mode
from autoprune.tasks.task import Split, Task

CPU_BATCH = 64
"""Examples in one forward pass on a CPU: 512 take 1.2 to 3 times as long an example for the networks of the zoo."""

GPU_BATCH = 512
"""The same on a GPU."""


@dataclass(frozen=True)
class Evaluation:
    """How good a network is on one split.

    Attributes:
        accuracy: The task's metric, computed once over the whole split.
        loss: Mean loss over the examples.
    """

    accuracy: float
    loss: float


@torch.no_grad()
def evaluate(
    model: nn.Module, split: Split, task: Task, device: torch.device | str = "cpu", batch_size: int | None = None
) -> Evaluation:
    """Run the network over a split in evaluation mode.

    The loss is computed batch by batch on ``device``; the metric once, on the CPU, over the outputs and targets of the
    whole split.

    Args:
        model: On ``device``. Its modules' modes are the same afterwards.
        batch_size: Examples in one forward pass; does not change the result beyond float rounding. ``None`` is
            ``CPU_BATCH`` or ``GPU_BATCH``.

    Raises:
        TaskError: If the split is empty, or the outputs of its batches can't be joined.
    """
    n_examples = len(split)
    if n_examples == 0:
        raise TaskError("task.data: a split to evaluate on must have examples, got an empty one.")
    if batch_size is None:
        batch_size = CPU_BATCH if torch.device(device).type == "cpu" else GPU_BATCH
    outputs, targets, total_loss = [], [], 0.0
    with eval_mode(model):
        for indices in torch.split(torch.arange(n_examples), batch_size):
            inputs, target = split.batch(indices)
            output = call_model(model, to_device(inputs, device))
            total_loss += float(task.loss(output, target.to(device))) * len(indices)
            outputs.append(to_device(output, "cpu"))
            targets.append(target)
    accuracy = float(task.metric(tree_map(_join, *outputs), torch.cat(targets)))
    return Evaluation(accuracy=accuracy, loss=total_loss / n_examples)


def _join(first: Any, *rest: Any) -> Any:
    """Concatenate one output over the batches; what has no batch dimension stays as the first batch gave it."""
    if not isinstance(first, torch.Tensor) or first.dim() == 0:
        return first
    try:
        return torch.cat([first, *rest])
    except RuntimeError as error:
        raise TaskError(
            f"task.model: outputs must have the same shape for every example of a split, got {error} "
            "Pad the inputs of a split to one length."
        ) from error
