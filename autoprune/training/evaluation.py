"""Evaluate a network on one data split."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from autoprune.errors import TaskError
from autoprune.network.call import to_device
from autoprune.network.modes import eval_mode
from autoprune.network.outputs import map_outputs
from autoprune.tasks.metrics import start
from autoprune.tasks.task import Split, Task
from autoprune.training.memory import find_executable_batch_size
from autoprune.training.precision import FLOAT32, Precision

CPU_BATCH = 64
"""Examples in one forward pass on a CPU: 512 take 1.2 to 3 times as long an example for the networks of the zoo."""

GPU_BATCH = 512
"""The same on a GPU."""


@dataclass(frozen=True)
class Evaluation:
    """Metric and loss of a network on one split.

    Attributes:
        metric: The task's metric, over the whole split.
        loss: Mean loss over the examples.
        batch_size: Most examples in one forward pass, as asked for, or fewer where the device's memory was not enough.
        standard_error: Of the metric, from the number of examples; ``None`` where it was not asked for or can't be had.
    """

    metric: float
    loss: float
    batch_size: int = field(compare=False)
    standard_error: float | None = None

    def check_finite(self, split: str, when: str) -> "Evaluation":
        """Return this evaluation.

        Args:
            split: Name of the split, for the message.
            when: Such as ``"after epoch 3"``.

        Raises:
            TaskError: If the metric or the loss is NaN or infinite.
        """
        for what, value in (("metric", self.metric), ("loss", self.loss)):
            if not math.isfinite(value):
                raise TaskError(
                    f"the {what} must be finite, got {value} on the {split} split {when}. Mend task.{what}, an "
                    "example that is not finite, or what makes the network diverge."
                )
        return self


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Split,
    task: Task,
    device: torch.device | str = "cpu",
    batch_size: int | None = None,
    precision: Precision = FLOAT32,
    *,
    with_error: bool = False,
) -> Evaluation:
    """Run the network over a split in evaluation mode.

    The loss is computed batch by batch on ``device``; the metric on the CPU, batch by batch if it accumulates, else
    once over the outputs and targets of the whole split.

    Args:
        model: On ``device``. Its modules' modes are the same afterwards.
        batch_size: Examples in one forward pass; does not change the result beyond float rounding. ``None`` is
            ``CPU_BATCH`` or ``GPU_BATCH``. Where the device's memory is not enough, half of it from there on.

        with_error: Whether the metric's standard error is wanted too.

    Raises:
        OutOfDeviceMemory: If a single example is too much for the device.
        TaskError: If the split is empty, or the outputs of its batches can't be joined.
    """
    n_examples = len(split)
    if n_examples == 0:
        raise TaskError("task.data: a split to evaluate on must have examples, got an empty one.")
    if batch_size is None:
        batch_size = CPU_BATCH if torch.device(device).type == "cpu" else GPU_BATCH
    accumulator = start(task.metric, n_examples, with_error=with_error)
    total_loss, n_done = 0.0, 0

    def judge(n_at_once: int) -> tuple[Any, torch.Tensor, float]:
        inputs, target = split.batch(torch.arange(n_done, min(n_done + n_at_once, n_examples)))
        output = precision.forward(model, inputs, device)
        loss = float(task.loss(output, to_device(target, device)))
        return map_outputs(torch.Tensor.cpu, output, lambda cache: None), target, loss

    with eval_mode(model):
        while n_done < n_examples:
            n_asked = min(batch_size, n_examples - n_done)
            (output, target, loss), n_judged = find_executable_batch_size(judge, n_asked, device, "evaluation")
            batch_size = n_judged if n_judged < n_asked else batch_size
            n_done, total_loss = n_done + n_judged, total_loss + loss * n_judged
            accumulator.update(output, target)
    return Evaluation(
        metric=accumulator.compute(),
        loss=total_loss / n_examples,
        batch_size=batch_size,
        standard_error=accumulator.standard_error() if with_error else None,
    )
