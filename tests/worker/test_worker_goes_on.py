"""A trial goes on after a death to the same bits."""

from typing import Any

import pytest
import torch
from worker_trials import LAYER, NEURON, dropped_after, finished, gradually, run, trial

from autoprune.formats.saved_model import load_model
from autoprune.trial import (
    DistillationConfig,
    EpochReport,
    OptimizerConfig,
    PruningConfig,
    ScheduleConfig,
    TrialConfig,
    TrialResult,
)
from autoprune.worker import Worker


@pytest.mark.parametrize("n_epochs", [1, 2, 3])
@pytest.mark.parametrize("gradual", [False, True], ids=["at once", "gradually"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_trial_goes_on_to_the_same_bits(worker: Worker, n_epochs: int, gradual: bool, optimizer: str) -> None:
    changes: dict[str, Any] = {
        "optimizer": OptimizerConfig(optimizer, {}),
        "lr": 0.02,
        "lr_schedule": ScheduleConfig("plateau", {"lr": 0.02, "patience": 0}),
    }
    pruning = PruningConfig(
        widths={"stem": 5, "block1.conv1": 3}, criterion="taylor", weight_ratios={"head.weight": 0.6}
    )
    pruning = gradually(pruning) if gradual else pruning
    *whole_reports, whole = worker.run(trial(pruning, 0, **changes))
    dropped_after(worker.run(trial(pruning, 1, **changes)), n_epochs)
    *reports, result = Worker(worker.folder).run(trial(pruning, 1, **changes))
    assert isinstance(result, TrialResult)
    assert isinstance(whole, TrialResult)
    assert (result.metric, result.loss, result.kept) == (whole.metric, whole.loss, whole.kept)
    told = [(report.epoch, report.metric, report.loss) for report in reports if isinstance(report, EpochReport)]
    expected = [(each.epoch, each.metric, each.loss) for each in whole_reports if isinstance(each, EpochReport)]
    assert told == expected[n_epochs - 1 :], "the last epoch before the death is told again"
    models = [load_model(worker.folder.model(number), worker.task.build_model).state_dict() for number in (0, 1)]
    torch.testing.assert_close(models[0], models[1], rtol=0, atol=0)


def test_a_distilled_trial_follows_the_dense_network_and_goes_on_to_the_same_bits(worker: Worker) -> None:
    distilled = DistillationConfig(weight=1.0, temperature=2.0)
    plain, _ = finished(worker, trial(NEURON, 0))
    whole, model = finished(worker, trial(NEURON, 1, distillation=distilled))
    dropped_after(worker.run(trial(NEURON, 2, distillation=distilled)), 2)
    result, again = finished(Worker(worker.folder), trial(NEURON, 2, distillation=distilled))
    assert (result.metric, result.loss) == (whole.metric, whole.loss)
    assert whole.loss != plain.loss
    torch.testing.assert_close(model.state_dict(), again.state_dict(), rtol=0, atol=0)
    networks = [load_model(worker.folder.model(number), worker.task.build_model).eval() for number in (None, 0, 1)]
    inputs, _ = worker.task.data.validation.batch(torch.arange(150))
    with torch.no_grad():
        dense, *others = (network(inputs).softmax(1) for network in networks)
    far, near = (float((other - dense).abs().sum(1).mean()) for other in others)
    assert near < far


@pytest.mark.parametrize("gradual", [False, True], ids=["at once", "gradually"])
def test_a_reconstructed_trial_goes_on_to_the_same_bits(worker: Worker, gradual: bool) -> None:
    pruning = PruningConfig(NEURON.widths, "obs", reconstruct=True)
    pruning = gradually(pruning) if gradual else pruning
    whole, expected = finished(worker, trial(pruning, 0))
    dropped_after(worker.run(trial(pruning, 1)), 1)
    again, model = finished(Worker(worker.folder), trial(pruning, 1))
    assert (again.metric, again.loss) == (whole.metric, whole.loss)
    torch.testing.assert_close(model.state_dict(), expected.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_a_damaged_checkpoint_starts_the_trial_anew(worker: Worker, damage: str) -> None:
    whole = run(worker, trial(NEURON, 0))
    dropped_after(worker.run(trial(NEURON, 1)), 2)
    path = worker.folder.training_checkpoint(1)
    content = path.read_bytes()
    path.write_bytes({"cut": content[:-1000], "garbage": b"?" * len(content), "empty": b""}[damage])
    *reports, result = worker.run(trial(NEURON, 1))
    assert len(reports) == 3
    assert isinstance(result, TrialResult)
    assert (result.metric, result.loss) == (whole.metric, whole.loss)


@pytest.mark.parametrize("other", [trial(NEURON, 2), trial(NEURON, 1, seed=6), trial(LAYER, 1)])
def test_another_trials_checkpoint_starts_the_trial_anew(worker: Worker, other: TrialConfig) -> None:
    whole = run(worker, trial(NEURON, 0))
    dropped_after(worker.run(other), 2)
    path = worker.folder.training_checkpoint(1)
    worker.folder.training_checkpoint(other.number).replace(path)
    *reports, result = worker.run(trial(NEURON, 1))
    assert len(reports) == 3
    assert isinstance(result, TrialResult)
    assert (result.metric, result.loss, result.kept) == (whole.metric, whole.loss, whole.kept)
