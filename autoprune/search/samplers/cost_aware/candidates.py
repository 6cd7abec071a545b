"""Candidates for the next trial: a parent, the widths to prune it to, and how to train it on."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from autoprune.config.dimension import Dimension
from autoprune.pruning.methods.neuron import RATIO
from autoprune.search.samplers.cost_aware.costs import KnownCosts
from autoprune.search.samplers.cost_aware.history import TrainedModel
from autoprune.search.samplers.cost_aware.initial_design import DesignTrial, InitialDesign
from autoprune.search.samplers.cost_aware.settings import CandidateSettings
from autoprune.search.samplers.cost_aware.width_paths import WidthPath, WidthPaths
from autoprune.search.space import SearchSpace
from autoprune.trial import Scalar

Floats = npt.NDArray[np.float64]
Widths = npt.NDArray[np.int64]
Generator = np.random.Generator
ScoresOf = Callable[[int | None], Mapping[str, Sequence[float]]]

ONLY_UP = ("layer.ratio", "weight.ratio")
"""Prefixes of the dimensions that can't be below the parent's, because what was removed stays removed."""


@dataclass(frozen=True)
class Candidate:
    """A trial that could be run next.

    Attributes:
        parent: Trained network that it starts from.
        widths: Channels of every group, shape ``(n_groups,)``.
        training: Values of all dimensions but the groups' ratios, those that do not apply included.
        origin: What proposed it.
    """

    parent: TrainedModel
    widths: Widths
    training: Mapping[str, Scalar]
    origin: str


class CandidateGenerator:
    """Draws candidates.

    Args:
        design: Plan of the initial design, which says how long the first networks of a cost are trained.
        start: With ``"tree"``, every candidate picks its parent and prunes it. With ``"nearest"``, networks are picked
            and changed either way, and training starts from the cheapest network that holds the result. ``"dense"`` is
            the same, but training starts from the dense network.
        scores_of: Returns the scores of a network's channels by group, rising, by its trial's number; ``None`` is the
            dense network. Scores compare across groups. The result is empty where there are none.
        settings: How often and how far candidates change what they are drawn from.
        design_strength: How strongly the trials of the initial design follow the sensitivity map.
    """

    def __init__(
        self,
        space: SearchSpace,
        paths: WidthPaths,
        costs: KnownCosts,
        design: InitialDesign,
        start: str,
        scores_of: ScoresOf,
        settings: CandidateSettings,
        design_strength: float,
    ) -> None:
        self.space, self.paths, self.costs, self.design, self.settings = space, paths, costs, design, settings
        self._start, self._design_strength = start, design_strength
        self._scores_of, self._scored_paths = scores_of, dict[int | None, WidthPath | None]()
        self.training = [dimension for dimension in space.dimensions() if not dimension.name.startswith(RATIO)]
        self._epochs = next((dimension for dimension in self.training if dimension.name == "epochs"), None)
        self.names = {dimension.name for dimension in self.training}
        searched = {dimension.name for dimension in space.dimensions()}
        named = [f"{RATIO}{group}" for group in paths.groups]
        self._ratios = [each for each in zip(named, itertools.count(), paths.ratios) if each[0] in searched]
        self._only_up = [name for name in self.names if name.startswith(ONLY_UP)]

    def draw(
        self, parents: Sequence[TrainedModel], front: Sequence[TrainedModel], n: int, rng: Generator
    ) -> list[Candidate]:
        """Draw at most ``n`` candidates, of which some may be equal.

        In a tree, a candidate that is only trained on trains for at least as many epochs as its parent did: a schedule
        that starts anew first undoes what the last one had settled.

        Args:
            parents: Networks to start from, the dense one first.
            front: Trained networks whose widths and schedules are worth copying.

        Source:
            Warm restarts that double their periods: Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983,
            section 3.
        """
        share_of_kind = self.settings.share_of_kind
        kinds = rng.choice(list(share_of_kind), size=n, p=list(share_of_kind.values()))  # (n,)
        picked = [parents[index] for index in rng.integers(len(parents), size=n)]
        picked_widths = np.stack([parent.widths for parent in picked])  # (n, n_groups)
        widths = picked_widths.copy()
        for kind in share_of_kind:
            rows = np.flatnonzero(kinds == kind)
            if len(rows):
                widths[rows] = self.change_widths(kind, [picked[row] for row in rows], picked_widths[rows], front, rng)
        widths = self.paths.no_wider(widths, picked_widths) if self._start == "tree" else self.paths.nearest(widths)
        shares = self.costs.main_share(widths)  # (n,)
        kept_shares = shares / self.costs.main_share(picked_widths)  # (n,)
        candidates = []
        starts = picked if self._start == "tree" else self._starts(widths, parents)
        for index, (source, parent, row) in enumerate(zip(picked, starts, widths, strict=True)):
            keeps_enough = self._start != "tree" or kept_shares[index] >= self.settings.min_kept_share
            if (row <= parent.widths).all() and keeps_enough:
                training = self._changed_training(source, parent, front, rng)
                if self._start == "tree" and self._epochs is not None:
                    least = self.settings.min_epochs_share * self.design.epochs_at(float(shares[index]))
                    if (row == parent.widths).all():
                        least = max(least, parent.epochs)
                    training["epochs"] = self._epochs.nearest(max(float(training["epochs"]), least))
                candidates.append(Candidate(parent, row, training, str(kinds[index])))
        return candidates

    def for_design(self, trial: DesignTrial) -> Candidate:
        """Return the candidate of a trial of the initial design."""
        parent = trial.parent
        widths = parent.widths  # (n_groups,)
        if trial.share is not None:
            path, share = self._scored_path(parent), np.array([trial.share])
            strength = np.array([self._design_strength])
            widths = (self.paths.at(share, strength) if path is None else path.at(share))[0]
        training = self._training_of(parent)
        for dimension in self.training:
            if dimension is self._epochs:
                training[dimension.name] = dimension.nearest(trial.epochs)
            elif trial.lr_position is not None and dimension.name.endswith(".lr"):
                training[dimension.name] = dimension.at(trial.lr_position)
        return Candidate(parent, self.paths.no_wider(widths, parent.widths), training, trial.origin)

    @cached_property
    def first_guess(self) -> dict[str, Scalar]:
        """The training that a person would try first, without layer and weight pruning."""
        return {dimension.name: self.space.first_guess(dimension) for dimension in self.training}

    def params_of(self, candidate: Candidate) -> dict[str, Scalar]:
        """Return the values of all dimensions, those that do not apply included."""
        return self._ratios_of(candidate) | dict(candidate.training)

    def applying(self, candidate: Candidate) -> dict[str, Scalar]:
        """Return the values of the dimensions that apply, as they will be in the trial's record."""
        training = candidate.training
        kept = {name: value for name, value in training.items() if self.space.applies(name, training)}
        return self._ratios_of(candidate) | kept

    def epochs_of(self, candidate: Candidate) -> int:
        """Return the epochs that a candidate trains for."""
        return int(candidate.training.get("epochs", self.space.epochs_range[0]))

    def removed_blocks(self, candidate: Candidate) -> tuple[str, ...]:
        """Return the names of the blocks that a candidate lacks."""
        ratio = candidate.training.get("layer.ratio")
        return self.space.removed_blocks(None if ratio is None else float(ratio))

    def _scored_path(self, model: TrainedModel) -> WidthPath | None:
        """Return the path of a network by its own channels' scores; ``None`` where it has none."""
        if model.number not in self._scored_paths:
            scores = self._scores_of(model.number)
            self._scored_paths[model.number] = self.paths.by_scores(model.widths, scores) if scores else None
        return self._scored_paths[model.number]

    def _starts(self, widths: Widths, parents: Sequence[TrainedModel]) -> list[TrainedModel]:
        """Return where training starts when candidates do not pick their parents.

        Args:
            widths: Shape ``(n, n_groups)``.
            parents: Networks to start from, the dense one first.
        """
        if self._start == "dense":
            return [parents[0]] * len(widths)
        cheapest_first = sorted(parents, key=lambda parent: parent.costs["flops"])
        parent_widths = np.stack([parent.widths for parent in cheapest_first])  # (n_parents, n_groups)
        return [cheapest_first[int(np.argmax((parent_widths >= row).all(axis=1)))] for row in widths]

    def change_widths(
        self,
        kind: str,
        picked: Sequence[TrainedModel],
        widths: Widths,
        front: Sequence[TrainedModel],
        rng: Generator,
    ) -> Widths:
        """Change the widths of the picked networks by one kind of change.

        In a tree the caller then limits them to the parent's.

        Args:
            kind: A key of ``share_of_kind``. Without a front, ``"cross"`` does what ``"fill"`` does.
            widths: The picked networks' widths, shape ``(n, n_groups)``.

        Returns:
            Widths, shape ``(n, n_groups)``.
        """
        if kind == "train on":
            return widths
        if kind == "mutate":
            return self._mutated(widths, rng)
        if kind == "cross" and front:
            others = np.stack([front[index].widths for index in rng.integers(len(front), size=len(widths))])
            narrower: Widths = np.minimum(widths, others)  # (n, n_groups)
            return narrower
        if kind == "descend":
            return self._descended(picked, widths, rng)
        return self._filled(widths, rng)

    def _mutated(self, widths: Widths, rng: Generator) -> Widths:
        """Multiply the widths of a few groups by random factors, shape ``(n, n_groups)`` in and out."""
        settings, (n, n_groups) = self.settings, widths.shape
        chosen = rng.random(widths.shape) < np.minimum(1.0, settings.n_mutated_groups / n_groups)  # (n, n_groups)
        chosen[np.arange(n), rng.integers(n_groups, size=n)] = True
        highest = 1.0 if self._start == "tree" else settings.max_mutation_factor
        factors = rng.uniform(settings.min_mutation_factor, highest, size=widths.shape)  # (n, n_groups)
        return self.paths.nearest(np.where(chosen, np.minimum(widths * factors, self.paths.dense), widths))

    def _descended(self, picked: Sequence[TrainedModel], widths: Widths, rng: Generator) -> Widths:
        """Go down a width path by a random share of the cost, shape ``(n, n_groups)`` in and out."""
        settings, n, min_share = self.settings, len(widths), self.paths.min_share
        most = np.maximum(self.costs.main_share(widths), min_share * 1.001)  # (n,)
        least = min_share if self._start != "tree" else np.maximum(min_share, settings.min_kept_share * most)
        shares = most * (least / most) ** rng.random(n)  # (n,), even on a log axis between least and most
        descended = self.paths.at(shares, rng.uniform(0.0, settings.max_descend_strength, size=n))  # (n, n_groups)
        for row in np.flatnonzero(rng.random(n) < settings.ranked_share).tolist():
            path = self._scored_path(picked[row])
            if path is not None:
                descended[row] = path.at(shares[row : row + 1])[0]
        return descended

    def _filled(self, widths: Widths, rng: Generator) -> Widths:
        """Return widths of any cost near the width paths; only the shape ``(n, n_groups)`` of the argument counts."""
        n = len(widths)
        shares = self.paths.min_share ** rng.random(n)  # (n,), even on a log axis between smallest and dense
        jitter = np.exp(rng.normal(0.0, self.settings.fill_jitter, size=widths.shape))  # (n, n_groups)
        return self.paths.nearest(np.minimum(self.paths.at(shares, rng.random(n)) * jitter, self.paths.dense))

    def _changed_training(
        self, source: TrainedModel, parent: TrainedModel, front: Sequence[TrainedModel], rng: Generator
    ) -> dict[str, Scalar]:
        """Copy the training of the picked network or of one of the front, and change it a little."""
        settings = self.settings
        if front and (source.number is None or rng.random() < settings.front_training_probability):
            source = front[int(rng.integers(len(front)))]
        values = self._training_of(source)
        fresh_share = settings.fresh_change_share if source.params else 1.0
        probability = max(1.0 / max(1, len(self.training)), settings.min_change_probability)
        for dimension in self.training:
            values[dimension.name] = self._changed(dimension, values[dimension.name], probability, fresh_share, rng)
        for name in self._only_up:
            if name in parent.params:
                values[name] = max(parent.params[name], values[name], key=float)
        return values

    def _changed(
        self, dimension: Dimension, value: Scalar, probability: float, fresh_share: float, rng: Generator
    ) -> Scalar:
        """Change a value with a probability. The share ``fresh_share`` of the changes draws from the whole range."""
        draw = rng.random()
        if draw < fresh_share * probability:
            return dimension.at(float(rng.random()))
        if draw < probability:
            if isinstance(dimension.domain, list):
                return dimension.domain[int(rng.integers(len(dimension.domain)))]
            return dimension.at(dimension.position(value) + float(rng.normal(0.0, self.settings.change_deviation)))
        return value

    def _ratios_of(self, candidate: Candidate) -> dict[str, Scalar]:
        widths = candidate.widths.tolist()
        return {name: ratios[widths[index]] for name, index, ratios in self._ratios}

    def _training_of(self, model: TrainedModel) -> dict[str, Scalar]:
        """Return a network's values of all dimensions but the groups' ratios; where it has none, the first guess."""
        return self.first_guess | {name: model.params[name] for name in self.names if name in model.params}
