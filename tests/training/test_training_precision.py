"""Number formats, memory layouts and compiled forward passes, against torch's defaults."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from autoprune.tasks.task import Data, Task
from autoprune.training.batch_norm import recalibrate_batch_norm
from autoprune.training.checkpoint import load_checkpoint, save_checkpoint
from autoprune.training.evaluation import evaluate
from autoprune.training.loop import Trainer
from autoprune.training.precision import CompileError, Precision
from autoprune.trial import OptimizerConfig, ScheduleConfig

MakeTask = Callable[..., Task]
OTHERS = {
    "bf16": Precision("bf16"),
    "fp16": Precision("fp16"),
    "channels last": Precision(channels_last=True),
    "bf16, channels last": Precision("bf16", channels_last=True),
}
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}

# Torch's compiler uses what torch itself has deprecated.
compiling = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")


def steep(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """A loss whose gradients, scaled as at first, are too large for fp16."""
    return 64 * functional.cross_entropy(outputs, targets)


def fresh(cnn: nn.Sequential) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(*cnn[:6], nn.Dropout(0.1), nn.Linear(256, 10))


@pytest.mark.parametrize("precision", OTHERS.values(), ids=OTHERS)
def test_it_learns_as_by_default(
    make_task: MakeTask, settings: dict[str, Any], cnn: nn.Module, precision: Precision
) -> None:
    task = make_task(build_model=lambda: cnn)
    trainer = Trainer(cnn, task, **settings, precision=precision)
    losses = [trainer.run_epoch().train_loss for _ in range(4)]
    assert losses == sorted(losses, reverse=True)
    recalibrate_batch_norm(trainer.model, task.data.train, precision=precision)
    result = evaluate(trainer.model, task.data.validation, task, precision=precision)
    assert result.metric > 0.9
    assert result.loss == pytest.approx(evaluate(trainer.model, task.data.validation, task).loss, rel=0.02)


@pytest.mark.parametrize("precision", HALF)
def test_the_network_computes_in_that_precision_and_nobody_else_notices(
    make_task: MakeTask, settings: dict[str, Any], cnn: nn.Sequential, precision: Any
) -> None:
    inside, outside = set(), set()
    cnn[1].register_forward_hook(lambda module, args, output: inside.add(output.dtype))
    plain = make_task(n_train=64)

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        outside.add((outputs.dtype, (outputs @ outputs.T).dtype))
        return functional.cross_entropy(outputs, targets)

    def metric(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        outside.add((outputs.dtype, (outputs @ outputs.T).dtype))
        return 0.0

    task = Task(plain.build_model, plain.data, loss, metric)
    trainer = Trainer(cnn, task, **settings, precision=Precision(precision))
    trainer.run_epoch()
    assert inside == {HALF[precision]}
    evaluate(trainer.model, task.data.validation, task, precision=Precision(precision))
    recalibrate_batch_norm(trainer.model, task.data.train, precision=Precision(precision))
    assert inside == {HALF[precision]}
    assert outside == {(torch.float32, torch.float32)}
    assert {tensor.dtype for tensor in trainer.model.state_dict().values()} == {torch.float32, torch.int64}


def test_bf16_takes_the_steps_of_torchs_autocast(make_task: MakeTask, settings: dict[str, Any], mlp: nn.Module) -> None:
    task = make_task(n_train=96)
    settings |= {"lr_schedule": ScheduleConfig("constant", {"lr": 0.05})}
    Trainer(mlp, task, **settings, precision=Precision("bf16")).run_epoch()
    reference = task.build_model()
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.05, momentum=0.9)
    for indices in task.data.train.asked:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = reference(task.data.train.inputs[indices])
        functional.cross_entropy(outputs.float(), task.data.train.targets[indices]).backward()
        optimizer.step()
    torch.testing.assert_close(mlp.state_dict(), reference.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("precision", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_restart_is_bit_identical(
    make_task: MakeTask,
    settings: dict[str, Any],
    cnn: nn.Sequential,
    tmp_path: Path,
    precision: Precision,
    optimizer: str,
) -> None:
    plain = make_task(n_train=300)
    task = Task(plain.build_model, plain.data, steep, plain.metric)
    settings |= {"optimizer": OptimizerConfig(optimizer, {}), "lr_schedule": ScheduleConfig("constant", {"lr": 0.001})}
    whole = Trainer(fresh(cnn), task, **settings, precision=precision)
    whole.run_epoch()
    save_checkpoint(tmp_path / "checkpoint", whole.state_dict())
    losses = [whole.run_epoch().train_loss for _ in range(2)]

    state = load_checkpoint(tmp_path / "checkpoint")
    assert state is not None
    if precision.precision == "fp16":
        assert state["scaler"]["scale"] < 65536, "steps were left out, and the scale lowered"
    else:
        assert state["scaler"] == {}
    resumed = Trainer(fresh(cnn), task, **settings, precision=precision)
    resumed.load_state_dict(state)
    assert [resumed.run_epoch().train_loss for _ in range(2)] == losses
    torch.testing.assert_close(whole.model.state_dict(), resumed.model.state_dict(), rtol=0, atol=0)
    assert whole.state_dict()["scaler"] == resumed.state_dict()["scaler"]


def test_a_step_that_fp16_can_not_hold_is_left_out(
    make_task: MakeTask, settings: dict[str, Any], mlp: nn.Module
) -> None:
    plain = make_task(n_train=32)  # one step
    task = Task(plain.build_model, plain.data, lambda *args: 1000 * functional.cross_entropy(*args), plain.metric)
    Trainer(mlp, task, **settings, precision=Precision("fp16")).run_epoch()
    torch.testing.assert_close(mlp.state_dict(), task.build_model().state_dict(), rtol=0, atol=0)


def test_channels_are_last_in_memory_and_only_there(
    make_task: MakeTask, settings: dict[str, Any], cnn: nn.Sequential
) -> None:
    seen = []
    cnn[1].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    plain = make_task(n_train=64)
    images = Data(*(Images(split) for split in (plain.data.train, plain.data.validation, plain.data.test)))
    task = Task(plain.build_model, images, plain.loss, plain.metric)
    precision = Precision(channels_last=True)
    body = cnn[1:]
    trainer = Trainer(body, task, **settings, precision=precision)
    trainer.run_epoch()
    evaluate(body, images.validation, task, precision=precision)
    assert len(seen) == 2 + 8
    for inputs in seen:
        assert inputs.shape[1:] == (1, 8, 8)
        assert inputs.is_contiguous(memory_format=torch.channels_last)
    wide = Trainer(nn.Sequential(nn.Conv2d(3, 4, 3)), task, **settings, precision=precision).model
    assert wide[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not wide[0].weight.is_contiguous()
    assert precision.to_storage_layout(wide)[0].weight.is_contiguous()


class Images:
    def __init__(self, split: Any) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, targets = self.split.batch(indices)
        return inputs.view(-1, 1, 8, 8), targets


@pytest.mark.slow
@compiling
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_compiled_training_is_that_of_the_network_itself(
    make_task: MakeTask, settings: dict[str, Any], cnn: nn.Sequential, precision: Any
) -> None:
    task = make_task(n_train=200)
    settings |= {"optimizer": OptimizerConfig("sgd", {}), "lr_schedule": ScheduleConfig("constant", {"lr": 0.01})}
    torch.manual_seed(0)
    twin = nn.Sequential(*cnn[:6], nn.Linear(256, 10))
    twin.load_state_dict(cnn.state_dict())
    twin[1], twin[2] = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
    twin.load_state_dict(cnn.state_dict())
    compiled = Trainer(cnn, task, **settings, precision=Precision(precision, compile=True))
    plain = Trainer(twin, task, **settings, precision=Precision(precision))
    for _ in range(2):
        assert compiled.run_epoch().train_loss == pytest.approx(plain.run_epoch().train_loss, rel=1e-2)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert compiled.model is cnn
    assert list(compiled.state_dict()["model"]) == list(twin.state_dict())
    tolerance = 1e-4 if precision == "float32" else 1e-2
    torch.testing.assert_close(cnn.state_dict(), twin.state_dict(), rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@compiling
def test_what_can_not_be_compiled_is_an_error_and_no_slow_training(
    make_task: MakeTask, settings: dict[str, Any], cnn: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch._inductor.config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    trainer = Trainer(cnn, make_task(n_train=96), **settings, precision=Precision(compile=True))
    told = r"^training.compile: .*no-such-compiler.*\. Set training.compile to false"
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}), pytest.raises(CompileError, match=told):
        trainer.run_epoch()


def test_what_the_compiler_behind_the_compiler_raised_is_told() -> None:
    def behind(graph: Any, inputs: Any) -> Any:
        raise ValueError("this operation has no kernel")

    compiled = torch.compile(nn.Linear(2, 2), backend=behind)
    told = r"can't compile this network: backend='behind' raised: ValueError: this operation has no kernel\. Set tra"
    with pytest.raises(CompileError, match=told), Precision(compile=True).translate_compile_errors():
        compiled(torch.ones(1, 2))


@pytest.mark.slow
@compiling
def test_an_error_of_the_network_itself_is_told_as_it_is(
    make_task: MakeTask, settings: dict[str, Any], mlp: nn.Sequential
) -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ZeroDivisionError("mine")

    trainer = Trainer(
        nn.Sequential(mlp, Broken()), make_task(n_train=96), **settings, precision=Precision(compile=True)
    )
    with pytest.raises(ZeroDivisionError, match="mine"):
        trainer.run_epoch()
