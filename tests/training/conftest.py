"""Real digits in memory, and the small networks that the training tests use."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from autoprune.tasks.task import Data, Task
from autoprune.trial import OptimizerConfig, ScheduleConfig

torch.set_num_threads(1)


@dataclass
class ArraySplit:
    """Examples in memory that remember in which batches they were asked for."""

    inputs: torch.Tensor
    targets: torch.Tensor
    asked: list[torch.Tensor] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, indices: torch.Tensor) -> tuple[Any, torch.Tensor]:
        self.asked.append(indices)
        return self.inputs[indices], self.targets[indices]


def accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    return float((outputs.argmax(1) == targets).float().mean())


def build_mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.0), nn.Linear(32, 10))


@pytest.fixture
def mlp() -> nn.Sequential:
    return build_mlp()


@pytest.fixture
def noise() -> Callable[[torch.Tensor, torch.Generator], torch.Tensor]:
    """An augmentation."""
    return lambda inputs, generator: inputs + 0.1 * torch.randn(inputs.shape, generator=generator)


@pytest.fixture
def cnn() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


@pytest.fixture
def make_task() -> Callable[..., Task]:
    digits = load_digits()
    inputs = torch.tensor(digits.data / 16, dtype=torch.float32)
    targets = torch.tensor(digits.target)

    def make(
        n_train: int = 1297, build_model: Callable[[], nn.Module] = build_mlp, augment: Callable[..., Any] | None = None
    ) -> Task:
        train = ArraySplit(inputs[:n_train], targets[:n_train])
        held_out = ArraySplit(inputs[1297:], targets[1297:])
        return Task(build_model, Data(train, held_out, held_out), functional.cross_entropy, accuracy, augment)

    return make


@pytest.fixture
def settings() -> dict[str, Any]:
    """Trainer arguments to start from."""
    return {
        "optimizer": OptimizerConfig("sgd", {"momentum": 0.9}),
        "lr_schedule": ScheduleConfig("cosine", {"lr": 0.05, "warmup": 0.1}),
        "batch_size_schedule": ScheduleConfig("constant", {"size": 32}),
        "epochs": 4,
        "seed": 3,
    }
