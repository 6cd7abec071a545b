"""Training drawn to the dense network's outputs: the loss as defined, that network left alone, and what it is for."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from autoprune.errors import TaskError
from autoprune.tasks.classification import soft_target_loss
from autoprune.tasks.task import Task
from autoprune.training.distillation import Distillation
from autoprune.training.evaluation import evaluate
from autoprune.training.loop import Trainer
from autoprune.training.precision import Precision
from autoprune.trial import DistillationConfig, ScheduleConfig

MakeTask = Callable[..., Task]


class Outputs:
    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits


@pytest.fixture
def dense(make_task: MakeTask, settings: dict[str, Any], cnn: nn.Module) -> nn.Module:
    """A network that knows all the digits."""
    trainer = Trainer(cnn, make_task(build_model=lambda: cnn), **settings)
    for _ in range(4):
        trainer.run_epoch()
    cnn.zero_grad()
    return cnn


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 2, 4)])
def test_soft_targets_are_the_cross_entropy_without_their_own_entropy(
    shape: tuple[int, ...], temperature: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (3 * torch.randn(shape, generator=generator) for _ in range(2))
    wanted = functional.softmax(theirs / temperature, dim=1)
    cross = functional.cross_entropy(ours / temperature, wanted)
    own = functional.cross_entropy(theirs / temperature, wanted)
    loss = soft_target_loss(Outputs(ours), Outputs(theirs), temperature)
    torch.testing.assert_close(loss, temperature**2 * (cross - own))
    assert float(soft_target_loss(ours, ours, temperature)) == pytest.approx(0.0, abs=1e-6)


def test_at_a_high_temperature_the_scores_themselves_are_matched() -> None:
    """Hinton et al. 2015, equation 4: then it is half the squared distance of zero-mean scores, over the classes."""
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(6, 5, generator=generator) for _ in range(2))
    distance = (ours - ours.mean(1, keepdim=True)) - (theirs - theirs.mean(1, keepdim=True))
    loss = soft_target_loss(ours.double(), theirs.double(), 1000.0)
    assert float(loss) == pytest.approx(float((distance**2).sum(1).mean() / (2 * 5)), rel=2e-3)


@pytest.mark.parametrize("max_micro_batch_size", [None, 10])
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_same_steps_as_a_loop_by_hand(
    make_task: MakeTask,
    settings: dict[str, Any],
    mlp: nn.Module,
    dense: nn.Module,
    noise: Callable[..., torch.Tensor],
    weight: float,
    max_micro_batch_size: int | None,
) -> None:
    seen: list[torch.Tensor] = []

    def augment(inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        seen.append(noise(inputs, generator))
        return seen[-1]

    task = replace(make_task(n_train=90, augment=augment), distillation_loss=soft_target_loss)
    reference = task.build_model()
    distillation = Distillation(dense, DistillationConfig(weight, 2.0))
    settings |= {"lr_schedule": ScheduleConfig("constant", {"lr": 0.05})}
    trainer = Trainer(mlp, task, **settings, distillation=distillation, max_micro_batch_size=max_micro_batch_size)
    metrics = trainer.run_epoch()

    optimizer = torch.optim.SGD(reference.parameters(), lr=0.05, momentum=0.9)
    inputs, order = torch.cat(seen), torch.cat(task.data.train.asked)
    total = 0.0
    for begin in range(0, 90, 32):
        part, targets = inputs[begin : begin + 32], task.data.train.targets[order[begin : begin + 32]]
        ours = reference(part)
        with torch.no_grad():
            wanted = functional.softmax(dense(part) / 2, 1)
        divergence = functional.kl_div(functional.log_softmax(ours / 2, 1), wanted, reduction="batchmean")
        loss = (1 - weight) * functional.cross_entropy(ours, targets) + weight * 4 * divergence
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(part)
    assert metrics.train_loss == pytest.approx(total / 90, rel=1e-4)
    for one, other in zip(trainer.model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_dense_network_is_left_alone(
    make_task: MakeTask, settings: dict[str, Any], mlp: nn.Module, dense: nn.Module, precision: Any
) -> None:
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    task = replace(make_task(n_train=90), distillation_loss=soft_target_loss)
    distillation = Distillation(dense.train(), DistillationConfig(0.5))
    Trainer(mlp, task, **settings, precision=Precision(precision), distillation=distillation).run_epoch()
    assert not dense.training
    assert all(parameter.grad is None for parameter in dense.parameters())
    assert all(torch.equal(before[name], value) for name, value in dense.state_dict().items())


def test_few_examples_teach_more_with_the_dense_network(
    make_task: MakeTask, settings: dict[str, Any], dense: nn.Module
) -> None:
    """Without a single true target: the dense network knows them from more examples than there are here."""
    task = replace(make_task(n_train=120), distillation_loss=soft_target_loss)
    settings |= {"epochs": 30}

    def trained(weight: float) -> float:
        distillation = Distillation(dense, DistillationConfig(weight)) if weight else None
        trainer = Trainer(task.build_model(), task, **settings, distillation=distillation)
        for _ in range(30):
            trainer.run_epoch()
        return evaluate(trainer.model, task.data.validation, task).metric

    assert trained(1.0) > trained(0.0)


def test_a_loss_of_its_own_needs_a_comparison_of_its_own(
    make_task: MakeTask, settings: dict[str, Any], mlp: nn.Module, dense: nn.Module
) -> None:
    trainer = Trainer(mlp, make_task(), **settings, distillation=Distillation(dense, DistillationConfig(0.5)))
    with pytest.raises(TaskError, match=r"task\.distillation_loss must say"):
        trainer.run_epoch()
