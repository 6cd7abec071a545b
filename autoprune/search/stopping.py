"""Stopping inside a trial: by non-domination in accuracy at an epoch and known cost, against the trials before it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

N_BETTER = 3
"""Trials that must have been at least as accurate at the same epoch, at no more cost, for a trial to be stopped."""

MIN_PAIRS = 8
"""Finished trials from which on an epoch's rank correlation with the end is believed."""

MIN_CORRELATION = 0.5
"""Rank correlation below which an epoch stops nobody."""


@dataclass(frozen=True)
class Rung:
    """How far one epoch tells the end, of the trials with so many epochs in all.

    Attributes:
        epochs: Epochs that these trials were to train in all.
        epoch: The epoch looked at, before the last.
        n_trials: Trials whose accuracy after it is known.
        n_finished: Those of them that were trained to the end.
        correlation: Spearman's rank correlation, over the finished ones, of the accuracy after this epoch with the
            accuracy at the end; ``None`` if there are fewer than ``MIN_PAIRS`` of them, or all are alike.
    """

    epochs: int
    epoch: int
    n_trials: int
    n_finished: int
    correlation: float | None


class Rungs:
    """What every trial had reached after every epoch, and who need not go on.

    A trial is compared with those of as many epochs in all, as the schedules of others stand elsewhere.

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
        if epoch >= epochs:
            return False
        accuracy, costs = self._curves[number][-1], np.array(self._costs[number])
        better = [
            other
            for other, curve in self._curves.items()
            if other != number
            and self._epochs[other] == epochs
            and len(curve) >= epoch
            and curve[epoch - 1] >= accuracy
            and (np.array(self._costs[other]) <= costs).all()
        ]
        if len(better) < N_BETTER:
            return False
        correlation = self.rung(epochs, epoch).correlation
        return correlation is None or correlation >= MIN_CORRELATION

    def rung(self, epochs: int, epoch: int) -> Rung:
        """How far an epoch tells the end of the trials with ``epochs`` epochs in all."""
        reached = [n for n, curve in self._curves.items() if self._epochs[n] == epochs and len(curve) >= epoch]
        pairs = [(self._curves[n][epoch - 1], self._ends[n]) for n in reached if n in self._ends]
        known = len(pairs) >= MIN_PAIRS and all(len(set(column)) > 1 for column in zip(*pairs, strict=True))
        correlation = float(spearmanr(pairs).statistic) if known else None
        return Rung(epochs, epoch, len(reached), len(pairs), correlation)

    def reached(self) -> list[Rung]:
        """Every epoch before the last that a trial has reached, by the trials' epochs in all."""
        lengths = sorted(
            {(self._epochs[n], epoch) for n, curve in self._curves.items() for epoch in range(1, len(curve) + 1)}
        )
        return [self.rung(epochs, epoch) for epochs, epoch in lengths if epoch < epochs]
