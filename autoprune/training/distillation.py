"""Knowledge distillation: train a network towards the outputs of the dense network."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from autoprune.errors import TaskError
from autoprune.network.call import Inputs
from autoprune.tasks.task import Task
from autoprune.training.precision import Precision
from autoprune.trial import DistillationConfig


@dataclass(frozen=True)
class Distillation:
    """A part of the training loss: the distance from the dense network's outputs for the same, augmented inputs.

    Args:
        dense: The dense network, on the device of the training; left in evaluation mode, its parameters fixed.

    Source:
        Hinton, Vinyals & Dean 2015, Distilling the Knowledge in a Neural Network, section 2.
    """

    dense: nn.Module
    config: DistillationConfig

    def __post_init__(self) -> None:
        self.dense.eval().requires_grad_(requires_grad=False)

    def mixed_loss(
        self, loss: torch.Tensor, outputs: Any, inputs: Inputs, task: Task, precision: Precision, device: torch.device
    ) -> torch.Tensor:
        """Mix the task's loss on a batch with the distance from the dense network's outputs.

        Args:
            loss: Shape ``()``.
            outputs: Of the network that is trained.

        Returns:
            Shape ``()``.

        Raises:
            TaskError: If the task does not say how outputs are compared.
        """
        if task.distillation_loss is None:
            raise TaskError("task.distillation_loss must say how outputs are compared, as task.loss is your own.")
        with torch.no_grad():
            dense_outputs = precision.forward(self.dense, inputs, device)
        distance = task.distillation_loss(outputs, dense_outputs, self.config.temperature)
        return (1 - self.config.weight) * loss + self.config.weight * distance
