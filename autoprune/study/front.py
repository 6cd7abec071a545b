"""The front of a running study, kept up to date one trial at a time."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from autoprune.config.metric import MetricSpec
from autoprune.study.dense_reference import DenseReference
from autoprune.study.pareto import hypervolume
from autoprune.trial import TrialResult


class Front:
    """The non-dominated trials so far, of those that are equal in every objective the one with the lowest number.

    The networks of the others stay, as a trial may start from them.

    Args:
        objectives: Names of the objectives, such as ``("accuracy", "flops")``.
        metric: Name and direction of the one that is no cost.
    """

    def __init__(self, objectives: Sequence[str], metric: MetricSpec) -> None:
        self.objectives = tuple(objectives)
        self.directions = tuple(metric.directions(objectives))
        self._metric = metric
        self._non_dominated: dict[int, TrialResult] = {}
        self._signs = np.array([1.0 if direction == "minimize" else -1.0 for direction in self.directions])
        self._minimized: npt.NDArray[np.float64] = np.empty((0, len(self.directions)))  # their values, lower is better

    @property
    def members(self) -> dict[int, TrialResult]:
        """Number -> result of the trials on the front."""
        first: dict[bytes, int] = {}
        for number, values in zip(self._non_dominated, self._minimized + 0.0, strict=True):
            first[values.tobytes()] = min(number, first.get(values.tobytes(), number))
        shown = set(first.values())
        return {number: result for number, result in self._non_dominated.items() if number in shown}

    def values(self, result: TrialResult) -> list[float]:
        """The objective values of a trained trial, in the order of the objectives; NaN where one is missing."""
        metric = self._metric.name
        found = [result.metric if name == metric else getattr(result.cost, name) for name in self.objectives]
        return [float("nan") if value is None else float(value) for value in found]

    def add(self, result: TrialResult) -> list[int]:
        """Take in a finished trial.

        Returns:
            Numbers of the trials that are dominated now: some that were not before, or the new trial itself.
        """
        new, others = self._signs * self.values(result), self._minimized
        if np.isnan(new).any() or ((others <= new).all(axis=1) & (others < new).any(axis=1)).any():
            return [result.number]
        falls = np.all(new <= others, axis=1) & np.any(new < others, axis=1)
        fallen = [number for number, gone in zip(self._non_dominated, falls, strict=True) if gone]
        for number in fallen:
            del self._non_dominated[number]
        self._non_dominated[result.number] = result
        self._minimized = np.vstack([others[~falls], new])
        return fallen

    def hypervolume(self, dense: DenseReference) -> float:
        """What the front dominates of the box from the dense network's cost at the metric's floor to cost 0.

        Costs count relative to the dense network's. The metric counts in units of :meth:`MetricSpec.unit` from
        :meth:`MetricSpec.floor` on: accuracy from 0 to 1, an RMSE from twice the dense network's down to 0.
        """
        if not self._non_dominated:
            return 0.0
        metric, unit = self._metric, self._metric.unit(dense.metric)
        scale = np.array([unit if name == metric.name else dense.value(name) for name in self.objectives])
        floor = metric.value(metric.floor(dense.metric)) / unit
        reference = np.array([floor if name == metric.name else 1.0 for name in self.objectives])
        values = np.array([self.values(each) for each in self._non_dominated.values()])
        return hypervolume(values / scale, self.directions, reference)
