"""What a trial cuts, by each method, at once and gradually, is what was asked."""

from typing import Any

import pytest
from worker_trials import (
    ALL,
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
from autoprune.training.evaluation import evaluate
from autoprune.trial import EpochReport, PruningConfig, ScheduleConfig, TrialResult
from autoprune.worker import Worker


@pytest.mark.parametrize("gradual", [False, True], ids=["at once", "gradually"])
@pytest.mark.parametrize("pruning", ALL.values(), ids=ALL.keys())
def test_each_method_alone_and_all_together(worker: Worker, pruning: PruningConfig, gradual: bool) -> None:
    config = trial(gradually(pruning) if gradual else pruning)
    *reports, result = worker.run(config)
    assert isinstance(result, TrialResult)
    assert result.error is None
    epochs = [report for report in reports if isinstance(report, EpochReport)]
    assert [report.epoch for report in epochs] == [1, 2, 3]
    assert [report.batch_size for report in epochs] == [50] * 3
    assert epochs[-1].train_time_s == result.train_time_s > 0

    model = load_model(worker.folder.model(0), worker.task.build_model)
    assert_pruned_as_asked(result, model, pruning)
    judged = evaluate(model, worker.task.data.validation, worker.task)
    assert (result.metric, result.loss) == (judged.metric, pytest.approx(judged.loss))
    assert result.metric is not None
    assert result.metric > 0.4
    cost = result.cost
    assert cost is not None
    assert cost.params == sum(parameter.numel() for parameter in model.parameters())
    assert cost.nonzero_params == sum(int(parameter.count_nonzero()) for parameter in model.parameters())
    assert cost.size_bytes == (worker.folder.model(0) / "model.safetensors").stat().st_size
    assert cost.latency_ms is not None
    assert (result.epochs, result.epochs_lineage, result.seed) == (3, 3, 5)


@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("size", [16, 200], ids=["many steps", "one step an epoch"])
def test_gradual_pruning_reaches_just_what_was_asked(worker: Worker, share: float, size: int) -> None:
    schedule = ScheduleConfig("constant", {"size": size})
    result, model = finished(worker, trial(gradually(TOGETHER, share), epochs=2, batch_size_schedule=schedule))
    assert_pruned_as_asked(result, model, TOGETHER)


def test_gradual_pruning_narrows_from_cut_to_cut(worker: Worker) -> None:
    config = trial(gradually(NEURON, 1.0), epochs=5, batch_size_schedule=ScheduleConfig("constant", {"size": 200}))
    from autoprune.training.checkpoint import load_checkpoint

    widths = []
    for event in worker.run(config):
        if isinstance(event, EpochReport):
            state = load_checkpoint(worker.folder.training_checkpoint(0))
            assert state is not None
            widths.append(state["kept"]["block1.conv1"])
    # Cut k of 10 is due at progress (k - 1) / 10, so epochs start at cuts 1, 3, 5, 7, 9: 3 + 5 (1 - k / 10)^3, rounded.
    assert widths == [round(3 + 5 * (1 - k / 10) ** 3) for k in (1, 3, 5, 7, 9)] == [7, 5, 4, 3, 3]


@pytest.mark.parametrize("criterion", ["l2", "obs"])
def test_a_reconstructed_network_begins_nearer_to_the_dense_one(worker: Worker, criterion: str) -> None:
    losses = {}
    for number, reconstruct in enumerate((False, True)):
        pruning = PruningConfig({"stem": 4, "block1.conv1": 4, "block2.conv1": 4}, criterion, reconstruct)
        result, model = finished(worker, trial(pruning, number, lr=1e-9, epochs=1))
        assert_pruned_as_asked(result, model, pruning)
        losses[reconstruct] = result.loss
    assert losses[True] < losses[False]


def test_masked_weights_stay_zero_at_every_step(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    from autoprune.training.loop import Trainer

    zeros: list[int] = []
    step = Trainer._step

    def watched(trainer: Trainer, *args: Any) -> float:
        loss = step(trainer, *args)
        head = dict(trainer.model.named_parameters())["head.weight"]
        zeros.append(int((head == 0).sum()))
        return loss

    monkeypatch.setattr(Trainer, "_step", watched)
    _, model = finished(worker, trial(WEIGHT))
    assert zeros == [640] * 12
    assert int((model.get_parameter("head.weight") == 0).sum()) == 640
    assert int((model.get_parameter("stem.weight") == 0).sum()) == 0


@pytest.mark.parametrize("gradual", [False, True], ids=["at once", "gradually"])
def test_a_pattern_holds_in_the_network_and_what_it_does_not_fit_is_told(worker: Worker, gradual: bool) -> None:
    pruning = PruningConfig(
        widths={"stem": 6, "block1.conv1": 4},  # so that a convolution has 6 input channels, and the head 6 x 16
        removed_blocks=("block2",),
        weight_ratios={
            f"{name}.weight": 0.5 for name in ("stem", "block1.conv1", "block1.conv2", "block2.conv1", "head")
        },
        weight_pattern="2:4",
    )
    config = trial(gradually(pruning) if gradual else pruning)
    dropped_after(worker.run(config), 2)
    result, model = finished(Worker(worker.folder), config)
    assert result.left_dense == ("stem.weight", "block1.conv1.weight")
    for name in ("stem.weight", "block1.conv1.weight"):
        assert model.get_parameter(name).all()
    for name in ("block1.conv2.weight", "head.weight"):
        groups = (model.get_parameter(name) != 0).movedim(1, -1).reshape(-1, 4)
        assert (groups.sum(1) == 2).all()


def test_the_file_holds_no_masks_and_shrinks_with_the_ratio(worker: Worker) -> None:
    names = ("block1.conv1.weight", "block2.conv1.weight", "head.weight")
    costs = []
    for number, ratio in enumerate((0.0, 0.3, 0.6, 0.9)):
        result, model = finished(worker, trial(PruningConfig(weight_ratios=dict.fromkeys(names, ratio)), number))
        assert model.state_dict().keys() == worker.task.build_model().state_dict().keys()
        assert result.cost is not None
        costs.append(result.cost)
    assert [cost.nonzero_params for cost in costs] == sorted({cost.nonzero_params for cost in costs}, reverse=True)
    assert [cost.size_bytes for cost in costs] == sorted({cost.size_bytes for cost in costs}, reverse=True)
    assert len({cost.macs for cost in costs}) == 1


def test_gradual_pruning_goes_on_from_what_the_parent_lost(worker: Worker) -> None:
    parent = run(worker, trial(PruningConfig({"stem": 6}, weight_ratios={"head.weight": 0.5}), 0))
    assert parent.error is None
    final = gradually(PruningConfig({"stem": 4}, weight_ratios={"head.weight": 0.7}), 1.0)
    from autoprune.training.checkpoint import load_checkpoint

    shares, widths = [], []
    config = trial(final, 1, parent=0, batch_size_schedule=ScheduleConfig("constant", {"size": 200}))
    for event in worker.run(config):
        if isinstance(event, EpochReport):
            state = load_checkpoint(worker.folder.training_checkpoint(1))
            assert state is not None
            shares.append(float((state["trainer"]["model"]["head.weight"] == 0).float().mean()))
            widths.append(state["kept"]["stem"])
    assert isinstance(event, TrialResult)
    assert min(shares) >= 0.49
    assert shares == sorted(shares)
    assert max(widths) <= 6
    assert (event.kept["stem"], event.epochs_lineage) == (4, 6)
