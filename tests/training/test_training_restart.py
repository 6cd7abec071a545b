"""Going on from a checkpoint, and going on with a smaller network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autoprune.tasks.task import Task
from autoprune.training.checkpoint import load_checkpoint, save_checkpoint
from autoprune.training.loop import Trainer
from autoprune.trial import OptimizerConfig, ScheduleConfig

MakeTask = Callable[..., Task]
OPTIMIZERS = {
    "sgd": OptimizerConfig("sgd", {"momentum": 0.9, "weight_decay": 1e-3, "nesterov": True}),
    "adam": OptimizerConfig("adam", {}),
    "adamw": OptimizerConfig("adamw", {"weight_decay": 0.1}),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_restart_is_bit_identical(
    make_task: MakeTask,
    settings: dict[str, Any],
    noise: Callable[..., Any],
    cnn: nn.Sequential,
    tmp_path: Path,
    optimizer: str,
) -> None:
    cnn.insert(6, nn.Dropout(0.3))
    task = make_task(n_train=300, build_model=lambda: cnn, augment=noise)
    settings |= {
        "optimizer": OPTIMIZERS[optimizer],
        "lr_schedule": ScheduleConfig("plateau", {"lr": 0.01, "patience": 0}),
        "batch_size_schedule": ScheduleConfig("step", {"start": 16, "factor": 2, "every": 1}),
    }
    whole = Trainer(cnn, task, **settings)
    metrics = []
    for epoch in range(4):
        metrics.append(whole.run_epoch())
        whole.record_validation(1.0 + epoch)
        if epoch == 1:
            state = whole.state_dict()
    save_checkpoint(tmp_path / "checkpoint.pt", state)

    torch.manual_seed(99)
    fresh = nn.Sequential(*(type(layer)(*arguments) for layer, arguments in zip(cnn, FRESH_ARGUMENTS, strict=True)))
    resumed = Trainer(fresh, task, **settings)
    resumed.load_state_dict(load_checkpoint(tmp_path / "checkpoint.pt") or {})
    assert resumed.epoch == 2
    for epoch in (2, 3):
        again = resumed.run_epoch()
        resumed.record_validation(1.0 + epoch)
        assert (again.train_loss, again.lr, again.batch_size) == (
            metrics[epoch].train_loss,
            metrics[epoch].lr,
            metrics[epoch].batch_size,
        )
    assert resumed.validation_losses == whole.validation_losses
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


FRESH_ARGUMENTS: list[tuple[Any, ...]] = [
    (1, (1, 8, 8)),
    (1, 16, 3, 1, 1, 1, 1, False),
    (16,),
    (),
    (2,),
    (),
    (0.3,),
    (256, 10),
]


def test_state_is_a_copy(make_task: MakeTask, settings: dict[str, Any], mlp: nn.Module) -> None:
    trainer = Trainer(mlp, make_task(n_train=64), **settings)
    trainer.run_epoch()
    state = trainer.state_dict()
    before = state["model"]["0.weight"].clone()
    trainer.run_epoch()
    assert torch.equal(state["model"]["0.weight"], before)
    assert not torch.equal(trainer.model.state_dict()["0.weight"], before)


def narrow(model: nn.Module, kept: torch.Tensor) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Keep some hidden neurons of the MLP: the smaller network and where each of its entries comes from."""
    first, last = model[0], model[3]
    smaller = nn.Sequential(nn.Linear(64, len(kept)), nn.ReLU(), nn.Dropout(0.0), nn.Linear(len(kept), 10))
    with torch.no_grad():
        smaller[0].weight.copy_(first.weight[kept])
        smaller[0].bias.copy_(first.bias[kept])
        smaller[3].weight.copy_(last.weight[:, kept])
        smaller[3].bias.copy_(last.bias)
    kept_indices = {
        "0.weight": torch.arange(first.weight.numel()).view_as(first.weight)[kept],
        "0.bias": kept,
        "3.weight": torch.arange(last.weight.numel()).view_as(last.weight)[:, kept],
    }
    return smaller, kept_indices


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resized_network_goes_on_as_the_masked_one_does(
    make_task: MakeTask, settings: dict[str, Any], optimizer: str, in_place: bool
) -> None:
    settings |= {"optimizer": OPTIMIZERS[optimizer], "lr_schedule": ScheduleConfig("constant", {"lr": 0.01})}
    task = make_task(n_train=300)
    kept = torch.tensor([0, 3, 4, 7, 11, 12, 20, 31])
    removed = torch.tensor([channel for channel in range(32) if channel not in kept])
    switch = 0.3

    progress_seen = [0.0]
    masked_model = task.build_model()

    def zero_removed() -> None:
        if progress_seen[0] >= switch:
            with torch.no_grad():
                masked_model[0].weight[removed] = 0
                masked_model[0].bias[removed] = 0
                masked_model[3].weight[:, removed] = 0

    def mask(progress: float) -> None:
        progress_seen[0] = progress
        zero_removed()

    masked = Trainer(masked_model, task, **settings, before_step=mask, after_step=zero_removed)

    def shrink(progress: float) -> None:
        if progress >= switch and resized.model[0].out_features == 32:
            smaller, kept_indices = narrow(resized.model, kept)
            if in_place:
                for index in (0, 3):
                    resized.model[index] = smaller[index]
                smaller = resized.model
            resized.resize(smaller, kept_indices)

    resized = Trainer(task.build_model(), task, **settings, before_step=shrink)
    for _ in range(3):
        assert resized.run_epoch().train_loss == pytest.approx(masked.run_epoch().train_loss, rel=1e-4)
    expected, _ = narrow(masked_model, kept)
    assert resized.model[0].out_features == len(kept)
    for ours, theirs in zip(resized.model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_kept_indices_of_the_wrong_shape_are_refused(
    make_task: MakeTask, settings: dict[str, Any], mlp: nn.Module
) -> None:
    trainer = Trainer(mlp, make_task(n_train=64), **settings)
    trainer.run_epoch()
    smaller, kept_indices = narrow(mlp, torch.arange(5))
    kept_indices.pop("0.bias")
    with pytest.raises(
        ValueError, match=r"kept indices of '0.bias' must have the new parameter's shape \(5,\), got None"
    ):
        trainer.resize(smaller, kept_indices)
