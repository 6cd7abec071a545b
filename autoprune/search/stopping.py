"""Stopping inside a trial: by non-domination in accuracy at a rung and known cost, against the trials before it."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

N_BETTER = 3
"""Trials that must have been at least as accurate at the same rung, at no more cost, for a trial to be stopped."""

N_RUNGS = 4
"""Parts that a trial's epochs are divided into; at the end of each but the last is a rung."""

MIN_PAIRS = 8
"""Finished trials from which on a rung's rank correlation with the end is believed."""

MIN_CORRELATION = 0.5
"""Rank correlation below which a rung stops nobody."""


@dataclass(frozen=True)
class Rung:
    """How far a rung tells the end.

    Attributes:
        share: Of a trial's epochs, those up to the rung.
        n_trials: Trials whose accuracy at it is known.
        n_finished: Those of them that were trained to the end.
        correlation: Spearman's rank correlation, over the finished ones, of the accuracy at it with the accuracy at the
            end; ``None`` if there are fewer than ``MIN_PAIRS`` of them, or all are alike.
    """

    share: float
    n_trials: int
    n_finished: int
    correlation: float | None


class Rungs:
    """What every trial had reached after every epoch, and who need not go on.

    Schedules stand at the same place after the same share of the epochs. So a trial is compared at the end of each
    quarter, with trials that are no longer than it.

    Source:
        Non-dominated ranks inside rungs: Schmucker et al. 2021, Multi-objective Asynchronous Successive Halving,
        arXiv 2106.12639. The rule here asks for a number of better trials instead of a share of the rung, so that a
        trial at a cost that few have tried is never stopped.
    """

    def __init__(self) -> None:
        self._curves: dict[int, list[float]] = {}
        self._costs: dict[int, tuple[float, ...]] = {}
        self._epochs: dict[int, int] = {}
        self._ends: dict[int, float] = {}

    def record(self, number: int, epochs: int, costs: Sequence[float], curve: Sequence[float]) -> None:
        """Take in the accuracies of a trial after each of its epochs so far.

        Args:
            epochs: Epochs that it is to train in all.
            costs: Its known costs.
        """
        self._curves[number], self._costs[number], self._epochs[number] = list(curve), tuple(costs), epochs

    def curve(self, number: int) -> list[float]:
        """A trial's accuracy after each of its epochs, as far as recorded."""
        return self._curves.get(number, [])

    def record_end(self, number: int, accuracy: float) -> None:
        """Take in a finished trial's accuracy."""
        self._ends[number] = accuracy

    def stops(self, number: int) -> bool:
        """Whether a trial should end after its last recorded epoch."""
        epoch, epochs = len(self._curves[number]), self._epochs[number]
        rung = N_RUNGS * epoch // epochs
        if not 0 < rung < N_RUNGS:
            return False
        accuracy, costs = self._curves[number][-1], self._costs[number]
        better = (
            other
            for other, reached in self._at(rung).items()
            if other != number
            and self._epochs[other] <= epochs
            and reached >= accuracy
            and all(cost <= own for cost, own in zip(self._costs[other], costs, strict=True))
        )
        if len(list(itertools.islice(better, N_BETTER))) < N_BETTER:
            return False
        correlation = self.rung(rung).correlation
        return correlation is None or correlation >= MIN_CORRELATION

    def rung(self, rung: int) -> Rung:
        """How far a rung, from 1 on, tells the end."""
        reached = self._at(rung)
        pairs = [(accuracy, self._ends[number]) for number, accuracy in reached.items() if number in self._ends]
        known = len(pairs) >= MIN_PAIRS and all(len(set(column)) > 1 for column in zip(*pairs, strict=True))
        correlation = float(pd.DataFrame(pairs).corr(method="spearman").to_numpy()[0, 1]) if known else None
        return Rung(rung / N_RUNGS, len(reached), len(pairs), correlation)

    def reached(self) -> list[Rung]:
        """The rungs that a trial has reached."""
        rungs = [self.rung(rung) for rung in range(1, N_RUNGS)]
        return [rung for rung in rungs if rung.n_trials]

    def _at(self, rung: int) -> dict[int, float]:
        """Trial number -> accuracy after the first epoch at or behind a rung and before the end."""
        found = {}
        for number, curve in self._curves.items():
            epoch = math.ceil(self._epochs[number] * rung / N_RUNGS)
            if epoch <= len(curve) and epoch < self._epochs[number]:
                found[number] = curve[epoch - 1]
        return found
