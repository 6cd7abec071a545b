"""Trials in other number formats, on devices with too little memory, on GPUs; and what a trial leaves in memory."""

import gc
import json
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import TINY_TASK
from torch import nn
from worker_trials import (
    NEURON,
    TOGETHER,
    WEIGHT,
    assert_pruned_as_asked,
    dropped_after,
    finished,
    gradually,
    run,
    trial,
)

from autoprune.formats.saved_model import load_model
from autoprune.search.prepare import PreparedStudy
from autoprune.training.checkpoint import load_checkpoint
from autoprune.training.loop import Trainer
from autoprune.trial import EpochReport, OptimizerConfig, PruningConfig, TrialResult, result_from_dict
from autoprune.worker import Worker

MakeWorker = Callable[..., Worker]
NUMERICS: dict[str, dict[str, Any]] = {
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "channels last": {"channels_last": True},
    "bf16, channels last": {"precision": "bf16", "channels_last": True},
}
HUNGRY_TASK = (
    TINY_TASK.replace(
        '        ("head", ',
        '        ("hungry", Hungry()),\n        ("head", ',
    )
    + """

LIMIT = 20


class Hungry(nn.Module):
    def forward(self, x):
        if len(x) > LIMIT:
            raise torch.OutOfMemoryError(f"device out of memory at {len(x)} examples")
        return x
"""
)


@pytest.fixture
def make_worker(tiny_study: Callable[..., PreparedStudy]) -> MakeWorker:
    def make(training: dict[str, Any], name: str = "a", task: str = TINY_TASK, device: str = "cpu") -> Worker:
        return Worker(tiny_study({"training": training}, name, task).folder, device)

    return make


@pytest.mark.parametrize("gradual", [False, True], ids=["at once", "gradually"])
@pytest.mark.parametrize("training", NUMERICS.values(), ids=NUMERICS)
def test_a_trial_is_pruned_trained_and_saved_as_in_float32(
    make_worker: MakeWorker, training: dict[str, Any], gradual: bool
) -> None:
    pruning = gradually(TOGETHER) if gradual else TOGETHER
    results = []
    for name, worker in (("a", make_worker(training)), ("b", make_worker({}, "b"))):
        result, model = finished(worker, trial(pruning))
        assert_pruned_as_asked(result, model, TOGETHER)
        assert result.cost is not None
        results.append(result)
        tensors = model.state_dict().values()
        assert {tensor.dtype for tensor in tensors} == {torch.float32, torch.int64}, name
        assert all(tensor.is_contiguous() for tensor in tensors)
    other, plain = (result.cost for result in results)
    assert (other.params, other.nonzero_params, other.macs) == (plain.params, plain.nonzero_params, plain.macs)
    assert results[0].loss != results[1].loss
    assert results[0].loss == pytest.approx(results[1].loss, rel=0.1)


@pytest.mark.parametrize("gradual", [False, True], ids=["at once", "gradually"])
@pytest.mark.parametrize("training", NUMERICS.values(), ids=NUMERICS)
def test_a_trial_goes_on_to_the_same_bits(make_worker: MakeWorker, training: dict[str, Any], gradual: bool) -> None:
    worker = make_worker(training)
    pruning = PruningConfig({"stem": 5, "block1.conv1": 3}, "taylor", weight_ratios={"head.weight": 0.6})
    pruning = gradually(pruning) if gradual else pruning
    settings = {"optimizer": OptimizerConfig("adamw", {}), "lr": 0.02}
    whole = run(worker, trial(pruning, 0, **settings))
    dropped_after(worker.run(trial(pruning, 1, **settings)), 2)
    result = run(Worker(worker.folder), trial(pruning, 1, **settings))
    assert (result.state, result.metric, result.loss) == ("finished", whole.metric, whole.loss)
    models = [load_model(worker.folder.model(number), worker.task.build_model).state_dict() for number in (0, 1)]
    torch.testing.assert_close(models[0], models[1], rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_a_compiled_trial_is_saved_as_any_other_and_forgotten(make_worker: MakeWorker) -> None:
    worker = make_worker({"compile": True})
    config = trial(gradually(TOGETHER, 0.3), epochs=2)
    left = networks_of(worker, config)
    assert all(reference() is None for reference in left)
    result, model = finished(worker, trial(TOGETHER, 1))
    assert_pruned_as_asked(result, model, TOGETHER)
    checkpoint = load_checkpoint(worker.folder.training_checkpoint(1))
    assert checkpoint is not None
    assert set(checkpoint["trainer"]["model"]) == set(model.state_dict())


@pytest.mark.parametrize("criterion", ["l2", "taylor"])
def test_out_of_memory_is_as_a_smaller_device_batch_beforehand(make_worker: MakeWorker, criterion: str) -> None:
    pruning = PruningConfig({"stem": 5, "block1.conv1": 3}, criterion)
    hungry = make_worker({"recalibration_examples": 0}, task=HUNGRY_TASK)
    *reports, result = hungry.run(trial(pruning))
    assert isinstance(result, TrialResult)
    assert (result.state, result.error) == ("finished", None)
    assert result.device_batch == 12, "50, 25, 12"
    assert [(each.device_batch, each.batch_size) for each in reports if isinstance(each, EpochReport)] == [(12, 50)] * 3
    record = json.loads(hungry.folder.record(0).read_text())["result"]
    assert result_from_dict(record).device_batch == 12
    before = make_worker({"recalibration_examples": 0, "max_device_batch": 12}, "b")
    expected, model = finished(before, trial(pruning))
    assert (result.metric, expected.device_batch) == (expected.metric, 12)
    assert result.loss == pytest.approx(expected.loss, rel=1e-5)
    found = load_model(hungry.folder.model(0), hungry.task.build_model)
    torch.testing.assert_close(found.state_dict(), model.state_dict(), rtol=1e-6, atol=1e-6)


def test_a_trial_that_goes_on_keeps_its_device_batch_and_the_next_one_does_not(make_worker: MakeWorker) -> None:
    worker = make_worker({}, task=HUNGRY_TASK)
    dropped_after(worker.run(trial(NEURON)), 2)
    worker = Worker(worker.folder)
    namespace = worker.task.build_model().hungry.forward.__globals__
    namespace["LIMIT"] = 99
    try:
        result = run(worker, trial(NEURON))
        assert (result.state, result.device_batch) == ("finished", 12)
        assert run(worker, trial(NEURON, 1)).device_batch is None
    finally:
        namespace["LIMIT"] = 20


def test_what_does_not_fit_at_all_fails_with_the_way_out(make_worker: MakeWorker) -> None:
    worker = make_worker({}, task=HUNGRY_TASK)
    namespace = worker.task.build_model().hungry.forward.__globals__
    namespace["LIMIT"] = 0
    result = run(worker, trial(WEIGHT))
    assert result.state == "failed"
    assert result.error is not None
    assert "epoch 1: training: the device's memory is not enough for a single" in result.error
    assert "resources.gpus_per_trial" in result.error


def networks_of(worker: Worker, config: Any, n_events: int | None = None) -> list[weakref.ref[nn.Module]]:
    """Run a trial, or some of its events; gives references to the networks it trained, which keep none alive."""
    found: list[weakref.ref[nn.Module]] = []
    set_model = Trainer._set_model

    def watched(trainer: Trainer, model: nn.Module) -> None:
        set_model(trainer, model)
        found.append(weakref.ref(trainer.model))
        found.append(weakref.ref(trainer._optimizer))  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_set_model", watched)
        events = worker.run(config)
        for number, event in enumerate(events, 1):
            if number == n_events or isinstance(event, TrialResult):
                break
        if n_events is not None:
            events.close()  # type: ignore[attr-defined]
    gc.collect()
    if n_events is None:
        assert isinstance(event, TrialResult)
        assert next(events, None) is None
    assert found
    return found


@pytest.mark.parametrize("pruning", [NEURON, gradually(TOGETHER)], ids=["at once", "gradually"])
@pytest.mark.parametrize("n_events", [None, 1], ids=["to its end", "stopped"])
def test_the_network_of_a_trial_is_gone_when_its_result_is_told(
    make_worker: MakeWorker, pruning: PruningConfig, n_events: int | None
) -> None:
    worker = make_worker({})
    assert all(reference() is None for reference in networks_of(worker, trial(pruning), n_events))


def test_the_network_of_a_trial_that_failed_is_gone_too(make_worker: MakeWorker) -> None:
    worker = make_worker({})
    assert all(reference() is None for reference in networks_of(worker, trial(NEURON, lr=1e30)))


@pytest.mark.gpu
@pytest.mark.parametrize("training", [{}, *NUMERICS.values()], ids=["float32", *NUMERICS])
def test_a_trial_on_a_gpu(make_worker: MakeWorker, training: dict[str, Any]) -> None:
    worker = make_worker(training, device="cuda")
    for number, pruning in enumerate((TOGETHER, gradually(TOGETHER))):
        result, model = finished(worker, trial(pruning, number))
        assert_pruned_as_asked(result, model, TOGETHER)
        assert result.metric is not None
        assert result.metric > 0.4
        assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32, torch.int64}


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_a_compiled_trial_on_a_gpu(make_worker: MakeWorker) -> None:
    worker = make_worker({"compile": True, "precision": "bf16", "channels_last": True}, device="cuda")
    result, model = finished(worker, trial(TOGETHER))
    assert_pruned_as_asked(result, model, TOGETHER)


@pytest.mark.gpu
@pytest.mark.parametrize("training", [{}, {"precision": "fp16"}], ids=["float32", "fp16"])
def test_a_trial_leaves_no_memory_taken_on_a_gpu(make_worker: MakeWorker, training: dict[str, Any]) -> None:
    worker = make_worker(training, device="cuda")
    prunings = (NEURON, gradually(TOGETHER), PruningConfig({"stem": 4}, "taylor"))
    for number, pruning in enumerate(prunings):
        finished(worker, trial(pruning, number))  # what libraries keep for themselves is there from now on
    level = torch.cuda.memory_allocated()
    for number, pruning in enumerate(prunings, 3):
        events = worker.run(trial(pruning, number))
        peak = max(torch.cuda.memory_allocated() for event in events if isinstance(event, EpochReport))
        assert peak > level
        assert torch.cuda.memory_allocated() == level
    dropped_after(worker.run(trial(NEURON, 8)), 1)
    assert torch.cuda.memory_allocated() == level
    assert run(worker, trial(NEURON, 9, lr=1e30)).state == "failed"
    assert torch.cuda.memory_allocated() == level
