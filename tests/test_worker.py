"""The worker runs a trial to its end, goes on after a death to the same bits, and turns errors into causes."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tiny import TINY_TASK
from torch import nn

from autoprune.pruning.layer import RemovedBlock
from autoprune.saved_model import load_model
from autoprune.search.session import Session
from autoprune.training import evaluate
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

WIDTHS = {"stem": 8, "block1.conv1": 8, "block2.conv1": 8}
NEURON = PruningConfig(widths={"stem": 5, "block1.conv1": 3, "block2.conv1": 8})
LAYER = PruningConfig(removed_blocks=("block2",))
WEIGHT = PruningConfig(weight_ratios={"block1.conv1.weight": 0.7, "head.weight": 0.5})
GLOBAL = PruningConfig(weight_ratios={"block1.conv1.weight": 0.6, "head.weight": 0.6}, weight_scope="global")
LAMP = PruningConfig(weight_ratios={"block1.conv1.weight": 0.6, "head.weight": 0.6}, weight_scope="lamp")
PATTERN = PruningConfig(weight_ratios={"block1.conv1.weight": 0.5, "head.weight": 0.5}, weight_pattern="2:4")
TOGETHER = PruningConfig(
    widths={"stem": 6, "block1.conv1": 4, "block2.conv1": 2},
    removed_blocks=("block2",),
    weight_ratios={"block1.conv1.weight": 0.5, "head.weight": 0.6},
)
ALL = {
    "neuron": NEURON,
    "layer": LAYER,
    "weight": WEIGHT,
    "global weight": GLOBAL,
    "lamp": LAMP,
    "pattern": PATTERN,
    "together": TOGETHER,
}


def trial(pruning: PruningConfig, number: int = 0, lr: float = 0.05, **changes: Any) -> TrialConfig:
    settings: dict[str, Any] = {
        "number": number,
        "seed": 5,
        "epochs": 3,
        "optimizer": OptimizerConfig("sgd", {"momentum": 0.9}),
        "lr_schedule": ScheduleConfig("cosine", {"lr": lr}),
        "batch_size_schedule": ScheduleConfig("constant", {"size": 50}),
        "pruning": pruning,
    }
    return TrialConfig(**{**settings, **changes})


def gradually(pruning: PruningConfig, share: float = 0.8) -> PruningConfig:
    return PruningConfig(**{**vars(pruning), "gradual_share": share})


def run(worker: Worker, config: TrialConfig) -> TrialResult:
    *reports, result = worker.run(config)
    assert isinstance(result, TrialResult)
    if result.state == "finished":
        assert all(isinstance(report, EpochReport) for report in reports)
    return result


def finished(worker: Worker, config: TrialConfig) -> tuple[TrialResult, nn.Module]:
    result = run(worker, config)
    assert (result.state, result.error) == ("finished", None)
    return result, load_model(worker.folder.model(config.number), worker.task.build_model)


@pytest.fixture
def make_worker(tiny_study: Callable[..., Session]) -> Callable[..., Worker]:
    def make(changes: dict[str, Any] | None = None, name: str = "a", task: str = TINY_TASK) -> Worker:
        return Worker(tiny_study(changes, name, task).folder)

    return make


@pytest.fixture
def worker(make_worker: Callable[..., Worker]) -> Worker:
    return make_worker()


def expected_widths(pruning: PruningConfig) -> dict[str, int]:
    widths = {**WIDTHS, **pruning.widths}
    return {name: 0 if name.startswith(tuple(pruning.removed_blocks) or "-") else n for name, n in widths.items()}


def assert_pruned_as_asked(result: TrialResult, model: nn.Module, pruning: PruningConfig) -> None:
    """The saved network itself has the widths, the blocks and the zeros."""
    widths = expected_widths(pruning)
    assert result.kept == widths
    modules: dict[str, Any] = dict(model.named_modules())
    for name, width in widths.items():
        assert (modules[name].out_channels if name in modules else 0) == width
    for block in ("block1", "block2"):
        assert isinstance(modules[block], RemovedBlock) == (block in pruning.removed_blocks)
    asked = {
        name: pruning.weight_ratios[name] for name in pruning.weight_ratios if name in dict(model.named_parameters())
    }
    shares = {name: parameter.numel() for name, parameter in model.named_parameters() if name in asked}
    zeros = {name: int((parameter == 0).sum()) for name, parameter in model.named_parameters() if name in asked}
    if pruning.weight_scope == "layer":
        assert zeros == {name: round(asked[name] * shares[name]) for name in asked}
    else:
        assert sum(zeros.values()) == round(sum(asked[name] * shares[name] for name in asked))


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
    assert (result.accuracy, result.loss) == (judged.accuracy, pytest.approx(judged.loss))
    assert result.accuracy is not None
    assert result.accuracy > 0.4
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
    from autoprune.training import load_checkpoint

    widths = []
    for event in worker.run(config):
        if isinstance(event, EpochReport):
            state = load_checkpoint(worker.folder.training_checkpoint(0))
            assert state is not None
            widths.append(state["kept"]["block1.conv1"])
    # Cut k of 10 is due at progress (k - 1) / 10, so epochs start at cuts 1, 3, 5, 7, 9: 3 + 5 (1 - k / 10)^3, rounded.
    assert widths == [round(3 + 5 * (1 - k / 10) ** 3) for k in (1, 3, 5, 7, 9)] == [7, 5, 4, 3, 3]


def dropped_after(events: Iterator[EpochReport | TrialResult], n_epochs: int) -> None:
    """Let the process die after so many epochs: nobody asks for the next event."""
    for _ in range(n_epochs):
        next(events)


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
    assert (result.accuracy, result.loss, result.kept) == (whole.accuracy, whole.loss, whole.kept)
    told = [(report.epoch, report.accuracy, report.loss) for report in reports if isinstance(report, EpochReport)]
    expected = [(each.epoch, each.accuracy, each.loss) for each in whole_reports if isinstance(each, EpochReport)]
    assert told == expected[n_epochs - 1 :], "the last epoch before the death is told again"
    models = [load_model(worker.folder.model(number), worker.task.build_model).state_dict() for number in (0, 1)]
    torch.testing.assert_close(models[0], models[1], rtol=0, atol=0)


def test_a_distilled_trial_follows_the_dense_network_and_goes_on_to_the_same_bits(worker: Worker) -> None:
    distilled = DistillationConfig(weight=1.0, temperature=2.0)
    plain, _ = finished(worker, trial(NEURON, 0))
    whole, model = finished(worker, trial(NEURON, 1, distillation=distilled))
    dropped_after(worker.run(trial(NEURON, 2, distillation=distilled)), 2)
    result, again = finished(Worker(worker.folder), trial(NEURON, 2, distillation=distilled))
    assert (result.accuracy, result.loss) == (whole.accuracy, whole.loss)
    assert whole.loss != plain.loss
    torch.testing.assert_close(model.state_dict(), again.state_dict(), rtol=0, atol=0)
    networks = [load_model(worker.folder.model(number), worker.task.build_model).eval() for number in (None, 0, 1)]
    inputs, _ = worker.task.data.validation.batch(torch.arange(150))
    with torch.no_grad():
        dense, *others = (network(inputs).softmax(1) for network in networks)
    far, near = (float((other - dense).abs().sum(1).mean()) for other in others)
    assert near < far


@pytest.mark.parametrize("criterion", ["l2", "obs"])
def test_a_reconstructed_network_begins_nearer_to_the_dense_one(worker: Worker, criterion: str) -> None:
    losses = {}
    for number, reconstruct in enumerate((False, True)):
        pruning = PruningConfig({"stem": 4, "block1.conv1": 4, "block2.conv1": 4}, criterion, reconstruct)
        result, model = finished(worker, trial(pruning, number, lr=1e-9, epochs=1))
        assert_pruned_as_asked(result, model, pruning)
        losses[reconstruct] = result.loss
    assert losses[True] < losses[False]


@pytest.mark.parametrize("gradual", [False, True], ids=["at once", "gradually"])
def test_a_reconstructed_trial_goes_on_to_the_same_bits(worker: Worker, gradual: bool) -> None:
    pruning = PruningConfig(NEURON.widths, "obs", reconstruct=True)
    pruning = gradually(pruning) if gradual else pruning
    whole, expected = finished(worker, trial(pruning, 0))
    dropped_after(worker.run(trial(pruning, 1)), 1)
    again, model = finished(Worker(worker.folder), trial(pruning, 1))
    assert (again.accuracy, again.loss) == (whole.accuracy, whole.loss)
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
    assert (result.accuracy, result.loss) == (whole.accuracy, whole.loss)


@pytest.mark.parametrize("other", [trial(NEURON, 2), trial(NEURON, 1, seed=6), trial(LAYER, 1)])
def test_another_trials_checkpoint_starts_the_trial_anew(worker: Worker, other: TrialConfig) -> None:
    whole = run(worker, trial(NEURON, 0))
    dropped_after(worker.run(other), 2)
    path = worker.folder.training_checkpoint(1)
    worker.folder.training_checkpoint(other.number).replace(path)
    *reports, result = worker.run(trial(NEURON, 1))
    assert len(reports) == 3
    assert isinstance(result, TrialResult)
    assert (result.accuracy, result.loss, result.kept) == (whole.accuracy, whole.loss, whole.kept)


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
    assert not worker.folder.has_model(0)


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


def test_masked_weights_stay_zero_at_every_step(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    from autoprune.training import Trainer

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


def test_gradual_pruning_goes_on_from_what_the_parent_lost(worker: Worker) -> None:
    parent = run(worker, trial(PruningConfig({"stem": 6}, weight_ratios={"head.weight": 0.5}), 0))
    assert parent.error is None
    final = gradually(PruningConfig({"stem": 4}, weight_ratios={"head.weight": 0.7}), 1.0)
    from autoprune.training import load_checkpoint

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
