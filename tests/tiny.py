"""A tiny task on real data and its space file: a trial of it takes milliseconds."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import yaml

from autoprune.cost import measure
from autoprune.search.prepare import PreparedStudy, prepare_study
from autoprune.search.resources import WorkerResources
from autoprune.search.validate import read_space, validate_space
from autoprune.study.dense_reference import DenseReference
from autoprune.study.folder import StudyFolder
from autoprune.trial import Cost, Latency

TINY_TASK = '''
"""A residual network of 8 channels on 200 handwritten digits."""

from collections import OrderedDict

import torch
from sklearn.datasets import load_digits
from torch import nn

torch.set_num_threads(1)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


def net():
    layers = [
        ("stem", nn.Conv2d(1, 8, 3, padding=1, bias=False)),
        ("bn", nn.BatchNorm2d(8)),
        ("relu", nn.ReLU()),
        ("pool", nn.MaxPool2d(2)),
        ("block1", Block(8)),
        ("block2", Block(8)),
        ("flatten", nn.Flatten()),
        ("drop", nn.Dropout(0.1)),
        ("head", nn.Linear(128, 10)),
    ]
    return nn.Sequential(OrderedDict(layers))


class CountingSplit:
    def __init__(self, inputs, targets):
        self.inputs, self.targets, self.n_read = inputs, targets, 0

    def __len__(self):
        return len(self.targets)

    def batch(self, indices):
        if len(indices) > 1:  # one by one, examples are read to see that they are the study's
            self.n_read += len(indices)
        return self.inputs[indices], self.targets[indices]


def data():
    digits = load_digits()
    inputs = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
    targets = torch.tensor(digits.target)
    parts = {"train": (0, 200), "validation": (200, 350), "test": (350, 500)}
    return {name: CountingSplit(inputs[a:b], targets[a:b]) for name, (a, b) in parts.items()}
'''

TINY_SPACE: dict[str, Any] = {
    "study": "tiny",
    "task": {"model": "tiny_task:net", "data": "tiny_task:data"},
    "objectives": ["accuracy", "flops"],
    "dense": {"epochs": 8, "lr_schedule": {"kind": "one_cycle", "lr": 0.05}, "batch_size": 32},
    "training": {
        "epochs": 2,
        "optimizer": {"name": "sgd", "momentum": 0.9},
        "lr_schedule": [
            {"kind": "constant", "lr": {"low": 0.01, "high": 0.1, "log": True}},
            {"kind": "cosine", "lr": {"low": 0.01, "high": 0.1, "log": True}},
        ],
        "batch_size_schedule": {"kind": "constant", "size": [32, 50]},
        "recalibration_examples": 128,
    },
    "pruning": [
        {"method": "neuron", "criterion": "l2", "ratio": {"low": 0.0, "high": 0.8}},
        {"method": "layer", "ratio": {"low": 0.0, "high": 0.5}},
        {"method": "weight", "ratio": {"low": 0.0, "high": 0.8}},
    ],
    "search": {"trials": 6, "sampler": "random", "seed": 0, "ladder": 2},
    "resources": {"workers": 2},
}


ONE_THREAD = WorkerResources(workers=2, threads=1, gpus_per_trial=0.0, device=torch.device("cpu"))


def dense_reference(metric: float, cost: Cost) -> DenseReference:
    """A dense network of this metric and cost, as if it had been measured."""
    return DenseReference(metric, 1.0, cost, Latency(cost.latency_ms or 1.0, "cpu", 1, 1, 20))


def merged(base: Any, changes: Any) -> Any:
    """``changes`` laid over ``base``, mapping by mapping; ``None`` removes a key."""
    if not (isinstance(base, dict) and isinstance(changes, dict)):
        return changes
    both = {key: merged(base.get(key), value) for key, value in changes.items()}
    return {key: value for key, value in {**base, **both}.items() if value is not None}


def write_space(folder: Path, changes: dict[str, Any], task: str = TINY_TASK) -> Path:
    """Write the tiny task, and its space file with some changes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny_task.py").write_text(task)
    space = folder / "space.yaml"
    space.write_text(yaml.safe_dump(merged(TINY_SPACE, changes), sort_keys=False))
    return space


def copy_study(trained: Path, root: Path, changes: dict[str, Any], task: str = TINY_TASK) -> Path:
    """Make a study whose dense and plan stages are done, from one trained before; returns its space file."""
    space = write_space(root, changes, task)
    folder = tiny_folder(root)
    folder.create()
    shutil.copytree(trained / "dense", folder.dense, dirs_exist_ok=True)
    shutil.copy(trained / "plan.json", folder.plan)
    return space


def tiny_folder(root: Path) -> StudyFolder:
    """The folder of the tiny study that is searched from ``root``."""
    return StudyFolder(root / "results" / "tiny")


def prepare_tiny(space: Path, folder: StudyFolder, places: WorkerResources = ONE_THREAD) -> PreparedStudy:
    """Make a study ready for trials."""
    return prepare_study(validate_space(read_space(space), folder.plan), folder, places)


def train_tiny(root: Path) -> None:
    """Train the dense network and find what can be pruned."""
    prepare_tiny(write_space(root, {}), tiny_folder(root))


@contextmanager
def brief_latencies() -> Iterator[None]:
    """In this process, let a latency be the median of a few runs only, so that a trial takes milliseconds."""
    measured, few = measure.measure_latency, {"min_runs": 3, "max_seconds": 0.0}
    with mock.patch.object(measure, "measure_latency", lambda *args, **kwargs: measured(*args, **kwargs | few)):
        yield
