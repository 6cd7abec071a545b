"""Candidates for the next trial: a parent, what to cut from it, and how to train on."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from autoprune.config.dimension import Dimension
from autoprune.search.samplers.cost_aware.costs import KnownCosts
from autoprune.search.samplers.cost_aware.history import Node
from autoprune.search.samplers.cost_aware.initial_design import Descent, Step
from autoprune.search.samplers.cost_aware.width_paths import Cuts, Family
from autoprune.search.space import RATIO, SearchSpace
from autoprune.trial import Scalar

Widths = npt.NDArray[np.int64]
Generator = np.random.Generator
ScoresOf = Callable[[int | None], Mapping[str, Sequence[float]]]

ONLY_UP = ("layer.ratio", "weight.ratio")
"""Prefixes of the dimensions that can't be below the parent's: what is gone is gone."""

KINDS = {"descend": 0.4, "train on": 0.2, "mutate": 0.2, "cross": 0.1, "fill": 0.1}
"""Ways to cut, and the share of the candidates that each makes."""

RANKED = 0.5
"""Share of the candidates that descend by their parent's channels' scores, where it has any."""

MIN_KEPT = 0.5
"""Least share of its parent's cost that a candidate of the tree keeps: what is cut more at once does not recover."""

STRENGTH = 0.5
"""How strongly a planned descent follows the sensitivity map."""

SHORTEST = 0.5
"""Share of the epochs that the descent gives a cost, below which no candidate of the tree of that cost is trained.
A network that is only trained on is trained for no less than the last time: a schedule that starts anew first undoes
what the last one had settled (with warm restarts, periods are doubled: Loshchilov & Hutter 2017,
https://arxiv.org/abs/1608.03983, section 3)."""

SPREAD = 0.15
"""Standard deviation of a mutation, on a dimension's axis from 0 to 1."""


@dataclass(frozen=True)
class Candidate:
    """A trial that could be run next.

    Attributes:
        widths: Channels of every group, shape ``(n_groups,)``.
        training: Values of all dimensions but the groups' ratios, those that do not apply included.
        origin: What proposed it.
    """

    parent: Node
    widths: Widths
    training: Mapping[str, Scalar]
    origin: str


class Candidates:
    """Draws candidates.

    Args:
        descent: How long the first networks of a cost are trained.
        start: ``"tree"``: every candidate picks its parent and cuts it. ``"nearest"``: networks are picked and changed
            either way, and training starts from the cheapest network that holds the result. ``"dense"``: the same, from
            the dense network.
        scores_of: Trial, or ``None`` for the dense network -> group -> the scores of its network's channels, rising,
            which compare across groups; empty where there are none.
    """

    def __init__(
        self, space: SearchSpace, cuts: Cuts, costs: KnownCosts, descent: Descent, start: str, scores_of: ScoresOf
    ) -> None:
        self.space, self.cuts, self.costs, self.descent, self._start = space, cuts, costs, descent, start
        self._scores_of, self._families = scores_of, dict[int | None, Family | None]()
        self.training = [dimension for dimension in space.dimensions() if not dimension.name.startswith(RATIO)]
        self._epochs = next((dimension for dimension in self.training if dimension.name == "epochs"), None)
        self.names = {dimension.name for dimension in self.training}
        searched = {dimension.name for dimension in space.dimensions()}
        named = [f"{RATIO}{group}" for group in cuts.groups]
        self._ratios = [each for each in zip(named, itertools.count(), cuts.ratios) if each[0] in searched]
        self._only_up = [name for name in self.names if name.startswith(ONLY_UP)]
        self.smallest_share = cuts.smallest_share

    def draw(self, parents: Sequence[Node], front: Sequence[Node], n: int, rng: Generator) -> list[Candidate]:
        """Draw candidates, of which some may be alike.

        Args:
            parents: Networks to start from.
            front: Trained networks whose widths and schedules are worth copying.
        """
        kinds = rng.choice(list(KINDS), size=n, p=list(KINDS.values()))
        picked = [parents[index] for index in rng.integers(len(parents), size=n)]
        wide = np.stack([parent.widths for parent in picked])
        widths = wide.copy()
        for kind in KINDS:
            rows = np.flatnonzero(kinds == kind)
            if len(rows):
                widths[rows] = self._cut(kind, [picked[row] for row in rows], wide[rows], front, rng)
        widths = self.cuts.no_wider(widths, wide) if self._start == "tree" else self.cuts.nearest(widths)
        shares = self.costs.main_share(widths)
        kept = shares / self.costs.main_share(wide)
        candidates = []
        starts = picked if self._start == "tree" else self._starts(widths, parents)
        for index, (source, parent, row) in enumerate(zip(picked, starts, widths, strict=True)):
            if (row <= parent.widths).all() and (self._start != "tree" or kept[index] >= MIN_KEPT):
                training = self._train(source, parent, front, rng)
                if self._start == "tree" and self._epochs is not None:
                    least = SHORTEST * self.descent.epochs_at(float(shares[index]))
                    if (row == parent.widths).all():
                        least = max(least, parent.epochs)
                    training["epochs"] = self._epochs.nearest(max(float(training["epochs"]), least))
                candidates.append(Candidate(parent, row, training, str(kinds[index])))
        return candidates

    def guess_for(self, step: Step) -> Candidate:
        """The candidate of a step of the descent."""
        parent = step.parent
        widths = parent.widths
        if step.share is not None:
            family, share = self._family(parent), np.array([step.share])
            widths = (self.cuts.at(share, np.array([STRENGTH])) if family is None else family.at(share))[0]
        training = self._training_of(parent)
        for dimension in self.training:
            if dimension is self._epochs:
                training[dimension.name] = dimension.nearest(step.epochs)
            elif step.rate is not None and dimension.name.endswith(".lr"):
                training[dimension.name] = dimension.at(step.rate)
        return Candidate(parent, self.cuts.no_wider(widths, parent.widths), training, step.origin)

    def _family(self, node: Node) -> Family | None:
        """The cuts of a network by its own channels' scores; ``None`` where it has none."""
        if node.number not in self._families:
            scores = self._scores_of(node.number)
            self._families[node.number] = self.cuts.ranked(node.widths, scores) if scores else None
        return self._families[node.number]

    def _starts(self, widths: Widths, parents: Sequence[Node]) -> list[Node]:
        """Where training starts when parents are not the candidates' choice, for widths of shape ``(n, n_groups)``.

        Args:
            parents: Begins with the dense network.
        """
        if self._start == "dense":
            return [parents[0]] * len(widths)
        cheapest_first = sorted(parents, key=lambda parent: parent.costs["flops"])
        wide = np.stack([parent.widths for parent in cheapest_first])
        return [cheapest_first[int(np.argmax((wide >= row).all(axis=1)))] for row in widths]

    @cached_property
    def first_guess(self) -> dict[str, Scalar]:
        """The training that a person would try first, without layer and weight pruning."""
        return {dimension.name: self.space.first_guess(dimension) for dimension in self.training}

    def params_of(self, candidate: Candidate) -> dict[str, Scalar]:
        """Values of all dimensions, those that do not apply included."""
        return self._ratios_of(candidate) | dict(candidate.training)

    def applying(self, candidate: Candidate) -> dict[str, Scalar]:
        """Values of the dimensions that apply, as they will be in the trial's record."""
        training = candidate.training
        kept = {name: value for name, value in training.items() if self.space.applies(name, training)}
        return self._ratios_of(candidate) | kept

    def epochs_of(self, candidate: Candidate) -> int:
        """Epochs that a candidate trains for."""
        return int(candidate.training.get("epochs", self.space.epochs_range[0]))

    def removed_blocks(self, candidate: Candidate) -> tuple[str, ...]:
        """Blocks that a candidate lacks."""
        ratio = candidate.training.get("layer.ratio")
        return self.space.removed_blocks(None if ratio is None else float(ratio))

    def _cut(self, kind: str, picked: Sequence[Node], wide: Widths, front: Sequence[Node], rng: Generator) -> Widths:
        """Widths for rows of parents' widths; where they come out wider than the parent's, the parent's count."""
        n, n_groups = len(wide), len(self.cuts.groups)
        if kind == "train on":
            return wide
        if kind == "mutate":
            chosen = rng.random(wide.shape) < np.minimum(1.0, 2.0 / n_groups)
            chosen[np.arange(n), rng.integers(n_groups, size=n)] = True
            factors = rng.uniform(0.3, 1.0 if self._start == "tree" else 1.7, size=wide.shape)
            return self.cuts.nearest(np.where(chosen, np.minimum(wide * factors, self.cuts.dense), wide))
        if kind == "cross" and front:
            others = np.stack([front[index].widths for index in rng.integers(len(front), size=n)])
            both: Widths = np.minimum(wide, others)
            return both
        if kind == "descend":
            most = np.maximum(self.costs.main_share(wide), self.smallest_share * 1.001)
            least = self.smallest_share if self._start != "tree" else np.maximum(self.smallest_share, MIN_KEPT * most)
            shares = most * (least / most) ** rng.random(n)
            widths = self.cuts.at(shares, rng.uniform(0.0, 1.4, size=n))
            for row in np.flatnonzero(rng.random(n) < RANKED).tolist():
                family = self._family(picked[row])
                if family is not None:
                    widths[row] = family.at(shares[row : row + 1])[0]
            return widths
        shares = self.smallest_share ** rng.random(n)
        jitter = np.exp(rng.normal(0.0, 0.4, size=wide.shape))
        return self.cuts.nearest(np.minimum(self.cuts.at(shares, rng.random(n)) * jitter, self.cuts.dense))

    def _train(self, source: Node, parent: Node, front: Sequence[Node], rng: Generator) -> dict[str, Scalar]:
        """Training copied from the network that was picked or from one of the front, and changed a little."""
        if front and (source.number is None or rng.random() < 0.3):
            source = front[int(rng.integers(len(front)))]
        values = self._training_of(source)
        anew = 0.3 if source.params else 1.0
        rate = max(1.0 / max(1, len(self.training)), 0.15)
        for dimension in self.training:
            values[dimension.name] = self._changed(dimension, values[dimension.name], anew, rate, rng)
        for name in self._only_up:
            if name in parent.params:
                values[name] = max(parent.params[name], values[name], key=float)
        return values

    def _ratios_of(self, candidate: Candidate) -> dict[str, Scalar]:
        widths = candidate.widths.tolist()
        return {name: ratios[widths[index]] for name, index, ratios in self._ratios}

    def _training_of(self, node: Node) -> dict[str, Scalar]:
        """Values of all dimensions but the groups' ratios: the node's, and a person's first guess where it has none."""
        return self.first_guess | {name: node.params[name] for name in self.names if name in node.params}

    @staticmethod
    def _changed(dimension: Dimension, value: Scalar, anew: float, rate: float, rng: Generator) -> Scalar:
        """The value, changed with probability ``rate``: of these changes, the share ``anew`` forgets the old value."""
        draw = rng.random()
        if draw < anew * rate:
            return dimension.at(float(rng.random()))
        if draw < rate:
            if isinstance(dimension.domain, list):
                return dimension.domain[int(rng.integers(len(dimension.domain)))]
            return dimension.at(dimension.position(value) + float(rng.normal(0.0, SPREAD)))
        return value
