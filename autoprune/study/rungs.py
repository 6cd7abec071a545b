"""Rungs: what every trial had reached after each share of its epochs, and how far that tells its end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

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
        n_trials: Trials whose score at it is known.
        n_finished: Those of them that were trained to the end.
        correlation: Spearman's rank correlation, over the finished ones, of the score at it with the score at the
            end; ``None`` if there are fewer than ``MIN_PAIRS`` of them, or all are alike.
    """

    share: float
    n_trials: int
    n_finished: int
    correlation: float | None


class Rungs:
    """The score that every trial had reached after every epoch.

    Schedules stand at the same place after the same share of the epochs. So trials are compared at the end of each
    quarter.
    """

    def __init__(self) -> None:
        self._curves: dict[int, list[float]] = {}
        self.costs: dict[int, tuple[float, ...]] = {}
        self.epochs: dict[int, int] = {}
        self._ends: dict[int, float] = {}

    def record(self, number: int, epochs: int, costs: Sequence[float], curve: Sequence[float]) -> None:
        """Take in the scores of a trial after each of its epochs so far.

        Args:
            epochs: Epochs that it is to train in all.
            costs: Its known costs.
        """
        self._curves[number], self.costs[number], self.epochs[number] = list(curve), tuple(costs), epochs

    def curve(self, number: int) -> list[float]:
        """A trial's score after each of its epochs, as far as recorded."""
        return self._curves.get(number, [])

    def record_end(self, number: int, score: float) -> None:
        """Take in a finished trial's score."""
        self._ends[number] = score

    def rung(self, rung: int) -> Rung:
        """How far a rung, from 1 on, tells the end."""
        reached = self.at(rung)
        pairs = [(score, self._ends[number]) for number, score in reached.items() if number in self._ends]
        known = len(pairs) >= MIN_PAIRS and all(len(set(column)) > 1 for column in zip(*pairs, strict=True))
        correlation = float(pd.DataFrame(pairs).corr(method="spearman").to_numpy()[0, 1]) if known else None
        return Rung(rung / N_RUNGS, len(reached), len(pairs), correlation)

    def reached(self) -> list[Rung]:
        """The rungs that a trial has reached."""
        rungs = [self.rung(rung) for rung in range(1, N_RUNGS)]
        return [rung for rung in rungs if rung.n_trials]

    def at(self, rung: int) -> dict[int, float]:
        """Trial number -> score after the first epoch at or behind a rung and before the end."""
        found = {}
        for number, curve in self._curves.items():
            epoch = math.ceil(self.epochs[number] * rung / N_RUNGS)
            if epoch <= len(curve) and epoch < self.epochs[number]:
                found[number] = curve[epoch - 1]
        return found
