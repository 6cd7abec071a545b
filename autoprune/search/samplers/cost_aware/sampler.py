"""The cost-aware sampler, as Optuna sees it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from autoprune.cost.table import CostTable
from autoprune.search.samplers.cost_aware.acquisition import Acquisition
from autoprune.search.samplers.cost_aware.candidates import Candidate, CandidateGenerator, ScoresOf
from autoprune.search.samplers.cost_aware.costs import KnownCosts
from autoprune.search.samplers.cost_aware.features import Features
from autoprune.search.samplers.cost_aware.history import History, TrainedModel, non_dominated, trial_key
from autoprune.search.samplers.cost_aware.initial_design import InitialDesign, next_design_trial
from autoprune.search.samplers.cost_aware.settings import CostAwareSettings
from autoprune.search.samplers.cost_aware.width_paths import WidthPaths
from autoprune.search.space import SearchSpace
from autoprune.search.space.dimension import distribution
from autoprune.study.dense_reference import DenseReference
from autoprune.study.optuna_private import set_user_attr
from autoprune.study.records import ORIGIN, PARENT

Start = Literal["tree", "nearest", "dense"]


@dataclass(frozen=True)
class SearchKnowledge:
    """What the sampler knows of the network and the study beyond the trials, and the parts that are built from it.

    It is made once a study, because its parts are worth keeping from trial to trial.

    Attributes:
        space: The search space.
        table: Exact costs of every candidate.
        dense: The dense network's figures.
        start: Where trials start: ``"tree"``, ``"nearest"`` or ``"dense"``, as :class:`CandidateGenerator` has them.
        has_model: Returns whether a trial's network is kept.
        budget_epochs: Training epochs of the whole study.
        allowed: Returns whether widths, shape ``(n, n_groups)``, meet all constraints that are known before training,
            shape ``(n,)``.
        drop: Returns the drop in score of a group alone at a width, by the sensitivity map, in units of
            :meth:`MetricSpec.unit`; ``None`` where there is no map.
        scores_of: As :class:`CandidateGenerator` takes it. It is not used where there is a map.
        n_taken_over: Trials that the study has from another one.
        settings: The numbers that the sampler is tuned by.
    """

    space: SearchSpace
    table: CostTable
    dense: DenseReference
    start: Start
    has_model: Callable[[int], bool]
    budget_epochs: float
    allowed: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]]
    drop: Callable[[str, int], float] | None = None
    scores_of: ScoresOf = lambda number: {}
    n_taken_over: int = 0
    settings: CostAwareSettings = field(default_factory=CostAwareSettings)

    @cached_property
    def costs(self) -> KnownCosts:
        """The costs of candidates."""
        spec = self.space.spec
        make = self.settings.replacements.known_costs or KnownCosts
        return make(
            self.space,
            self.table,
            spec.cost_objectives,
            self.dense,
            log=spec.search.scale == "log",
            settings=self.settings.costs,
        )

    @cached_property
    def generator(self) -> CandidateGenerator:
        """Draws candidates."""
        make = self.settings.replacements.candidate_generator or CandidateGenerator
        return make(
            self.space,
            self.paths,
            self.costs,
            self.design,
            self.start,
            self.scores_of if self.drop is None else lambda number: {},
            self.settings.candidates,
            self.settings.initial_design.cut_strength,
        )

    @cached_property
    def paths(self) -> WidthPaths:
        """Widths at a share of the dense cost."""
        return WidthPaths(self.space, self.table, self.costs.main_share, self.drop, self.settings.width_paths)

    @cached_property
    def design(self) -> InitialDesign:
        """The initial design, from the widest network under all constraints down."""
        settings = self.settings.initial_design
        min_share = max(self.paths.min_share, settings.min_last_share)
        shares = np.geomspace(1.0, min_share, settings.n_top_shares)  # (n_top_shares,), falling
        strengths = np.full(settings.n_top_shares, settings.cut_strength)
        allowed = self.allowed(self.paths.at(shares, strengths))  # (n_top_shares,)
        min_epochs, max_epochs = self.space.epochs_range
        return InitialDesign.plan(
            settings,
            max_share=float(shares[np.argmax(allowed)]) if allowed.any() else min_share,
            min_share=min_share,
            budget_epochs=settings.budget_share * self.budget_epochs,
            min_epochs=min_epochs,
            max_epochs=max_epochs,
        )

    @cached_property
    def history(self) -> History:
        """The study's trials."""
        return History(self.table.widths, self.dense, self.space.spec.metric)

    @property
    def floor(self) -> float:
        """Score below which a network is worth nothing, by the drop that the space file allows or by dense."""
        settings = self.settings.acquisition
        spec = self.space.spec
        score, drop = spec.metric.score(self.dense.metric), spec.constraints.metric_drop
        if drop is None:
            return score - (1 - settings.floor_score_share) * abs(score)
        return score - settings.floor_drop_factor * drop.amount(self.dense.metric)

    @cached_property
    def features(self) -> Features:
        """Candidates as numbers."""
        return Features(self.space, self.paths, self.settings.features)


class CostAwareSampler(BaseSampler):
    """Suggests a parent, widths and a training by expected hypervolume improvement an epoch.

    The costs of a candidate are known; a Gaussian process predicts its score (:class:`Acquisition`). The candidates
    are drawn around what the study has found (:class:`CandidateGenerator`). In a tree, the trials of the initial design
    come first (:func:`next_design_trial`).

    Args:
        knowledge: What is known of the study, with the settings.
        seed: Seed of this trial. The same study and seed give the same suggestion.
    """

    def __init__(self, knowledge: SearchKnowledge, seed: int) -> None:
        self._known = knowledge
        self._settings = knowledge.settings
        self._rng = np.random.default_rng(seed)
        self._random = optuna.samplers.RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return all dimensions of the space."""
        return {dimension.name: distribution(dimension) for dimension in self._known.space.dimensions()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return values of all dimensions. The parent and the origin go into the trial's user attributes."""
        if "fixed_params" in trial.system_attrs:
            return {}
        history = self._known.history
        history.refresh(study.get_trials(deepcopy=False))
        chosen = self._next_of_design(history) or self._best(history)
        for key, value in ((PARENT, chosen.parent.number), (ORIGIN, chosen.origin)):
            set_user_attr(study, trial.number, key, value)
            trial.set_user_attr(key, value)  # in memory, for who asked
        values = self._known.generator.params_of(chosen)
        return {name: value for name, value in values.items() if name in search_space}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a random value. It is only asked for where a trial was enqueued with some of its values."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _next_of_design(self, history: History) -> Candidate | None:
        """Return the next trial of the initial design; ``None`` where there is none or it must wait."""
        known, settings = self._known, self._settings
        if not settings.initial_design.enabled or known.start != "tree":
            return None
        if known.n_taken_over >= settings.acquisition.min_trials:
            return None
        searches_lr = any(dimension.name.endswith(".lr") for dimension in known.generator.training)
        trial = next_design_trial(
            known.design, settings.initial_design, history, known.floor, known.has_model, searches_lr=searches_lr
        )
        return None if trial is None else known.generator.for_design(trial)

    def _best(self, history: History) -> Candidate:
        """Return the candidate of the highest acquisition value; a random one while no model can be fitted."""
        known, settings, rng = self._known, self._settings, self._rng
        front = history.front(known.costs.measured)
        parents = self._kept(front)
        if len(parents) < len(front):  # the other study that they are from has dropped some: the next best serve
            parents = non_dominated(self._kept(history.trained.values()), known.costs.measured)
        candidates = known.generator.draw([history.dense, *parents], front, settings.candidates.n_candidates, rng)
        candidates = self._new(candidates, history)
        allowed = known.allowed(np.stack([each.widths for each in candidates]))  # (n_candidates,)
        candidates = [each for each, fits in zip(candidates, allowed, strict=True) if fits] or candidates
        if len(history.trained) < settings.acquisition.min_trials:
            return candidates[int(rng.integers(len(candidates)))]
        acquisition = Acquisition(
            known.generator,
            known.costs,
            known.features,
            history,
            front,
            known.floor,
            settings.acquisition.look_ahead_steps if known.start == "tree" else 0,
            settings,
        )
        return candidates[int(np.argmax(acquisition.values(candidates)))]

    def _kept(self, models: Iterable[TrainedModel]) -> list[TrainedModel]:
        """Return the networks that a trial can start from."""
        return [model for model in models if model.number is not None and self._known.has_model(model.number)]

    def _new(self, candidates: Sequence[Candidate], history: History) -> list[Candidate]:
        """Return the candidates that were not tried already, or all of them if all were."""
        generator, tried = self._known.generator, history.tried()
        new = [each for each in candidates if trial_key(each.parent.number, generator.applying(each)) not in tried]
        return new or list(candidates)
