"""Trials of the tiny network, and what their networks must have."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from autoprune.formats.saved_model import load_model
from autoprune.pruning.blocks.removed import RemovedBlock
from autoprune.trial import EpochReport, OptimizerConfig, PruningConfig, ScheduleConfig, TrialConfig, TrialResult
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
        "run": number,
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


def dropped_after(events: Iterator[EpochReport | TrialResult], n_epochs: int) -> None:
    """Let the process die after so many epochs: nobody asks for the next event."""
    for _ in range(n_epochs):
        next(events)
