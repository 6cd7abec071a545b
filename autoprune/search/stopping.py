"""Stopping inside a trial: by non-domination in accuracy at an epoch and known cost, against the trials before it."""

import itertools
from collections.abc import Mapping, Sequence

from scipy.stats import spearmanr

N_BETTER = 3
"""Trials that must have been at least as accurate at the same epoch, at no more cost, for a trial to be stopped."""

MIN_PAIRS = 8
"""Finished trials from which on an epoch's rank correlation with the end is believed."""

MIN_CORRELATION = 0.5
"""Rank correlation below which an epoch stops nobody."""


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
        accuracy, costs = self._curves[number][-1], self._costs[number]
        better = (
            other
            for other, curve in self._curves.items()
            if other != number
            and self._epochs[other] == epochs
            and len(curve) >= epoch
            and curve[epoch - 1] >= accuracy
            and all(cost <= own for cost, own in zip(self._costs[other], costs, strict=True))
        )
        if len(list(itertools.islice(better, N_BETTER))) < N_BETTER:
            return False
        correlation = self._correlation(epochs, epoch)
        return correlation is None or correlation >= MIN_CORRELATION

    def correlations(self, epochs: int) -> Mapping[int, float]:
        """Epoch -> Spearman's rank correlation of the accuracy after it with the accuracy at the end.

        Of the finished trials with so many epochs in all; an epoch that fewer than ``MIN_PAIRS`` of them have reached,
        or at which all are alike, is missing.
        """
        found = {epoch: self._correlation(epochs, epoch) for epoch in range(1, epochs)}
        return {epoch: correlation for epoch, correlation in found.items() if correlation is not None}

    def _correlation(self, epochs: int, epoch: int) -> float | None:
        pairs = [
            (self._curves[number][epoch - 1], end)
            for number, end in self._ends.items()
            if self._epochs.get(number) == epochs and len(self._curves[number]) >= epoch
        ]
        if len(pairs) < MIN_PAIRS or any(len(set(column)) == 1 for column in zip(*pairs, strict=True)):
            return None
        return float(spearmanr(pairs).statistic)
