"""What a user brings, in one object: the model, the three data splits, the loss and the metric."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import nn

from autoprune.network.call import Inputs

Loss = Callable[[Any, torch.Tensor], torch.Tensor]
"""(outputs, targets) -> mean loss over the batch, a scalar that can be differentiated."""

DistillationLoss = Callable[[Any, Any, float], torch.Tensor]
"""(outputs, dense network's outputs, temperature) -> mean loss over the batch, a scalar that can be differentiated."""

Metric = Callable[[Any, torch.Tensor], Any]
"""(outputs of the whole split, targets of the whole split) -> a number, or a tensor of one element.

One with a method ``start``, as :class:`autoprune.tasks.metrics.Accumulated` has it, is accumulated batch by batch.
"""


class Accumulator(Protocol):
    """A metric of one split, taken in batch by batch."""

    def update(self, outputs: Any, targets: torch.Tensor) -> None:
        """Take in the next examples, on the CPU."""
        ...

    def compute(self) -> float:
        """Return the metric of what was taken in."""
        ...

    def standard_error(self) -> float | None:
        """Return the standard error of the metric; ``None`` where it can't be had."""
        ...


class Split(Protocol):
    """One data split, read by index."""

    def __len__(self) -> int: ...

    def batch(self, indices: torch.Tensor) -> tuple[Inputs, torch.Tensor]:
        """Read examples by index, shape ``(n,)``; returns inputs and targets with first dimension n, on the CPU."""
        ...


@dataclass(frozen=True)
class Data:
    """Train, validation and test; the search reads the first two only."""

    train: Split
    validation: Split
    test: Split


@dataclass(frozen=True)
class Task:
    """A model, its data, and how to judge it.

    Attributes:
        build_model: Builds the network anew with random weights, on the CPU.
        augment: Changes a training batch's inputs; ``None`` leaves them as they are. Gets (inputs, generator).
        distillation_loss: Compares a network's outputs with the dense network's; ``None`` where nothing is known that
            does.
        frozen: ``"keep"`` if what the network froze stays as it is, ``"train"`` if all of it is trained; then the
            networks of ``build_model`` have no frozen parameter.
        load_time_s: How long the data took to load.
    """

    build_model: Callable[[], nn.Module]
    data: Data
    loss: Loss
    metric: Metric
    augment: Callable[[Inputs, torch.Generator], Inputs] | None = None
    distillation_loss: DistillationLoss | None = None
    frozen: Literal["keep", "train"] = "keep"
    load_time_s: float = 0.0

    def example_inputs(self, batch_size: int = 1) -> Inputs:
        """Return the first ``batch_size`` training inputs."""
        return self.data.train.batch(torch.arange(batch_size))[0]
