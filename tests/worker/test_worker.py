"""The worker runs a trial to its end, checks ceilings before, and turns errors into causes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import TINY_TASK
from worker_trials import NEURON, TOGETHER, WEIGHT, finished, gradually, run, trial

from autoprune.trial import PruningConfig, TrialResult
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
