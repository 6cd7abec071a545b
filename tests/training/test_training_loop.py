"""The training loop against a hand-written one, with its batches, accumulation and failures."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional

from autoprune.errors import AutopruneError, TaskError
from autoprune.tasks.task import Data, Task
from autoprune.training.batch_norm import recalibrate_batch_norm
from autoprune.training.evaluation import evaluate
from autoprune.training.loop import Trainer, TrainingDiverged
from autoprune.trial import OptimizerConfig, ScheduleConfig

MakeTask = Callable[..., Task]


def sizes(task: Task) -> list[int]:
    return [len(indices) for indices in task.data.train.asked]


def test_the_cnn_learns_digits(make_task: MakeTask, settings: dict[str, Any], cnn: nn.Module) -> None:
    task = make_task()
    trainer = Trainer(cnn, task, **settings)
    losses = [trainer.run_epoch().train_loss for _ in range(4)]
    assert losses == sorted(losses, reverse=True)
    recalibrate_batch_norm(trainer.model, task.data.train)
    ours = evaluate(trainer.model, task.data.validation, task).metric
    linear = LogisticRegression(max_iter=500).fit(task.data.train.inputs, task.data.train.targets)
    assert ours > 0.9
    assert ours >= linear.score(task.data.validation.inputs, task.data.validation.targets) - 0.01


@pytest.mark.parametrize("max_micro_batch_size", [None, 10])
def test_same_steps_as_a_loop_with_torchs_scheduler(
    make_task: MakeTask, settings: dict[str, Any], mlp: nn.Module, max_micro_batch_size: int | None
) -> None:
    task = make_task(n_train=200)
    reference = task.build_model()
    settings |= {
        "optimizer": OptimizerConfig("adam", {"beta1": 0.8, "weight_decay": 0.01}),
        "lr_schedule": ScheduleConfig("step", {"lr": 0.01, "factor": 0.5, "every": 1}),
    }
    trainer = Trainer(mlp, task, **settings, max_micro_batch_size=max_micro_batch_size)
    metrics = [trainer.run_epoch() for _ in range(3)]

    order = torch.cat(task.data.train.asked).split(200)
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.01, betas=(0.8, 0.999), weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    for epoch in range(3):
        assert sorted(order[epoch].tolist()) == list(range(200))
        total = 0.0
        for indices in order[epoch].split(32):
            optimizer.zero_grad()
            loss = functional.cross_entropy(
                reference(task.data.train.inputs[indices]), task.data.train.targets[indices]
            )
            loss.backward()
            optimizer.step()
            total += loss.item() * len(indices)
        assert metrics[epoch].lr == pytest.approx(optimizer.param_groups[0]["lr"])
        assert metrics[epoch].train_loss == pytest.approx(total / 200, rel=1e-4)
        assert metrics[epoch].batch_size == 32
        scheduler.step()
    for ours, theirs in zip(trainer.model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_batches_are_accumulated_in_even_parts(make_task: MakeTask, settings: dict[str, Any], mlp: nn.Module) -> None:
    task = make_task(n_train=97)
    Trainer(mlp, task, **settings, max_micro_batch_size=31).run_epoch()
    assert sizes(task) == [16, 16, 16, 16, 17, 16]


@pytest.mark.parametrize(("n_train", "expected"), [(65, [32, 33]), (66, [32, 32, 2]), (64, [32, 32]), (20, [20])])
def test_no_last_batch_of_one_example(
    make_task: MakeTask, settings: dict[str, Any], cnn: nn.Module, n_train: int, expected: list[int]
) -> None:
    task = make_task(n_train=n_train)
    metrics = Trainer(cnn, task, **settings).run_epoch()
    assert sizes(task) == expected
    assert metrics.batch_size == min(32, n_train)


def test_batch_size_changes_within_an_epoch(make_task: MakeTask, settings: dict[str, Any], mlp: nn.Module) -> None:
    task = make_task(n_train=400)
    settings |= {
        "lr_schedule": ScheduleConfig("cosine", {"lr": 0.05}),
        "batch_size_schedule": ScheduleConfig("with_lr", {"start": 16, "max_size": 128}),
        "epochs": 1,
    }
    metrics = Trainer(mlp, task, **settings).run_epoch()
    full = sizes(task)[:-1]
    assert full[0] == 16
    assert full == sorted(full)
    assert full[-1] > 64
    assert metrics.batch_size == full[-1]


def test_order_depends_on_seed_and_epoch_alone(make_task: MakeTask, settings: dict[str, Any], mlp: nn.Module) -> None:
    def order(**changes: Any) -> torch.Tensor:
        task = make_task(n_train=100)
        trainer = Trainer(mlp, task, **settings | changes)
        trainer.run_epoch()
        trainer.run_epoch()
        return torch.cat(task.data.train.asked)

    first = order()
    assert not torch.equal(first[:100], first[100:])
    assert not torch.equal(first, order(seed=4))
    assert torch.equal(first, order(batch_size_schedule=ScheduleConfig("constant", {"size": 7})))


def test_hooks_surround_every_step(make_task: MakeTask, settings: dict[str, Any], mlp: nn.Module) -> None:
    calls: list[float | str] = []
    trainer = Trainer(
        mlp,
        make_task(n_train=80),
        **settings | {"epochs": 2},
        before_step=calls.append,
        after_step=lambda: calls.append("after"),
    )
    trainer.run_epoch()
    trainer.run_epoch()
    assert calls[1::2] == ["after"] * 6
    assert calls[::2] == pytest.approx([0, 0.2, 0.4, 0.5, 0.7, 0.9])


def test_plateau_looks_at_the_recorded_losses(make_task: MakeTask, settings: dict[str, Any], mlp: nn.Module) -> None:
    settings["lr_schedule"] = ScheduleConfig("plateau", {"lr": 0.05, "factor": 0.5, "patience": 0})
    trainer = Trainer(mlp, make_task(n_train=50), **settings)
    rates = []
    for loss in (1.0, 0.5, 0.7, 0.4):
        rates.append(trainer.run_epoch().lr)
        trainer.record_validation(loss)
    assert rates == [0.05, 0.05, 0.05, 0.025]


def test_divergence_is_named(make_task: MakeTask, settings: dict[str, Any], mlp: nn.Module) -> None:
    settings["lr_schedule"] = ScheduleConfig("constant", {"lr": 1e30})
    with pytest.raises(
        TrainingDiverged, match=r"epoch 1: the training loss must be finite, got (nan|inf) at lr=1e\+30"
    ):
        Trainer(mlp, make_task(), **settings).run_epoch()
    with pytest.raises(TrainingDiverged, match="epoch 0: the validation loss must be finite, got nan"):
        Trainer(mlp, make_task(), **settings).record_validation(float("nan"))


def test_misuse_is_refused(make_task: MakeTask, settings: dict[str, Any], mlp: nn.Module) -> None:
    with pytest.raises(TaskError, match="training split"):
        Trainer(mlp, make_task(n_train=0), **settings)
    with pytest.raises(AutopruneError, match="unknown optimizer 'adma'"):
        Trainer(mlp, make_task(), **settings | {"optimizer": OptimizerConfig("adma", {})})
    trainer = Trainer(mlp, make_task(), **settings | {"epochs": 0})
    with pytest.raises(ValueError, match="epoch=0, epochs=0"):
        trainer.run_epoch()


class Named(nn.Module):
    """Takes its inputs by name and returns them by name, as language models do."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, pixels: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.body(pixels * scale[:, None]), "scale": scale}


class NamedSplit:
    def __init__(self, split: Any) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, indices: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        inputs, targets = self.split.batch(indices)
        return {"pixels": inputs, "scale": torch.ones(len(indices))}, targets


def test_inputs_and_outputs_may_be_dicts(make_task: MakeTask, settings: dict[str, Any], mlp: nn.Module) -> None:
    plain = make_task(n_train=100)
    data = Data(*(NamedSplit(split) for split in (plain.data.train, plain.data.validation, plain.data.test)))
    named = replace(
        plain,
        data=data,
        loss=lambda outputs, targets: functional.cross_entropy(outputs["logits"], targets),
        metric=lambda outputs, targets: plain.metric(outputs["logits"], targets),
    )
    expected = Trainer(plain.build_model(), plain, **settings)
    trainer = Trainer(Named(mlp), named, **settings)
    assert trainer.run_epoch().train_loss == expected.run_epoch().train_loss
    assert evaluate(trainer.model, data.validation, named) == evaluate(expected.model, plain.data.validation, plain)


@pytest.mark.gpu
def test_the_cnn_learns_digits_on_a_gpu(make_task: MakeTask, settings: dict[str, Any], cnn: nn.Module) -> None:
    task = make_task()
    trainer = Trainer(cnn, task, **settings, device="cuda", max_micro_batch_size=20)
    for _ in range(4):
        trainer.run_epoch()
    recalibrate_batch_norm(trainer.model, task.data.train, "cuda")
    assert evaluate(trainer.model, task.data.validation, task, "cuda").metric > 0.9
