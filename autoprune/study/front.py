"""The front of a running study, kept up to date one trial at a time."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from autoprune.study.dense_reference import DenseReference
from autoprune.study.pareto import hypervolume
from autoprune.trial import TrialResult


class Front:
    """The non-dominated trials so far.

    Args:
        objectives: Names of the objectives, such as ``("accuracy", "flops")``.
        directions: ``"maximize"`` or ``"minimize"``, one per objective.
    """

    def __init__(self, objectives: Sequence[str], directions: Sequence[str]) -> None:
        self.objectives = tuple(objectives)
        self.directions = tuple(directions)
        self.members: dict[int, TrialResult] = {}
        self._signs = np.array([1.0 if direction == "minimize" else -1.0 for direction in directions])
        self._minimized: npt.NDArray[np.float64] = np.empty(
            (0, len(self.directions))
        )  # the members' values, lower is better

    def values(self, result: TrialResult) -> list[float]:
        """The objective values of a trained trial, in the order of the objectives; NaN where one is missing."""
        found = [result.accuracy if name == "accuracy" else getattr(result.cost, name) for name in self.objectives]
        return [float("nan") if value is None else float(value) for value in found]

    def add(self, result: TrialResult) -> list[int]:
        """Take in a finished trial.

        Returns:
            Numbers of the trials that are dominated now: members that fell, or the new trial itself.
        """
        new, others = self._signs * self.values(result), self._minimized
        if np.isnan(new).any() or ((others <= new).all(axis=1) & (others < new).any(axis=1)).any():
            return [result.number]
        falls = np.all(new <= others, axis=1) & np.any(new < others, axis=1)
        fallen = [number for number, gone in zip(self.members, falls, strict=True) if gone]
        for number in fallen:
            del self.members[number]
        self.members[result.number] = result
        self._minimized = np.vstack([others[~falls], new])
        return fallen

    def hypervolume(self, dense: DenseReference) -> float:
        """What the front dominates of the box from the dense network's cost at accuracy 0 to cost 0 at accuracy 1.

        Costs count relative to the dense network's. Where the dense metric is negative, twice its value takes the place
        of accuracy 0.
        """
        if not self.members:
            return 0.0
        scale = np.array([1.0 if name == "accuracy" else dense.value(name) for name in self.objectives])
        floor = min(0.0, 2.0 * dense.accuracy)
        reference = np.array([floor if name == "accuracy" else 1.0 for name in self.objectives])
        values = np.array([self.values(each) for each in self.members.values()])
        return hypervolume(values / scale, self.directions, reference)
