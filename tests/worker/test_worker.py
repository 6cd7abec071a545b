"""The worker runs a trial to its end, checks ceilings before, and turns errors into causes."""

import math
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import TINY_TASK
from worker_trials import NEURON, TOGETHER, WEIGHT, finished, gradually, run, trial

from autoprune.errors import Interrupted
from autoprune.search.signals import handlers_restored, raise_when_preempted
from autoprune.trial import EpochReport, PruningConfig, TrialResult
from autoprune.worker import Worker


@pytest.mark.parametrize(
    ("name", "ceiling", "value"),
    [
        ("size_bytes", 5000, "size_bytes 1"),
        ("latency_ms", 1e-6, "latency_ms 0."),
        ("nonzero_params", "0.5x", "nonzero_pa"),
    ],
)
def test_a_ceiling_is_checked_before_training(
    make_worker: Callable[..., Worker], name: str, ceiling: Any, value: str
) -> None:
    worker = make_worker({"constraints": {name: ceiling}})
    events = list(worker.run(trial(gradually(PruningConfig({"stem": 7})))))
    (result,) = events
    assert isinstance(result, TrialResult)
    assert (result.state, result.epochs) == ("infeasible", 0)
    assert result.error is not None
    assert result.error.startswith(value)
    assert " is over the ceiling " in result.error
    assert not worker.folder.checkpoint_store.has_model(0)


def test_under_the_ceilings_a_trial_is_the_same_as_without(make_worker: Callable[..., Worker]) -> None:
    free, held = make_worker(), make_worker({"constraints": {"size_bytes": "1x", "flops": "1x"}}, "b")
    for number, pruning in enumerate((TOGETHER, gradually(TOGETHER))):
        results = [run(worker, trial(pruning, number)) for worker in (free, held)]
        assert results[0].state == "finished"
        assert results[0].loss == results[1].loss


USERS_MISTAKES = {
    "the model raises": (
        "        return torch.relu(x + ",
        "        raise ValueError('no such thing')  # HERE\n        _ = (",
    ),
    "the model can't run": (
        "        return torch.relu(x + ",
        "        return self.conv1(x[0, 0])  # HERE\n        _ = (",
    ),
    "the loss raises": ("def loss(outputs, targets):", "def loss(outputs, targets):\n    targets.no_such_name  # HERE"),
}


@pytest.mark.parametrize("mistake", USERS_MISTAKES)
def test_what_raises_in_the_users_code_is_a_failure_with_its_place(
    make_worker: Callable[..., Worker], mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = TINY_TASK + "\n\ndef loss(outputs, targets):\n    return nn.functional.cross_entropy(outputs, targets)\n"
    worker = make_worker({"task": {"loss": "tiny_task:loss"}}, task=sound)
    before, after = USERS_MISTAKES[mistake]
    broken = sound.replace(before, after)
    line = next(number for number, text in enumerate(broken.splitlines(), 1) if "HERE" in text)
    (worker.folder.base_dir / "tiny_task.py").write_text(broken)
    monkeypatch.delitem(__import__("sys").modules, "tiny_task")
    result = run(Worker(worker.folder), trial(NEURON if "loss" in mistake else WEIGHT))
    assert result.state == "failed"
    assert result.error is not None
    assert result.error.endswith(f"(tiny_task.py:{line})"), result.error
    assert run(worker, trial(NEURON, 1)).state == "finished"


def test_a_loss_that_is_no_number_is_a_failure(worker: Worker) -> None:
    result = run(worker, trial(NEURON, lr=1e30))
    assert result.state == "failed"
    assert result.error is not None
    assert "must be finite, got" in result.error
    assert "A lower learning rate may help" in result.error
    assert run(worker, trial(NEURON, 1)).state == "finished"


def test_a_late_failure_tells_the_epochs_it_cost(make_worker: Callable[..., Worker]) -> None:
    task = (
        TINY_TASK
        + """

n_calls = 0


def loss(outputs, targets):
    global n_calls
    n_calls += 1
    if n_calls > 8:
        raise RuntimeError("CUDA out of memory")
    return nn.functional.cross_entropy(outputs, targets)
"""
    )
    worker = make_worker({"task": {"loss": "tiny_task:loss"}}, task=task)
    result = run(worker, trial(WEIGHT))  # a check, then 4 steps and a validation an epoch
    assert (result.state, result.epochs) == ("failed", 1)
    assert result.train_time_s > 0
    assert result.error is not None
    assert result.error.startswith("RuntimeError: CUDA out of memory (tiny_task.py:")


def test_batch_norm_is_recalibrated_on_training_examples(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker({"training": {"recalibration_examples": 200}})
    _, model = finished(worker, trial(NEURON))
    inputs, _ = worker.task.data.train.batch(torch.arange(200))
    modules: dict[str, Any] = dict(model.named_modules())
    with torch.no_grad():
        seen = modules["stem"](inputs)
    torch.testing.assert_close(modules["bn"].running_mean, seen.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    left = make_worker({"training": {"recalibration_examples": 0}}, "b")
    _, raw = finished(left, trial(NEURON))
    assert not torch.equal(raw.get_buffer("bn.running_mean"), model.get_buffer("bn.running_mean"))
    torch.testing.assert_close(dict(raw.named_parameters()), dict(model.named_parameters()), rtol=0, atol=0)


def test_a_trial_that_is_over_its_memory_fails_and_the_next_one_finds_it_free(
    make_worker: Callable[..., Worker],
) -> None:
    task = (
        TINY_TASK
        + """

n_calls = 0


def loss(outputs, targets):
    global n_calls
    n_calls += 1
    if n_calls == 2:
        eaten = [torch.zeros(2**22) for _ in range(200)]  # 3 GB
    return nn.functional.cross_entropy(outputs, targets)
"""
    )
    changes = {"task": {"loss": "tiny_task:loss"}, "resources": {"memory_per_trial_gib": 0.5}}
    worker = make_worker(changes, task=task)
    result = run(worker, trial(WEIGHT))
    assert result.state == "failed"
    assert result.error is not None
    assert result.error.startswith("over resources.memory_per_trial_gib = 0.5: RuntimeError: ")
    assert "(tiny_task.py:" in result.error
    following = run(worker, trial(WEIGHT, 1))
    assert (following.state, following.error) == ("finished", None)


ENDINGS = {
    "SystemExit: 3": SystemExit(3),
    "SystemExit: no licence for [this] data": SystemExit("no licence for [this] data"),
    "SystemExit": SystemExit(),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "GeneratorExit": GeneratorExit(),
    "BaseException: odd": BaseException("odd"),
    "StopIteration": StopIteration(),
}


@pytest.mark.parametrize("told", ENDINGS)
def test_user_code_that_would_end_the_process_fails_its_trial_only(
    worker: Worker, told: str, ctrl_c_is_ours: None
) -> None:
    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        raise ENDINGS[told]

    task, worker.task = worker.task, replace(worker.task, loss=loss)
    result = run(worker, trial(NEURON))
    assert result.state == "failed"
    assert result.error == f"{told} (test_worker.py:{loss.__code__.co_firstlineno + 1})"
    worker.task = task
    assert run(worker, trial(NEURON, 1)).state == "finished"


@pytest.fixture
def ctrl_c_is_ours() -> Iterator[None]:
    """A search has taken Ctrl-C over: what it raises then is an Interrupted."""
    with handlers_restored():
        raise_when_preempted()
        yield


def test_ctrl_c_ends_no_trial(worker: Worker, ctrl_c_is_ours: None) -> None:
    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it has come")

    worker.task = replace(worker.task, loss=loss)
    with pytest.raises(Interrupted):
        run(worker, trial(NEURON))


def test_a_trial_that_is_closed_between_two_epochs_ends_silently(worker: Worker) -> None:
    events = worker.run(trial(NEURON))
    assert isinstance(next(events), EpochReport)
    events.close()  # type: ignore[attr-defined]
    assert list(events) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("what", ["metric", "loss"])
def test_a_metric_or_loss_that_is_no_number_fails_the_trial_with_its_epoch(
    worker: Worker, what: str, value: float
) -> None:
    task, n_calls = worker.task, 0

    def judge(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal n_calls
        n_calls += not outputs.requires_grad and len(targets) % 64 == 150 % 64
        second_epoch = n_calls == 2 and not outputs.requires_grad
        return torch.tensor(value) if second_epoch else getattr(task, what)(outputs, targets)

    worker.task = replace(task, **{what: judge})
    *reports, result = worker.run(trial(NEURON))
    assert isinstance(result, TrialResult)
    assert [report.epoch for report in reports if isinstance(report, EpochReport)] == [1]
    assert (result.state, result.epochs) == ("failed", 1)
    assert result.error is not None
    assert result.error.startswith(f"the {what} must be finite, got {value} on the validation split after epoch 2. ")
    assert not worker.folder.checkpoint_store.has_model(0)
