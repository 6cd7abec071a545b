"""The record of a trial in the study storage, and trials as tables: trials.parquet and front.parquet."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import pandas as pd

from autoprune.config.metric import MetricSpec
from autoprune.config.optimizers import OPTIMIZERS
from autoprune.training.schedules import BATCH_SIZE_SCHEDULES, LR_SCHEDULES
from autoprune.training.schedules.parameters import KindSpec
from autoprune.trial import (
    DistillationConfig,
    OptimizerConfig,
    RunId,
    Scalar,
    ScheduleConfig,
    TrialConfig,
    TrialResult,
    config_from_dict,
    parse_json,
    result_from_dict,
)

Run = TypeVar("Run", bound=RunId)

CONFIG, RESULT, RETRIES, LADDER = "autoprune:config", "autoprune:result", "autoprune:retries", "autoprune:ladder"
"""Names of the user attributes that hold a trial's record in the study storage."""

CURVE = "autoprune:curve"
"""Name of the user attribute that holds a trial's metric after each of its epochs."""

PARENT, ORIGIN = "autoprune:parent", "autoprune:origin"
"""Names of the user attributes in which a sampler that picks parents says which one, and what proposed the trial."""

SOURCE = "autoprune:source"
"""Name of the user attribute of a trial that was taken over from another study: that study's name, the trial's number
in it, and whether its network is one that this study's space and ceilings allow."""

CONSTRAINT = "ceilings"
"""Name of the Optuna constraint that is above 0 for a candidate over a ceiling."""

TARGET = "autoprune:n_trials"
"""Name of the study's user attribute that holds the number of trials it is to reach, where that was changed."""

COST_COLUMNS = ("params", "nonzero_params", "size_bytes", "macs", "flops")

LINEAGE_SIGN = " > "
"""Stands between the numbers of a lineage, oldest first."""

_TRAINING = ("optimizer", "lr_schedule", "batch_size_schedule", "distillation")


class Recorded(Protocol):
    """A trial or study that carries its record: one of Optuna's, or rows of its storage."""

    @property
    def user_attrs(self) -> Mapping[str, Any]: ...


class RecordedTrial(Recorded, Protocol):
    """A trial that carries its record."""

    @property
    def number(self) -> int: ...


def config_of(trial: Recorded) -> TrialConfig | None:
    """The configuration a trial was dispatched with, or ``None`` if it never was."""
    record = trial.user_attrs.get(CONFIG)
    return None if record is None else config_from_dict(parse_json(record))


def planned_epochs_of(trial: Recorded) -> int | None:
    """The epochs a trial was to be trained for; quicker than :func:`config_of`."""
    record = trial.user_attrs.get(CONFIG)
    return None if record is None else int(parse_json(record)["epochs"])


def result_of(trial: Recorded) -> TrialResult | None:
    """The result a trial was told with, or ``None`` if it has not ended."""
    record = trial.user_attrs.get(RESULT)
    return None if record is None else result_from_dict(parse_json(record))


def curve_of(trial: Recorded) -> list[float]:
    """A trial's metric after each of its epochs, as far as it came; empty where nothing was noted."""
    return [float(value) for value in trial.user_attrs.get(CURVE, [])]


@dataclass(frozen=True)
class TrainedTrial:
    """A trial that was trained: to its end, or until it was stopped.

    Attributes:
        config: Of a stopped trial too the whole schedule that it was on, ``config.epochs`` long.
        result: Metric, widths and cost after ``result.epochs`` epochs. A stopped trial's batch norm was not
            recalibrated, its latency not measured, and under gradual pruning it may be wider than ``config`` asks.
        curve: Metric on the validation split after each of ``result.epochs`` epochs; empty for a trial of a study
            that did not note it.
    """

    config: TrialConfig
    result: TrialResult
    curve: tuple[float, ...]


def trained_of(trial: Recorded) -> TrainedTrial | None:
    """What is known of a trial that was trained; ``None`` if it has not ended, failed, or was over a ceiling."""
    config, result = config_of(trial), result_of(trial)
    if config is None or result is None or result.state not in ("finished", "stopped"):
        return None
    return TrainedTrial(config, result, tuple(curve_of(trial)))


def ancestors(parents: Mapping[Run, Run | None], run: Run) -> list[Run]:
    """List a run and those that it descends from, the one that started from the dense network first.

    Args:
        parents: Run, such as a trial's number -> its parent, ``None`` for the dense network.
    """
    line = [run]
    while (parent := parents.get(line[0])) is not None:
        line.insert(0, parent)
    return line


def source_of(trial: Recorded) -> Mapping[str, Any] | None:
    """Where a trial was taken over from, as ``SOURCE`` says; ``None`` for one that this study ran."""
    source: Mapping[str, Any] | None = trial.user_attrs.get(SOURCE)
    return source


def target_of(study: Recorded, at_first: int) -> int:
    """Trials that a study is to reach: what was asked for last, ``at_first`` if nothing was."""
    return int(study.user_attrs.get(TARGET, at_first))


class TrialTable:
    """One row a trial that has ended, by number; a column's type does not depend on the rows.

    Args:
        groups: Every group of the pruning plan, for the ``kept.`` columns.
        params: Every dimension of the space -> its column's type, for the ``param.`` columns.
        metric: The study's, for the columns ``metric.<name>`` and ``metric.<name>_se``.
    """

    def __init__(self, groups: Sequence[str], params: Mapping[str, str], metric: MetricSpec) -> None:
        self._groups, self._metric = groups, metric
        self._params = dict(params)
        self._parents: dict[int, int | None] = {}
        self._new: list[Mapping[str, object]] = []
        self._frame = self._typed([])

    def add(self, config: TrialConfig | None, result: TrialResult, source: Mapping[str, Any] | None = None) -> None:
        """Take in a trial that has ended, and whose ancestors are in already.

        Args:
            source: Where it was taken over from, as :func:`source_of` has it.
        """
        self._parents[result.number] = config.parent if config else None
        lineage = LINEAGE_SIGN.join(map(str, ancestors(self._parents, result.number)))
        row = _row(config, result, lineage, self._metric, self._groups, self._params)
        self._new.append({**row, "source": f"{source['study']}:{source['number']}" if source else None})

    def frame(self, front: Iterable[int]) -> pd.DataFrame:
        """The table now.

        Args:
            front: Numbers of the trials on the front.
        """
        if self._new:
            frame = pd.concat([self._frame, self._typed(self._new)]) if len(self._frame) else self._typed(self._new)
            self._frame, self._new = frame.sort_values("number", ignore_index=True), []
        return self._frame.assign(on_front=self._frame["number"].isin(list(front)))

    def _typed(self, rows: Sequence[Mapping[str, object]]) -> pd.DataFrame:
        columns = _columns(self._metric, self._groups, self._params)
        frame = pd.DataFrame(rows, columns=columns, dtype="object")
        whole = ["parent", *COST_COLUMNS, "epochs", "epochs_lineage", *(f"kept.{group}" for group in self._groups)]
        numbers = [self._metric.column, self._metric.error_column, "latency_ms", "train_time_s"]
        return frame.astype(
            dict.fromkeys(whole, "Int64")
            | dict.fromkeys(numbers, "float64")
            | dict.fromkeys(("state", "lineage", *_TRAINING, "error", "source"), "str")
            | {"number": "int64", "seed": "int64", "on_front": "bool"}
            | {f"param.{name}": dtype for name, dtype in self._params.items()}
        )


def training_texts(
    optimizer: OptimizerConfig,
    lr: ScheduleConfig,
    batch_size: ScheduleConfig,
    distillation: DistillationConfig,
) -> dict[str, str]:
    """How a network is trained, in short: column name -> text such as ``cosine lr=0.05 warmup=0.1``.

    Floats have three digits, and parameters at their defaults are left out.
    """
    weight, temperature = distillation.weight, distillation.temperature
    return {
        "optimizer": _described(OPTIMIZERS, optimizer.name, optimizer.params),
        "lr_schedule": _described(LR_SCHEDULES, lr.kind, lr.params),
        "batch_size_schedule": _described(BATCH_SIZE_SCHEDULES, batch_size.kind, batch_size.params),
        "distillation": f"weight={weight:.3g} temperature={temperature:.3g}" if weight else "none",
    }


def _training_of(config: TrialConfig) -> dict[str, str]:
    return training_texts(config.optimizer, config.lr_schedule, config.batch_size_schedule, config.distillation)


def _described(kinds: Mapping[str, KindSpec], kind: str, params: Mapping[str, Scalar]) -> str:
    shown = {name: value for name, value in params.items() if value != kinds[kind].params[name].default}
    values = (f"{value:.3g}" if isinstance(value, float) else str(value) for value in shown.values())
    return " ".join([kind, *(f"{name}={value}" for name, value in zip(shown, values, strict=True))])


def _columns(metric: MetricSpec, groups: Sequence[str], params: Iterable[str]) -> list[str]:
    first = [
        "number",
        "state",
        metric.column,
        metric.error_column,
        *COST_COLUMNS,
        "latency_ms",
        "parent",
        "lineage",
        "epochs",
        "epochs_lineage",
    ]
    first += [*_TRAINING, "train_time_s", "seed", "error", "on_front", "source"]
    return first + [f"param.{name}" for name in params] + [f"kept.{group}" for group in groups]


def _row(
    config: TrialConfig | None,
    result: TrialResult,
    lineage: str,
    metric: MetricSpec,
    groups: Sequence[str],
    params: Iterable[str],
) -> Mapping[str, object]:
    cost = result.cost
    return {
        "number": result.number,
        "state": result.state,
        metric.column: result.metric,
        metric.error_column: result.metric_se,
        **{name: getattr(cost, name, None) for name in (*COST_COLUMNS, "latency_ms")},
        "parent": config.parent if config else None,
        "lineage": lineage,
        "epochs": result.epochs,
        "epochs_lineage": result.epochs_lineage,
        **dict.fromkeys(_TRAINING),
        **(_training_of(config) if config else {}),
        "train_time_s": result.train_time_s,
        "seed": result.seed,
        "error": result.error,
        "on_front": False,
        **{f"param.{name}": config.params.get(name) if config else None for name in params},
        **{f"kept.{group}": result.kept.get(group) for group in groups},
    }
