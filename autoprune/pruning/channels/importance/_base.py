"""What the criteria share: what they are given, what they give, and how scores of tensors become scores of channels."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from autoprune.errors import PruningError
from autoprune.network.call import Inputs, to_device
from autoprune.network.device import device_of
from autoprune.pruning.channels.layer_inputs import LayerInputs
from autoprune.pruning.graph import DependencyGroup, TensorDim
from autoprune.tasks.task import Loss

T = TypeVar("T")

Calibration = Callable[[], Iterable[tuple[Inputs, torch.Tensor]]]
"""Gives calibration batches, the same ones at every call."""

DimScores = Callable[[TensorDim], torch.Tensor | None]
"""Scores the indices of a dimension, shape ``(size,)``; ``None`` skips it."""

Scorer = Callable[[DependencyGroup], torch.Tensor | None]
"""Scores a group's channels; ``None`` where the group holds nothing that the criterion looks at."""


@dataclass(frozen=True)
class Subject:
    """What a criterion may look at.

    Attributes:
        groups: The groups that will be scored.
        calibration: Given to the criteria that need data.
        loss: Given to those that need it.
        inputs: What the network's layers receive on the calibration batches.
    """

    model: nn.Module
    groups: Sequence[DependencyGroup]
    calibration: Calibration
    loss: Loss
    seed: int
    inputs: LayerInputs

    def batches(self) -> Iterator[tuple[Inputs, torch.Tensor]]:
        """Yield the calibration batches on the network's device."""
        device = device_of(self.model)
        for inputs, targets in at_least_one(self.calibration()):
            yield to_device(inputs, device), targets.to(device)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the parameters that scale activations: all but biases."""
        return {name: p.detach() for name, p in self.model.named_parameters() if not name.endswith("bias")}


def at_least_one(batches: Iterable[T]) -> Iterator[T]:
    """Yield the batches; raises PruningError if there are none."""
    empty = True
    for batch in batches:
        empty = False
        yield batch
    if empty:
        raise PruningError("there must be at least one calibration batch, got none. Enlarge the training split.")


def mean_over(group: DependencyGroup, tensor_dims: Iterable[TensorDim], score: DimScores) -> torch.Tensor | None:
    """Average a score over tensor dimensions; of the several indices of a channel in one of them, the mean counts."""
    found: list[torch.Tensor] = []
    for tensor_dim in tensor_dims:
        scores = score(tensor_dim)
        if scores is not None:
            indices = torch.from_numpy(group.members[tensor_dim])
            found.append(scores.detach().double().cpu()[indices].mean(1))
    return torch.stack(found).mean(0) if found else None


def summed(weights: Mapping[str, torch.Tensor], tensor_dim: TensorDim, p: int) -> torch.Tensor | None:
    """Sum of absolute (``p`` 1) or squared (2) weights of each index of a dimension."""
    name, dim = tensor_dim
    if name not in weights:
        return None
    weight = weights[name]
    exact = weight if weight.dtype in (torch.float32, torch.float64) else weight.float()
    others = [other for other in range(weight.dim()) if other != dim]
    powers = exact.abs() if p == 1 else exact.square()
    return powers.sum(others, dtype=torch.float64) if others else powers.double()
