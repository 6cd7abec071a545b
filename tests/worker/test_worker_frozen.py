"""What a network froze stays as it was, to the bit, through a study's whole life; channels may leave."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import prepare_tiny, tiny_folder, write_space
from torch import nn
from worker_trials import dropped_after, finished, trial

from autoprune.formats.saved_model import load_model
from autoprune.trial import DistillationConfig, OptimizerConfig, PruningConfig
from autoprune.worker import Worker

FROZEN_TASK = '''
"""Digits, by a network of which most is frozen, in the ways that people freeze."""

import torch
from sklearn.datasets import load_digits
from torch import nn


class Fixed(nn.Module):
    """A norm of buffers only, as detection networks have it."""

    def __init__(self, width):
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(width) + 0.5)

    def forward(self, x):
        scale = (self.weight / (self.running_var + 1e-5).sqrt()).reshape(1, -1, 1, 1)
        return x * scale + self.bias.reshape(1, -1, 1, 1) - self.running_mean.reshape(1, -1, 1, 1) * scale


class OwnNorm(nn.Module):
    """Has running statistics, and moves them in training mode."""

    def __init__(self, width):
        super().__init__()
        self.register_buffer("running_mean", torch.rand(width))

    def forward(self, x):
        if self.training:
            self.running_mean += 0.1 * (x.detach().mean((0, 2, 3)) - self.running_mean)
        return x - self.running_mean.reshape(1, -1, 1, 1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), OwnNorm(8)
        )
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 3), Fixed(8), nn.BatchNorm2d(8, momentum=0.0))
        self.neck = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 10)
        with torch.no_grad():
            self.stem[1].running_mean += 0.3
            self.body[3].running_var += 0.7
        self.stem.requires_grad_(False)
        self.body[1].weight.requires_grad_(False)

    def train(self, mode=True):
        super().train(mode)
        self.stem.eval()
        return self

    def forward(self, x):
        return self.head(self.neck(self.body(self.stem(x))).mean((2, 3)))


def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Net()


def data():
    digits = load_digits()
    inputs = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
    targets = torch.tensor(digits.target)
    parts = {"train": slice(0, 200), "validation": slice(200, 350), "test": slice(350, 500)}
    return {name: (inputs[part], targets[part]) for name, part in parts.items()}
'''
LEFT = [
    ("stem.0.weight", ("stem.0", None)),
    ("stem.0.bias", ("stem.0",)),
    ("stem.1.weight", ("stem.0",)),
    ("stem.1.running_mean", ("stem.0",)),
    ("stem.1.running_var", ("stem.0",)),
    ("stem.3.weight", ("stem.3", "stem.0")),
    ("stem.4.running_mean", ("stem.3",)),
    ("body.1.weight", ("body.1", "stem.3")),
    ("body.2.weight", ("body.1",)),
    ("body.2.running_mean", ("body.1",)),
    ("body.3.running_var", ("body.1",)),
]
"""Frozen tensors, and for each dimension the group whose channels it holds."""
MOVED = ("body.1.bias", "body.3.weight", "neck.1.running_mean", "head.weight")
PRUNING = PruningConfig(
    widths={"stem.0": 5, "stem.3": 6, "body.1": 7},
    criterion="taylor",
    reconstruct=True,
    weight_ratios={"stem.3.weight": 0.5, "body.1.weight": 0.5, "head.weight": 0.5},
)


def frozen_study(root: Path, task: dict[str, Any]) -> Worker:
    space = write_space(
        root,
        {
            "task": {**task},
            "dense": {"epochs": 1, "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 0.1}},
        },
        FROZEN_TASK,
    )
    return Worker(prepare_tiny(space, tiny_folder(root)).folder)


def kept(before: nn.Module, after: nn.Module) -> dict[str | None, torch.Tensor]:
    """Find by the frozen biases which channels each group has kept."""

    def places(name: str) -> torch.Tensor:
        rows = (before.get_parameter(name)[None] == after.get_parameter(name)[:, None]).int()
        assert rows.sum(1).eq(1).all(), name
        return rows.argmax(1)

    found: dict[str | None, torch.Tensor] = {group: places(f"{group}.bias") for group in ("stem.0", "stem.3")}
    fixed = before.get_buffer("body.2.bias")[None] == after.get_buffer("body.2.bias")[:, None]
    assert fixed.sum(1).eq(1).all()
    return found | {"body.1": fixed.int().argmax(1)}


def assert_frozen_parts_left(before: nn.Module, after: nn.Module) -> None:
    channels = kept(before, after)
    old, new = before.state_dict(), after.state_dict()
    for name, groups in LEFT:
        expected = old[name]
        for dim, group in enumerate(groups):
            expected = expected if group is None else expected.index_select(dim, channels[group])
        assert torch.equal(new[name], expected), name
    assert not after.get_parameter("stem.3.weight").requires_grad
    assert not after.get_parameter("body.1.weight").requires_grad
    assert after.get_parameter("body.1.bias").requires_grad


@pytest.mark.usefixtures("brief_latency")
def test_frozen_parts_stay_to_the_bit_along_a_lineage(tmp_path: Path) -> None:
    worker = frozen_study(tmp_path, {})
    fresh = worker.task.build_model()
    dense = load_model(worker.folder.dense, worker.task.build_model)
    assert_frozen_parts_left(fresh, dense)
    for name in MOVED:
        assert not torch.equal(dense.state_dict()[name], fresh.state_dict()[name]), name

    decaying = {"optimizer": OptimizerConfig("adamw", {"weight_decay": 0.1}), "lr": 0.01}
    result, first = finished(worker, trial(PRUNING, distillation=DistillationConfig(0.5), **decaying))
    assert result.kept == {"stem.0": 5, "stem.3": 6, "body.1": 7}
    assert set(result.left_dense) == {"stem.3.weight", "body.1.weight"}
    assert (first.head.weight == 0).float().mean() == pytest.approx(0.5, abs=0.01)
    assert_frozen_parts_left(fresh, first)

    gradual = PruningConfig(widths={"stem.0": 3, "stem.3": 4, "body.1": 4}, gradual_share=0.6, reconstruct=True)
    child = trial(gradual, number=1, parent=0, **decaying)
    dropped_after(worker.run(child), 2)  # goes on from its second epoch's checkpoint
    _, second = finished(worker, child)
    assert_frozen_parts_left(fresh, second)


@pytest.mark.usefixtures("brief_latency")
def test_one_switch_trains_all(tmp_path: Path) -> None:
    worker = frozen_study(tmp_path, {"frozen": "train"})
    fresh = worker.task.build_model()
    assert all(parameter.requires_grad for parameter in fresh.parameters())
    result, model = finished(worker, trial(PruningConfig(weight_ratios={"stem.3.weight": 0.5}), lr=0.01))
    assert result.left_dense == ()
    assert (model.stem[3].weight == 0).float().mean() == 0.5
    for name in ("stem.0.weight", "stem.1.running_mean", "body.1.weight", "body.3.running_var"):
        assert not torch.equal(model.state_dict()[name], fresh.state_dict()[name]), name
