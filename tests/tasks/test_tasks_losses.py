"""Built-in losses by name, against torch's own, and loss classes of torch that are made instances."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from autoprune.config.task import LOSSES as NAMES
from autoprune.config.task import TaskSettings
from autoprune.errors import TaskError
from autoprune.tasks.build import build_task
from autoprune.tasks.losses import LOSSES, make_loss
from autoprune.tasks.task import Loss

TASK = """
import torch
from torch import nn


def net():
    return nn.Linear(4, 3)


def data():
    split = torch.randn(9, 4), torch.arange(9) % 3
    return {"train": split, "validation": split, "test": split}


class NoLoss:
    pass
"""


def loss_of(tmp_path: Path, loss: Any) -> Loss:
    (tmp_path / "own_losses.py").write_text(TASK)
    settings = {"model": "own_losses:net", "data": "own_losses:data", "loss": loss}
    return build_task(TaskSettings.model_validate(settings), tmp_path).loss


SCORES, CLASSES = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1, 0, 2])
WEIGHT = [1.0, 2.0, 0.5]


@pytest.mark.parametrize(
    ("loss", "targets", "expected"),
    [
        ("cross_entropy", CLASSES, nn.CrossEntropyLoss()),
        (
            {"name": "cross_entropy", "args": {"weight": WEIGHT, "label_smoothing": 0.1, "ignore_index": 1}},
            CLASSES.int(),
            nn.CrossEntropyLoss(torch.tensor(WEIGHT), label_smoothing=0.1, ignore_index=1),
        ),
        ({"name": "nll", "args": {"ignore_index": 2}}, CLASSES, nn.NLLLoss(ignore_index=2)),
        ("mse", SCORES.flip(0), nn.MSELoss()),
        ("l1", SCORES.flip(0), nn.L1Loss()),
        ({"name": "smooth_l1", "args": {"beta": 0.5}}, SCORES.flip(0), nn.SmoothL1Loss(beta=0.5)),
        ({"name": "huber", "args": {"delta": 0.5}}, SCORES.flip(0), nn.HuberLoss(delta=0.5)),
        (
            {"name": "bce_with_logits", "args": {"pos_weight": 3}},
            (SCORES > 0).long(),
            lambda o, t: functional.binary_cross_entropy_with_logits(o, t.float(), pos_weight=torch.tensor(3.0)),
        ),
        (
            {"callable": "torch.nn:CrossEntropyLoss", "args": {"weight": WEIGHT}},
            CLASSES,
            nn.CrossEntropyLoss(torch.tensor(WEIGHT)),
        ),
        ("torch.nn:MSELoss", SCORES.flip(0), nn.MSELoss()),
        ("torch.nn.functional:smooth_l1_loss", SCORES.flip(0), nn.SmoothL1Loss()),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.get("name")) if isinstance(value, dict) else "",
)
def test_a_loss_is_torchs(tmp_path: Path, loss: Any, targets: torch.Tensor, expected: Any) -> None:
    found = loss_of(tmp_path, loss)(SCORES, targets)
    wanted = targets.long() if targets.dtype == torch.int32 else targets
    torch.testing.assert_close(found, expected(SCORES, wanted))


@pytest.mark.parametrize("name", ["cross_entropy", "nll"])
def test_a_batch_without_targets_that_count_teaches_nothing(name: str) -> None:
    scores = SCORES.clone().requires_grad_()
    loss = make_loss(name, {"ignore_index": 255})(scores, torch.full((6,), 255))
    loss.backward()
    assert loss.item() == 0.0
    assert scores.grad is not None
    assert not scores.grad.any()


def test_names_are_those_of_the_space_file() -> None:
    assert tuple(LOSSES) == NAMES


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"name": "mse", "args": {"beta": 1}}, r"task.loss: mse: _mse.*can't be called as"),
        ({"callable": "torch.nn:MSELoss", "args": {"beta": 1}}, "task.loss: MSELoss.*can't be called as"),
        ("own_losses:NoLoss", "task.loss: an instance of own_losses:NoLoss must be callable"),
    ],
)
def test_a_loss_that_can_not_be_made(tmp_path: Path, loss: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        loss_of(tmp_path, loss)


def test_distillation_goes_with_cross_entropy_alone(tmp_path: Path) -> None:
    (tmp_path / "own_losses.py").write_text(TASK)
    for loss, known in (
        ("cross_entropy", True),
        ({"name": "cross_entropy", "args": {"weight": WEIGHT}}, True),
        ("mse", False),
    ):
        settings = {"model": "own_losses:net", "data": "own_losses:data", "loss": loss}
        task = build_task(TaskSettings.model_validate(settings), tmp_path)
        assert (task.distillation_loss is not None) == known
