"""What a study has found out so far, as arrays: its trained networks, and its running and stopped trials."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from optuna.trial import FrozenTrial

from autoprune.config.metric import MetricSpec
from autoprune.study.dense_reference import DenseReference
from autoprune.study.pareto import non_dominated_mask
from autoprune.study.records import ORIGIN, config_of, curve_of, result_of
from autoprune.trial import Scalar, TrialConfig, TrialResult

Floats = npt.NDArray[np.float64]
Widths = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrainedModel:
    """A trained network that a trial may start from: the dense one, or a finished trial's.

    Attributes:
        number: Number of the trial; ``None`` is the dense network.
        widths: Channels of every group, shape ``(n_groups,)``. A group of a removed block counts as 1 channel.
        score: The metric on the validation split, signed so that higher is better.
        costs: Measured costs by name.
        params: Parameters that the trial was suggested with; empty for the dense network.
        removed_blocks: Names of the blocks that it lacks.
        parent: Number of the trial that it started from; ``None`` is the dense network.
        epochs: Epochs of this trial.
        lineage_epochs: Epochs of this trial and of all its ancestors.
        origin: What proposed the trial.
    """

    number: int | None
    widths: Widths
    score: float
    costs: Mapping[str, float]
    params: Mapping[str, Scalar]
    removed_blocks: tuple[str, ...]
    parent: int | None
    epochs: int
    lineage_epochs: int
    origin: str


@dataclass(frozen=True)
class PendingTrial:
    """A trial that runs now, or that ended without a network. Its fields are those of :class:`TrainedModel`."""

    params: Mapping[str, Scalar]
    parent: int | None
    origin: str
    widths: Widths
    removed_blocks: tuple[str, ...]
    epochs: int


@dataclass(frozen=True)
class StoppedTrial:
    """A trial that was stopped before its last epoch.

    Attributes:
        number: Number of the trial.
        trial: The trial as it was planned, ``trial.epochs`` long.
        score: Estimate of the score after ``trial.epochs``: the score when it was stopped, plus the median
            gain of the finished trials from the same share of their epochs to the end.
    """

    number: int
    trial: PendingTrial
    score: float


def trial_key(parent: int | None, params: Mapping[str, Scalar]) -> int:
    """Return a hash of a trial's parent and of all its parameters, in any order."""
    return hash((parent, frozenset(params.items())))


def non_dominated(
    models: Sequence[TrainedModel], costs_of: Callable[[Sequence[TrainedModel]], Floats]
) -> list[TrainedModel]:
    """Return the networks that no other one dominates; of equal ones only the latest.

    Args:
        costs_of: Returns the costs of networks, shape ``(n_models, n_costs)``.
    """
    if not models:
        return []
    values = np.column_stack([[model.score for model in models], costs_of(models)])  # (n_models, 1 + n_costs)
    mask = non_dominated_mask(values, ["maximize", *["minimize"] * (values.shape[1] - 1)])  # (n_models,)
    front = [model for model, keep in zip(models, mask, strict=True) if keep]
    return list(dict(zip(map(tuple, values[mask].tolist()), front, strict=True)).values())


class History:
    """The finished and the running trials of a study. An ended trial is read once.

    Args:
        widths: Group -> channels in the dense network.
        metric: Turns the trials' metrics into scores.

    Attributes:
        groups: Names of all groups, in the order of every array's group axis.
        dense: The dense network.
        trained: Trial number -> network of a finished trial.
        ended: Trial number -> trial that ended without a network.
        running: Trial number -> trial that runs now.
    """

    def __init__(self, widths: Mapping[str, int], dense: DenseReference, metric: MetricSpec) -> None:
        self.groups, self._metric = tuple(widths), metric
        whole = np.array(list(widths.values()), dtype=np.int64)
        score, costs = metric.score(dense.metric), dense.cost.figures()
        self.dense = TrainedModel(None, whole, score, costs, {}, (), None, 0, 0, "dense")
        self.trained: dict[int, TrainedModel] = {}
        self.ended: dict[int, PendingTrial] = {}
        self.running: dict[int, PendingTrial] = {}
        self._stopped: dict[int, tuple[PendingTrial, list[float]]] = {}
        self._curves: dict[int, list[float]] = {}
        self._n_settled = 0
        self._tried: set[int] = set()
        self._n_compared = 0
        self._front: list[TrainedModel] = []

    def refresh(self, trials: Sequence[FrozenTrial]) -> None:
        """Read what has changed since the last call.

        Args:
            trials: All trials of the study, by number.
        """
        running: dict[int, PendingTrial] = {}
        for trial in trials[self._n_settled :]:
            if trial.number in self.trained or trial.number in self.ended:
                continue
            config = config_of(trial)
            if config is None:
                continue
            origin = str(trial.user_attrs.get(ORIGIN, ""))
            result = result_of(trial) if trial.state.is_finished() else None
            if result is not None and result.state == "finished":
                self.trained[trial.number] = self._trained_model(config, result, origin)
                self._curves[trial.number] = self._curve_of(trial)
                self._tried.add(trial_key(config.parent, config.params))
            elif trial.state.is_finished():
                pending = self.ended[trial.number] = self._pending(config, origin)
                curve = self._curve_of(trial)
                if result is not None and result.state == "stopped" and curve:
                    self._stopped[trial.number] = pending, curve
                self._tried.add(trial_key(config.parent, config.params))
            else:
                running[trial.number] = self._pending(config, origin)
        self.running = running
        while self._n_settled < len(trials) and trials[self._n_settled].state.is_finished():
            self._n_settled += 1

    def get(self, number: int | None) -> TrainedModel:
        """Return the network of a finished trial; ``None`` gives the dense network."""
        return self.dense if number is None else self.trained[number]

    def origins(self) -> set[str]:
        """Return what proposed the trials that have ended or run now."""
        everything: Iterable[TrainedModel | PendingTrial] = itertools.chain(
            self.trained.values(), self.ended.values(), self.running.values()
        )
        return {each.origin for each in everything}

    def tried(self) -> set[int]:
        """Return the keys, by :func:`trial_key`, of the trials that have ended or run now."""
        return self._tried | {trial_key(each.parent, each.params) for each in self.running.values()}

    def stopped(self) -> list[StoppedTrial]:
        """Return the stopped trials for which a finished one tells how they would have ended."""
        gains: dict[float, float | None] = {}  # trials are stopped after few different shares of their epochs
        found = []
        for number, (trial, curve) in self._stopped.items():
            share = len(curve) / trial.epochs
            if share not in gains:
                gains[share] = self._gain_after(share)
            gain = gains[share]
            if gain is not None:
                found.append(StoppedTrial(number, trial, curve[-1] + gain))
        return found

    def _gain_after(self, share: float) -> float | None:
        """Return the finished trials' median gain in score after a share of their epochs; ``None`` if none tells.

        Their schedules were at the same point then.
        """
        gains = []
        for number, curve in self._curves.items():
            epoch = math.ceil(share * len(curve))
            if epoch < len(curve):
                gains.append(self.trained[number].score - curve[epoch - 1])
        return float(np.median(gains)) if gains else None

    def front(self, costs_of: Callable[[Sequence[TrainedModel]], Floats]) -> list[TrainedModel]:
        """Return the non-dominated trained networks; of equal ones only the latest.

        A dominated network stays dominated. So only the networks since the last call are compared with the front.

        Args:
            costs_of: Returns the costs of networks, shape ``(n_models, n_costs)``; the same function in every call.
        """
        models = [*self._front, *itertools.islice(self.trained.values(), self._n_compared, None)]
        self._n_compared = len(self.trained)
        self._front = non_dominated(models, costs_of)
        return self._front

    def _trained_model(self, config: TrialConfig, result: TrialResult, origin: str) -> TrainedModel:
        cost = result.cost
        assert cost is not None
        assert result.metric is not None
        costs = {name: getattr(cost, name) for name in ("params", "nonzero_params", "size_bytes", "macs", "flops")}
        return TrainedModel(
            number=result.number,
            widths=self._widths(result.kept),
            score=self._metric.score(result.metric),
            costs=costs if cost.latency_ms is None else costs | {"latency_ms": cost.latency_ms},
            params=config.params,
            removed_blocks=result.removed_blocks,
            parent=config.parent,
            epochs=result.epochs,
            lineage_epochs=result.epochs_lineage,
            origin=origin,
        )

    def _curve_of(self, trial: FrozenTrial) -> list[float]:
        """Return a trial's score after each of its epochs."""
        return [self._metric.score(value) for value in curve_of(trial)]

    def _pending(self, config: TrialConfig, origin: str) -> PendingTrial:
        pruning = config.pruning
        widths = self._widths(pruning.widths)
        return PendingTrial(config.params, config.parent, origin, widths, pruning.removed_blocks, config.epochs)

    def _widths(self, named: Mapping[str, int]) -> Widths:
        """Return the channels of every group, shape ``(n_groups,)``; a group that is not named keeps all of them."""
        dense = zip(self.groups, self.dense.widths.tolist(), strict=True)
        return np.array([max(1, named.get(group, width)) for group, width in dense], dtype=np.int64)
