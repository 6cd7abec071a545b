"""Trials as tables: the columns of trials.parquet and front.parquet."""

import json
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from optuna.study import Study
from optuna.trial import BaseTrial, FrozenTrial

from autoprune.space import Dimension
from autoprune.trial import TrialConfig, TrialResult, config_from_dict, result_from_dict

CONFIG, RESULT, RETRIES, LADDER = "autoprune:config", "autoprune:result", "autoprune:retries", "autoprune:ladder"
"""Names of the user attributes that hold a trial's record in the study storage."""

CURVE = "autoprune:curve"
"""Name of the user attribute that holds a trial's accuracy after each of its epochs."""

PARENT, ORIGIN = "autoprune:parent", "autoprune:origin"
"""Names of the user attributes in which a sampler that picks parents says which one, and what proposed the trial."""

TARGET = "autoprune:n_trials"
"""Name of the study's user attribute that holds the number of trials it is to reach, where that was changed."""

COST_COLUMNS = ("params", "nonzero_params", "size_bytes", "macs", "flops")


def config_of(trial: BaseTrial) -> TrialConfig | None:
    """The configuration a trial was dispatched with, or ``None`` if it never was."""
    record = trial.user_attrs.get(CONFIG)
    return None if record is None else config_from_dict(json.loads(record))


def result_of(trial: FrozenTrial) -> TrialResult | None:
    """The result a trial was told with, or ``None`` if it has not ended."""
    record = trial.user_attrs.get(RESULT)
    return None if record is None else result_from_dict(json.loads(record))


def curve_of(trial: FrozenTrial) -> list[float]:
    """A trial's accuracy after each of its epochs, as far as it came; empty where nothing was noted."""
    return [float(accuracy) for accuracy in trial.user_attrs.get(CURVE, [])]


def target_of(study: Study, at_first: int) -> int:
    """Trials that a study is to reach: what was asked for last, ``at_first`` if nothing was."""
    return int(study.user_attrs.get(TARGET, at_first))


class TrialTable:
    """One row a trial that has ended, by number; a column's type does not depend on the rows.

    Args:
        groups: Every group of the pruning plan, for the ``kept.`` columns.
        dimensions: Every dimension of the space, for the ``param.`` columns.
    """

    def __init__(self, groups: Sequence[str], dimensions: Iterable[Dimension]) -> None:
        self._groups = groups
        self._params = {dimension.name: _column_type(dimension) for dimension in dimensions}
        self._new: list[Mapping[str, object]] = []
        self._frame = self._typed([])

    def add(self, config: TrialConfig | None, result: TrialResult) -> None:
        """Take in a trial that has ended."""
        self._new.append(_row(config, result, self._groups, self._params))

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
        frame = pd.DataFrame(rows, columns=_columns(self._groups, self._params), dtype="object")
        whole = ["parent", *COST_COLUMNS, "epochs", "epochs_lineage", *(f"kept.{group}" for group in self._groups)]
        numbers = ["accuracy", "latency_ms", "train_time_s"]
        return frame.astype(
            dict.fromkeys(whole, "Int64")
            | dict.fromkeys(numbers, "float64")
            | {"number": "int64", "seed": "int64", "on_front": "bool", "state": "str", "error": "str"}
            | {f"param.{name}": dtype for name, dtype in self._params.items()}
        )


def _column_type(dimension: Dimension) -> str:
    if not isinstance(dimension.domain, list):
        return "Int64" if dimension.integer else "float64"
    kinds = {type(choice) for choice in dimension.domain}
    if kinds == {bool}:
        return "boolean"
    if kinds == {int}:
        return "Int64"
    return "float64" if kinds <= {int, float} else "str"


def _columns(groups: Sequence[str], params: Iterable[str]) -> list[str]:
    first = ["number", "state", "accuracy", *COST_COLUMNS, "latency_ms", "parent", "epochs", "epochs_lineage"]
    first += ["train_time_s", "seed", "error", "on_front"]
    return first + [f"param.{name}" for name in params] + [f"kept.{group}" for group in groups]


def _row(
    config: TrialConfig | None, result: TrialResult, groups: Sequence[str], params: Iterable[str]
) -> Mapping[str, object]:
    cost = result.cost
    return {
        "number": result.number,
        "state": result.state,
        "accuracy": result.accuracy,
        **{name: getattr(cost, name, None) for name in (*COST_COLUMNS, "latency_ms")},
        "parent": config.parent if config else None,
        "epochs": result.epochs,
        "epochs_lineage": result.epochs_lineage,
        "train_time_s": result.train_time_s,
        "seed": result.seed,
        "error": result.error,
        "on_front": False,
        **{f"param.{name}": config.params.get(name) if config else None for name in params},
        **{f"kept.{group}": result.kept.get(group) for group in groups},
    }
