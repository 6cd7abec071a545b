"""Where a device's memory is not enough: the same results as with smaller batches from the beginning."""

import math
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autoprune.tasks.task import Task
from autoprune.training import loop
from autoprune.training.batch_norm import recalibrate_batch_norm
from autoprune.training.checkpoint import load_checkpoint, save_checkpoint
from autoprune.training.evaluation import CPU_BATCH, evaluate
from autoprune.training.loop import Trainer, TrainingDiverged
from autoprune.training.memory import OutOfDeviceMemory, find_executable_batch_size, free_device_memory
from autoprune.training.precision import Precision
from autoprune.training.prefetch import Prefetcher
from autoprune.trial import OptimizerConfig, ScheduleConfig

MakeTask = Callable[..., Task]


class Hungry(nn.Module):
    """Is out of memory when more examples than ``limit`` come through, or at its calls of the numbers ``fails_at``."""

    def __init__(self, limit: int, fails_at: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.limit, self.fails_at, self.n_calls = limit, fails_at, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.n_calls += 1
        if len(x) > self.limit or self.n_calls in self.fails_at:
            raise torch.OutOfMemoryError(f"device out of memory. Tried to hold {len(x)} examples.")
        return x


def network(hungry: nn.Module) -> nn.Sequential:
    """With batch norm and dropout before the layer that is hungry: both have seen the part that fails."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        hungry,
        nn.Linear(512, 10),
    )


def assert_same_bits(one: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("limit", "fails_at", "given", "found"),
    [
        (20, (), None, 16),
        (9, (), 24, 8),  # 32 examples in two parts of 16
        (1, (), None, 1),
        (99, (2,), 16, 8),  # the first of two parts has been counted already
        (99, (1, 4), 16, 4),
        (16, (), 24, 24),
    ],
)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("ahead", [False, True], ids=["read when needed", "read ahead"])
def test_a_training_ends_as_with_that_size_beforehand(
    ahead: bool,
    monkeypatch: pytest.MonkeyPatch,
    make_task: MakeTask,
    settings: dict[str, Any],
    noise: Callable[..., Any],
    limit: int,
    fails_at: tuple[int, ...],
    given: int | None,
    found: int,
    optimizer: str,
) -> None:
    monkeypatch.setattr(loop, "Prefetcher", lambda *args, **_: Prefetcher(*args, ahead=ahead))  # ahead is for GPUs
    settings["optimizer"] = OptimizerConfig(optimizer, {})
    task = make_task(n_train=96, augment=noise)
    during = Trainer(network(Hungry(limit, fails_at)), task, **settings, max_micro_batch_size=given)
    before = Trainer(network(nn.Identity()), task, **settings, max_micro_batch_size=found)
    for _ in range(3):
        metrics = [trainer.run_epoch() for trainer in (during, before)]
        assert metrics[0].train_loss == metrics[1].train_loss
        assert metrics[0].batch_size == 32, "the batch of a step stays"
    assert_same_bits(during.model, before.model)
    assert (during.micro_batch_size, before.micro_batch_size) == (found, found)


def test_the_size_that_was_found_is_kept_for_the_rest_and_over_a_restart(
    make_task: MakeTask, settings: dict[str, Any], tmp_path: Path
) -> None:
    task = make_task(n_train=96)
    hungry = Hungry(99, fails_at=(1, 2))
    whole = Trainer(network(hungry), task, **settings)
    whole.run_epoch()
    assert hungry.n_calls == 2 + 3 * 4, "8 of 32 examples at once in all three steps"
    save_checkpoint(tmp_path / "checkpoint", whole.state_dict())
    resumed = Trainer(network(nn.Identity()), task, **settings)
    resumed.load_state_dict(load_checkpoint(tmp_path / "checkpoint") or {})
    assert resumed.micro_batch_size == 8
    assert whole.run_epoch().train_loss == resumed.run_epoch().train_loss
    assert_same_bits(whole.model, resumed.model)


def test_hooks_are_not_called_again(make_task: MakeTask, settings: dict[str, Any]) -> None:
    calls: list[float | str] = []
    trainer = Trainer(
        network(Hungry(5)),
        make_task(n_train=64),
        **settings,
        before_step=calls.append,
        after_step=lambda: calls.append("after"),
    )
    trainer.run_epoch()
    assert calls == [0.0, "after", pytest.approx(0.125), "after"]


def test_evaluation_goes_on_with_half_the_batch(make_task: MakeTask) -> None:
    task = make_task()
    plain, hungry = network(nn.Identity()), Hungry(20)
    result = evaluate(network(hungry), task.data.validation, task)
    assert result == evaluate(plain, task.data.validation, task, batch_size=16)
    assert result.batch_size == 16
    assert evaluate(plain, task.data.validation, task).batch_size == CPU_BATCH
    n_calls = hungry.n_calls
    assert n_calls == 2 + math.ceil(500 / 16), "what was judged is not judged again"
    late = evaluate(network(Hungry(99, fails_at=(4,))), task.data.validation, task)
    assert late.metric == result.metric
    assert late.loss == pytest.approx(result.loss, rel=1e-6)
    assert late.batch_size == CPU_BATCH // 2


def test_a_split_smaller_than_the_batch_is_halved_from_its_own_size(make_task: MakeTask) -> None:
    task = make_task(n_train=10)
    hungry = Hungry(5)
    assert evaluate(network(hungry), task.data.train, task, batch_size=512).batch_size == 5
    assert hungry.n_calls == 3


@pytest.mark.parametrize(
    ("hungry", "given", "found"), [(Hungry(64), 128, 64), (Hungry(20), 128, 16), (Hungry(99, fails_at=(2,)), 90, 45)]
)
def test_recalibration_begins_anew_with_half_the_batch(
    make_task: MakeTask, hungry: Hungry, given: int, found: int
) -> None:
    task = make_task()
    models = network(hungry), network(nn.Identity())
    for model, batch_size in zip(models, (given, found), strict=True):
        recalibrate_batch_norm(model, task.data.train, n_examples=256, batch_size=batch_size)
        assert model[2].momentum == 0.1
        assert model[2].training
    assert_same_bits(*models)


@pytest.mark.parametrize("what", ["training", "evaluation", "recalibrating batch norm"])
def test_a_single_example_that_is_too_much_is_an_error_with_the_way_out(
    make_task: MakeTask, settings: dict[str, Any], what: str
) -> None:
    task, model = make_task(n_train=96), network(Hungry(0))
    works: dict[str, Callable[[], object]] = {
        "training": lambda: Trainer(model, task, **settings).run_epoch(),
        "evaluation": lambda: evaluate(model, task.data.validation, task),
        "recalibrating batch norm": lambda: recalibrate_batch_norm(model, task.data.train),
    }
    with pytest.raises(OutOfDeviceMemory) as caught:
        works[what]()
    message = str(caught.value)
    assert f"{what}: the device's memory is not enough for a single example: device out of memory" in message
    assert "resources.gpus_per_trial" in message
    assert "training.precision" in message


def test_what_can_not_do_with_so_few_examples_is_told_with_the_cause(
    make_task: MakeTask, settings: dict[str, Any], mlp: nn.Sequential
) -> None:
    mlp.insert(1, nn.BatchNorm1d(32))
    mlp.insert(1, Hungry(1))
    message = r"not enough for more than 1 at once \(device out of memory.*\), and with so few: ValueError: "
    with pytest.raises(OutOfDeviceMemory, match=message):
        Trainer(mlp, make_task(n_train=96), **settings).run_epoch()


def test_nothing_of_a_failed_attempt_is_left_when_it_is_undone() -> None:
    left: list[weakref.ref[torch.Tensor]] = []

    def attempt(n_at_once: int) -> int:
        activations = torch.zeros(n_at_once, requires_grad=True).exp()
        left.append(weakref.ref(activations))
        if n_at_once > 3:
            raise torch.OutOfMemoryError("no")
        return n_at_once * 10

    alive: list[int] = []
    done = find_executable_batch_size(
        attempt, 13, "cpu", "it", undo=lambda: alive.append(sum(reference() is not None for reference in left))
    )
    assert done == (30, 3)
    assert alive == [0, 0]


def test_other_errors_are_left_alone() -> None:
    def attempt(n_at_once: int) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match=r"^CUDA error: device-side"):
        find_executable_batch_size(attempt, 8, "cpu", "it")


def test_a_training_that_diverges_after_it_was_out_of_memory_has_diverged(
    make_task: MakeTask, settings: dict[str, Any]
) -> None:
    task = replace(make_task(n_train=96), loss=lambda outputs, targets: outputs.mean() * torch.inf)
    with pytest.raises(TrainingDiverged):
        Trainer(network(Hungry(8)), task, **settings).run_epoch()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_gpu_that_is_full_ends_as_with_that_size_beforehand(
    make_task: MakeTask, settings: dict[str, Any], precision: Any
) -> None:
    def wide() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Upsample(scale_factor=4),
            nn.Conv2d(1, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, 10),
        )

    settings |= {"batch_size_schedule": ScheduleConfig("constant", {"size": 1024}), "epochs": 2}
    task, precision = make_task(), Precision(precision)
    Trainer(wide(), task, **settings, device="cuda", max_micro_batch_size=64, precision=precision).run_epoch()
    free_device_memory("cuda")
    allowed = torch.cuda.memory_reserved() + 300 * 2**20  # 1024 examples take 256 MiB a layer in float32, 128 in bf16
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)
    try:
        full = Trainer(wide(), task, **settings, device="cuda", precision=precision)
        losses = [full.run_epoch().train_loss for _ in range(2)]
        accuracy = evaluate(full.model, task.data.validation, task, "cuda", 4096, precision).metric
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert full.micro_batch_size is not None
    assert 1 <= full.micro_batch_size < 1024
    before = Trainer(
        wide(), task, **settings, device="cuda", max_micro_batch_size=full.micro_batch_size, precision=precision
    )
    tolerance = 1e-4 if precision == "float32" else 1e-2
    assert losses == pytest.approx([before.run_epoch().train_loss for _ in range(2)], rel=tolerance)
    judged = evaluate(before.model, task.data.validation, task, "cuda", precision=precision)
    assert accuracy == pytest.approx(judged.metric, abs=0.02)
