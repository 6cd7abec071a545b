"""What a candidate is worth: its own expected improvement, and that of the descent which could start from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from autoprune.search.samplers.cost_aware.accuracy_model import MAX_CONDITIONED, MEDIAN, WEIGHTS, AccuracyModel
from autoprune.search.samplers.cost_aware.candidates import Candidate, Candidates
from autoprune.search.samplers.cost_aware.costs import KnownCosts
from autoprune.search.samplers.cost_aware.ehvi import Staircase
from autoprune.search.samplers.cost_aware.features import Features
from autoprune.search.samplers.cost_aware.history import History, Node, Pending, Stopped
from autoprune.trial import Scalar

Floats = npt.NDArray[np.float64]
Widths = npt.NDArray[np.int64]

LOOK_AHEAD = 3
"""Steps of the descent that is imagined behind each candidate."""

STEP = 0.65
"""Share of the cost that an imagined step keeps."""

STRENGTH = 0.7
"""How strongly an imagined step follows the sensitivity map."""


@dataclass(frozen=True)
class _Batch:
    """Trials, done or imagined, as the model is asked about them."""

    parents: Sequence[Node]
    widths: Widths
    shares: Floats
    parent_shares: Floats
    epochs: Sequence[int]
    training: Sequence[Mapping[str, Scalar]]


class Outlook:
    """Predicts accuracies, from the finished trials on.

    Args:
        history: With at least one finished trial. Stopped ones count as they would have ended.
        front: Its non-dominated networks. A candidate improves on these, on the dense one, and on the trials that run,
            which are taken to come out as predicted.
        floor: Accuracy below which a network is worth nothing.
        look_ahead: Steps imagined behind each candidate; 0 where trials do not start from one another.
    """

    def __init__(
        self,
        draws: Candidates,
        costs: KnownCosts,
        features: Features,
        history: History,
        front: Sequence[Node],
        floor: float,
        look_ahead: int = LOOK_AHEAD,
    ) -> None:
        self._draws, self._costs, self._features, self._look_ahead = draws, costs, features, look_ahead
        nodes, stopped = list(history.nodes.values()), history.stopped()
        costs.learn(nodes)
        by_number: list[Node | Stopped] = sorted([*nodes, *stopped], key=lambda trial: trial.number or 0)
        self._model = AccuracyModel(history.root.accuracy, np.array([trial.accuracy for trial in by_number]))
        latest = by_number[-MAX_CONDITIONED:]
        self._model.fit(self._rows(self._batch([_meant(trial) for trial in latest], history, self._shares_of(latest))))
        best = [history.root, *front]
        places, accuracies = costs.axes(costs.measured(best)), np.array([node.accuracy for node in best])
        running = list(history.running.values())
        if running:
            shares = self._shares_of(running)
            expected = self._model.predict(self._rows(self._batch(running, history, shares)))[:, MEDIAN]
            places, accuracies = np.concatenate([places, costs.axes(shares)]), np.concatenate([accuracies, expected])
        self._stairs = Staircase(places, accuracies, floor)

    def scores(self, candidates: Sequence[Candidate]) -> Floats:
        """Expected hypervolume improvement an epoch, shape ``(n_candidates,)``.

        A better network is also a better parent. So behind each candidate a descent is imagined, each step cut from the
        one before and trained alike, its parent's accuracy taken as predicted. A candidate scores by the best average
        an epoch over itself and the steps behind it, as many as pay.
        """
        blocks = [self._draws.removed_blocks(each) for each in candidates]
        parents = [each.parent for each in candidates]
        widths = np.stack([each.widths for each in candidates])
        epochs = [max(1, self._draws.epochs_of(each)) for each in candidates]
        training = [each.training for each in candidates]
        parent_shares, shares = self._costs.measured(parents), self._costs.shares(widths, blocks)
        best = total = np.zeros(len(candidates))
        bound = np.ones_like(shares)
        for step in range(self._look_ahead + 1):
            batch = _Batch(parents, widths, shares, parent_shares, epochs, training)
            outcomes = self._model.predict(self._rows(batch))
            gain = self._stairs.expected_improvement(self._costs.axes(shares), outcomes, WEIGHTS)
            if step:  # only at costs below those of the step before, which covers the rest
                gain = gain - self._stairs.expected_improvement(self._costs.axes(bound), outcomes, WEIGHTS)
            total = total + gain
            best = np.maximum(best, total / (np.array(epochs) * (step + 1)))
            if step < self._look_ahead:
                expected = outcomes[:, MEDIAN]
                parents = [
                    replace(parent, number=-1, widths=row, accuracy=float(accuracy), lineage=parent.lineage + spent)
                    for parent, row, accuracy, spent in zip(parents, widths, expected, epochs, strict=True)
                ]
                bound = parent_shares = shares
                widths = self._next_step(widths)
                shares = np.minimum(self._costs.shares(widths, blocks), parent_shares)
        return best

    def _next_step(self, widths: Widths) -> Widths:
        main = np.maximum(self._costs.main_share(widths) * STEP, self._draws.smallest_share)
        cuts = self._draws.cuts
        return cuts.no_wider(cuts.at(main, np.full(len(main), STRENGTH)), widths)

    def _shares_of(self, trials: Sequence[Node | Pending | Stopped]) -> Floats:
        """What trials cost, as measured or as known before, as shares of dense, shape ``(n, n_costs)``."""
        shares = np.empty((len(trials), len(self._costs.objectives)))
        measured = [(row, trial) for row, trial in enumerate(trials) if isinstance(trial, Node)]
        known = [(row, _meant(trial)) for row, trial in enumerate(trials) if not isinstance(trial, Node)]
        if measured:
            shares[[row for row, _ in measured]] = self._costs.measured([node for _, node in measured])
        if known:
            widths = np.stack([each.widths for _, each in known])
            shares[[row for row, _ in known]] = self._costs.shares(widths, [each.removed_blocks for _, each in known])
        return shares

    def _batch(self, trials: Sequence[Node | Pending], history: History, shares: Floats) -> _Batch:
        """Trials of the study."""
        parents = [history.get(each.parent) for each in trials]
        widths = np.stack([each.widths for each in trials])
        wide = self._costs.measured(parents)
        return _Batch(parents, widths, shares, wide, [each.epochs for each in trials], [each.params for each in trials])

    def _rows(self, batch: _Batch) -> Floats:
        levels = self._model.level(np.array([parent.accuracy for parent in batch.parents]))
        return self._features(
            batch.parents, batch.widths, batch.shares, batch.parent_shares, batch.epochs, batch.training, levels
        )


def _meant(trial: Node | Pending | Stopped) -> Node | Pending:
    return trial.trial if isinstance(trial, Stopped) else trial
