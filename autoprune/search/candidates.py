"""New candidates: drawn by the study's sampler, given a network to start from, or passed over."""

import json
from dataclasses import replace

import optuna
from optuna.samplers import BaseSampler

from autoprune.search.constraints import CostConstraints
from autoprune.search.parents import nearest_parent
from autoprune.search.repeats import Repeats
from autoprune.search.samplers.cost_aware import SearchKnowledge
from autoprune.search.samplers.registry import SAMPLERS, load_sampler, make_sampler, sampler_name, start_name
from autoprune.search.space import SearchSpace
from autoprune.study.folder import StudyFolder
from autoprune.study.records import CONFIG, PARENT
from autoprune.study.seeds import derive_seed
from autoprune.trial import TrialConfig, TrialResult, to_dict


class Candidates:
    """Turns what a sampler suggests into the configurations of trials.

    Args:
        ceilings: Limits that a candidate is held to before it is run.

    Attributes:
        start: Where trials start, as ``search.start`` has it, ``auto`` decided.
    """

    def __init__(self, folder: StudyFolder, space: SearchSpace, ceilings: CostConstraints) -> None:
        self._folder, self._space, self._spec, self._ceilings = folder, space, space.spec, ceilings
        self.start = start_name(self._spec, space.plan)
        self._sampler = sampler_name(self._spec, space.plan)
        self._maker = load_sampler(self._sampler, folder.base_dir)
        self._repeats = Repeats()
        self._finished: list[tuple[TrialConfig, TrialResult]] = []

    def sampler_for(self, number: int, knowledge: SearchKnowledge) -> BaseSampler:
        """Return the sampler for a trial: one that draws at random where the study's own finds nothing new."""
        name, maker = self._sampler, self._maker
        if self._repeats.at_random:
            name, maker = "random", SAMPLERS["random"]
        return make_sampler(name, maker, self._spec.search.seed, number, knowledge)

    def new(self, trial: optuna.Trial) -> TrialConfig:
        """Ask the sampler for a candidate, say where it starts, and record it."""
        config = self._space.suggest(trial, derive_seed(self._spec.search.seed, trial.number, "trial"))
        if self.start == "nearest":
            has_model = self._folder.checkpoint_store.has_model
            config = nearest_parent(config, self._finished, self._space.plan, has_model)
        elif self.start == "tree":
            config = replace(config, parent=trial.user_attrs.get(PARENT))
        trial.set_user_attr(CONFIG, json.dumps(to_dict(config)))
        return config

    def passed_over(self, config: TrialConfig) -> TrialResult | None:
        """Return why a candidate is not run, as its result; ``None`` if it is run."""
        broken = self._ceilings.broken_by(config.pruning)
        if broken is not None:
            return TrialResult(config.number, "infeasible", seed=config.seed, error=broken)
        first = self._repeats.first(config)
        if first is not None:
            return TrialResult(config.number, "repeated", seed=config.seed, error=f"the same as trial {first}")
        return None

    def began(self, config: TrialConfig) -> None:
        """Take note of a candidate that is run, or was."""
        self._repeats.began(config)

    def ended(self, config: TrialConfig, result: TrialResult) -> None:
        """Take note of how a candidate ended."""
        self._repeats.ended(config, result)
        if result.state == "finished" and self.start == "nearest":
            self._finished.append((config, result))

    @property
    def exhausted(self) -> bool:
        """Whether the space seems to hold no candidate that was not run."""
        return self._repeats.exhausted
