"""The acquisition function: expected hypervolume improvement an epoch, of a candidate and of what may follow it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from autoprune.search.samplers.cost_aware.candidates import Candidate, CandidateGenerator
from autoprune.search.samplers.cost_aware.costs import KnownCosts
from autoprune.search.samplers.cost_aware.ehvi import EHVI
from autoprune.search.samplers.cost_aware.features import Features
from autoprune.search.samplers.cost_aware.history import History, PendingTrial, StoppedTrial, TrainedModel
from autoprune.search.samplers.cost_aware.score_model import ScoreModel
from autoprune.search.samplers.cost_aware.settings import CostAwareSettings
from autoprune.trial import Scalar

Floats = npt.NDArray[np.float64]
Widths = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Batch:
    """``n`` trials, real or imagined, for the model.

    Attributes:
        parents: The network that each starts from.
        widths: Shape ``(n, n_groups)``.
        shares, parent_shares: Costs as shares of dense, shape ``(n, n_costs)``.
        epochs: Epochs that each trains for.
        training: Values of the training's dimensions of each.
    """

    parents: Sequence[TrainedModel]
    widths: Widths
    shares: Floats
    parent_shares: Floats
    epochs: Sequence[int]
    training: Sequence[Mapping[str, Scalar]]


class Acquisition:
    """Values candidates by a model of the score that is fitted to the trials so far.

    Running trials count as points of the front with their predicted score (the "kriging believer"). Stopped trials
    are learned from with the score that they would have ended with.

    Args:
        generator: Knows how long candidates train and which blocks they lack.
        history: The study's trials, with at least one finished one.
        front: The non-dominated networks among them. A candidate improves on these and on the dense one.
        floor: Score below which a network is worth nothing.
        look_ahead_steps: Steps that are imagined behind each candidate; 0 where trials do not start from one another.
        settings: Those of the model and of the imagined steps.

    Source:
        Kriging believer: Ginsbourger et al. 2010, https://doi.org/10.1007/978-3-642-10701-6_6
    """

    def __init__(
        self,
        generator: CandidateGenerator,
        costs: KnownCosts,
        features: Features,
        history: History,
        front: Sequence[TrainedModel],
        floor: float,
        look_ahead_steps: int,
        settings: CostAwareSettings,
    ) -> None:
        self._generator, self._costs, self._features = generator, costs, features
        self._look_ahead_steps, self._settings = look_ahead_steps, settings.acquisition
        trained, stopped = list(history.trained.values()), history.stopped()
        costs.learn(trained)
        by_number: list[TrainedModel | StoppedTrial] = sorted([*trained, *stopped], key=lambda trial: trial.number or 0)
        scores = np.array([trial.score for trial in by_number])  # (n_trials,)
        make_model = settings.replacements.score_model or ScoreModel
        self._model = make_model(history.dense.score, scores, settings.score_model)
        latest = by_number[-settings.score_model.max_conditioned :]
        planned = [_planned(trial) for trial in latest]
        self._model.fit(self._rows(self._batch(planned, history, self._shares_of(latest))))
        best = [history.dense, *front]
        axes, scores = costs.axes(costs.measured(best)), np.array([model.score for model in best])
        running = list(history.running.values())
        if running:
            shares = self._shares_of(running)  # (n_running, n_costs)
            predicted = self._model.predict(self._rows(self._batch(running, history, shares)))[:, self._model.median]
            axes, scores = np.concatenate([axes, costs.axes(shares)]), np.concatenate([scores, predicted])
        self._ehvi = EHVI(axes, scores, floor, settings.acquisition.max_front)

    def values(self, candidates: Sequence[Candidate]) -> Floats:
        """Return the expected hypervolume improvement an epoch of each candidate, shape ``(n_candidates,)``.

        A better network is also a better parent. So a descent is imagined behind each candidate: each step is pruned
        from the one before and trained alike, and its parent's score is the predicted one. A candidate's value is
        the highest average an epoch over itself and the first so many steps behind it.

        Source:
            Expected improvement by cost: Snoek et al. 2012, https://arxiv.org/abs/1206.2944, section 3.2.
        """
        blocks = [self._generator.removed_blocks(each) for each in candidates]
        parents = [each.parent for each in candidates]
        widths = np.stack([each.widths for each in candidates])  # (n_candidates, n_groups)
        epochs = [max(1, self._generator.epochs_of(each)) for each in candidates]
        training = [each.training for each in candidates]
        parent_shares, shares = self._costs.measured(parents), self._costs.shares(widths, blocks)
        best = total = np.zeros(len(candidates))
        step_before = np.ones_like(shares)  # (n_candidates, n_costs)
        for step in range(self._look_ahead_steps + 1):
            batch = _Batch(parents, widths, shares, parent_shares, epochs, training)
            outcomes = self._model.predict(self._rows(batch))  # (n_candidates, n_outcomes)
            weights = self._model.outcome_weights  # (n_outcomes,)
            gain = self._ehvi(self._costs.axes(shares), outcomes, weights)  # (n_candidates,)
            if step:  # only at costs below those of the step before, which covers the rest
                gain = gain - self._ehvi(self._costs.axes(step_before), outcomes, weights)
            total = total + gain
            best = np.maximum(best, total / (np.array(epochs) * (step + 1)))
            if step < self._look_ahead_steps:
                predicted = outcomes[:, self._model.median]  # (n_candidates,)
                parents = [
                    replace(
                        parent,
                        number=-1,
                        widths=row,
                        score=float(score),
                        lineage_epochs=parent.lineage_epochs + spent,
                    )
                    for parent, row, score, spent in zip(parents, widths, predicted, epochs, strict=True)
                ]
                step_before = parent_shares = shares
                widths = self._imagined_step(widths)
                shares = np.minimum(self._costs.shares(widths, blocks), parent_shares)
        return best

    def _imagined_step(self, widths: Widths) -> Widths:
        """Prune networks by one imagined step, shape ``(n, n_groups)`` in and out."""
        settings, paths = self._settings, self._generator.paths
        shares = np.maximum(self._costs.main_share(widths) * settings.look_ahead_kept_share, paths.min_share)  # (n,)
        return paths.no_wider(paths.at(shares, np.full(len(shares), settings.look_ahead_strength)), widths)

    def _shares_of(self, trials: Sequence[TrainedModel | PendingTrial | StoppedTrial]) -> Floats:
        """Return what trials cost as shares of dense, shape ``(n_trials, n_costs)``: measured, else as known before."""
        shares = np.empty((len(trials), len(self._costs.objectives)))
        trained = [(row, trial) for row, trial in enumerate(trials) if isinstance(trial, TrainedModel)]
        others = [(row, _planned(trial)) for row, trial in enumerate(trials) if not isinstance(trial, TrainedModel)]
        if trained:
            shares[[row for row, _ in trained]] = self._costs.measured([model for _, model in trained])
        if others:
            widths = np.stack([each.widths for _, each in others])  # (n_others, n_groups)
            blocks = [each.removed_blocks for _, each in others]
            shares[[row for row, _ in others]] = self._costs.shares(widths, blocks)
        return shares

    def _batch(self, trials: Sequence[TrainedModel | PendingTrial], history: History, shares: Floats) -> _Batch:
        """Gather trials of the study, whose costs have shape ``(n_trials, n_costs)``."""
        parents = [history.get(each.parent) for each in trials]
        return _Batch(
            parents=parents,
            widths=np.stack([each.widths for each in trials]),
            shares=shares,
            parent_shares=self._costs.measured(parents),
            epochs=[each.epochs for each in trials],
            training=[each.params for each in trials],
        )

    def _rows(self, batch: _Batch) -> Floats:
        """Return the features of trials, shape ``(n, n_features)``."""
        levels = self._model.level(np.array([parent.score for parent in batch.parents]))  # (n,)
        return self._features(
            batch.parents, batch.widths, batch.shares, batch.parent_shares, batch.epochs, batch.training, levels
        )


def _planned(trial: TrainedModel | PendingTrial | StoppedTrial) -> TrainedModel | PendingTrial:
    """Return a trial as it was planned, where it was stopped."""
    return trial.trial if isinstance(trial, StoppedTrial) else trial
