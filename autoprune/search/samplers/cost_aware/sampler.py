"""The cost-aware sampler, as Optuna sees it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from autoprune.cost.table import CostTable
from autoprune.search.samplers.cost_aware.acquisition import LOOK_AHEAD, Outlook
from autoprune.search.samplers.cost_aware.candidates import STRENGTH, Candidate, Candidates, ScoresOf
from autoprune.search.samplers.cost_aware.costs import KnownCosts
from autoprune.search.samplers.cost_aware.features import Features
from autoprune.search.samplers.cost_aware.history import History, Node, non_dominated, trial_key
from autoprune.search.samplers.cost_aware.initial_design import Descent, next_step
from autoprune.search.samplers.cost_aware.width_paths import Cuts
from autoprune.search.space import SearchSpace
from autoprune.search.space.dimension import distribution
from autoprune.study.dense_reference import DenseReference
from autoprune.study.optuna_private import set_user_attr
from autoprune.study.records import ORIGIN, PARENT

Floats = npt.NDArray[np.float64]
Start = Literal["tree", "nearest", "dense"]

N_SHARES = 50
"""Shares among which the greatest under the ceilings is sought."""

SPENT = 0.3
"""Share of the study's epochs that the first descent takes."""

N_CANDIDATES = 400
"""Candidates drawn for each trial."""

MIN_TRIALS = 5
"""Finished trials from which on accuracies are predicted; before, a candidate is taken at random."""


@dataclass(frozen=True)
class SearchKnowledge:
    """What the sampler knows of the network beyond the trials.

    Attributes:
        start: ``"tree"``, ``"nearest"`` or ``"dense"``: where trials start.
        has_model: Whether a trial's network is kept.
        budget: Training epochs of the whole study.
        scores_of: As :class:`Candidates` takes it; of no use where there is a map.
        n_taken_over: Trials that the study has from another one.
        allowed: Whether a candidate's widths are under all ceilings that are known beforehand, shape ``(n,)``.
        drop: Drop in accuracy of a group alone at a width, by the sensitivity map; ``None`` where there is no map.
    """

    space: SearchSpace
    table: CostTable
    dense: DenseReference
    start: Start
    has_model: Callable[[int], bool]
    budget: float
    allowed: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]]
    drop: Callable[[str, int], float] | None = None
    scores_of: ScoresOf = lambda number: {}
    n_taken_over: int = 0

    @cached_property
    def costs(self) -> KnownCosts:
        spec = self.space.spec
        objectives = [name for name in spec.objectives if name != "accuracy"]
        return KnownCosts(self.space, self.table, objectives, self.dense, log=spec.search.scale == "log")

    @cached_property
    def candidates(self) -> Candidates:
        scores_of = self.scores_of if self.drop is None else lambda number: {}
        return Candidates(self.space, self.cuts, self.costs, self.descent, self.start, scores_of)

    @cached_property
    def cuts(self) -> Cuts:
        return Cuts(self.space, self.table, self.costs.main_share, self.drop)

    @cached_property
    def descent(self) -> Descent:
        """From the widest network under the ceilings down, on a share of the epochs."""
        smallest = max(self.cuts.smallest_share, 1e-3)
        shares = np.geomspace(1.0, smallest, N_SHARES)
        under = self.allowed(self.cuts.at(shares, np.full(N_SHARES, STRENGTH)))
        top = float(shares[np.argmax(under)]) if under.any() else smallest
        return Descent.plan(top, smallest, SPENT * self.budget, *self.space.epochs_range)

    @cached_property
    def history(self) -> History:
        return History(self.table.widths, self.dense)

    @property
    def floor(self) -> float:
        """Accuracy below which a network is worth nothing: what the user allows twice over, or half of dense."""
        accuracy, drop = self.dense.accuracy, self.space.spec.constraints.accuracy_drop
        return accuracy - (0.5 * abs(accuracy) if drop is None else 2 * drop)

    @cached_property
    def features(self) -> Features:
        return Features(self.space, self.cuts)


class CostAwareSampler(BaseSampler):
    """Suggests a parent, a cut and a training by expected hypervolume improvement an epoch.

    The costs of a candidate are known; its accuracy is predicted by a Gaussian process (:class:`Outlook`). The
    candidates are drawn around what the study has found (:class:`Candidates`), in a tree after a first descent
    (:func:`next_step`).

    Args:
        seed: Of this trial; the same study and seed give the same suggestion.
    """

    def __init__(self, knowledge: SearchKnowledge, seed: int) -> None:
        self._known = knowledge
        self._rng = np.random.default_rng(seed)
        self._random = optuna.samplers.RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All dimensions of the space."""
        return {dimension.name: distribution(dimension) for dimension in self._known.space.dimensions()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values of all dimensions; the parent and what proposed it go into the trial's user attributes."""
        if "fixed_params" in trial.system_attrs:
            return {}
        history = self._known.history
        history.refresh(study.get_trials(deepcopy=False))
        chosen = self._first(history) or self._best(history)
        for key, value in ((PARENT, chosen.parent.number), (ORIGIN, chosen.origin)):
            set_user_attr(study, trial.number, key, value)
            trial.set_user_attr(key, value)  # in memory, for who asked
        values = self._known.candidates.params_of(chosen)
        return {name: value for name, value in values.items() if name in search_space}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value; only asked for where a trial was enqueued with some of its values."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _first(self, history: History) -> Candidate | None:
        known = self._known
        if known.start != "tree" or known.n_taken_over >= MIN_TRIALS:
            return None
        rated = any(dimension.name.endswith(".lr") for dimension in known.candidates.training)
        step = next_step(known.descent, history, known.floor, known.has_model, rated=rated)
        return None if step is None else known.candidates.guess_for(step)

    def _best(self, history: History) -> Candidate:
        """The candidate to run next."""
        known, rng = self._known, self._rng
        front = history.front(known.costs.measured)
        parents = self._kept(front)
        if len(parents) < len(front):  # the other study that they are from has dropped some: the next best serve
            parents = non_dominated(self._kept(history.nodes.values()), known.costs.measured)
        candidates = known.candidates.draw([history.root, *parents], front, N_CANDIDATES, rng)
        candidates = self._new(candidates, history)
        allowed = known.allowed(np.stack([each.widths for each in candidates]))
        candidates = [each for each, fits in zip(candidates, allowed, strict=True) if fits] or candidates
        if len(history.nodes) < MIN_TRIALS:
            return candidates[int(rng.integers(len(candidates)))]
        outlook = Outlook(
            known.candidates,
            known.costs,
            known.features,
            history,
            front,
            known.floor,
            look_ahead=LOOK_AHEAD if known.start == "tree" else 0,
        )
        return candidates[int(np.argmax(outlook.scores(candidates)))]

    def _kept(self, nodes: Iterable[Node]) -> list[Node]:
        """Those whose networks a trial can start from."""
        return [node for node in nodes if node.number is not None and self._known.has_model(node.number)]

    def _new(self, candidates: Sequence[Candidate], history: History) -> list[Candidate]:
        """The candidates without those that were tried already, unless all were."""
        known, tried = self._known.candidates, history.tried()
        fresh = [each for each in candidates if trial_key(each.parent.number, known.applying(each)) not in tried]
        return fresh or list(candidates)
