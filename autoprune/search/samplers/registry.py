"""The samplers a space file can name, made anew for every trial from the study's seed and the trial's number."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler

from autoprune.config import SearchConfig
from autoprune.errors import ConfigError, TaskError
from autoprune.pruning.plan import PruningPlan
from autoprune.search.samplers.cost_aware import CostAwareSampler, SearchKnowledge, Start
from autoprune.study.seeds import derive_seed
from autoprune.tasks.resolve import call, load_callable

SamplerMaker = Callable[[int, SearchKnowledge], BaseSampler]
"""Makes a sampler from a seed and what is known of the study."""


def _tpe(seed: int, _: SearchKnowledge) -> BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


SAMPLERS: dict[str, SamplerMaker] = {
    "cost_aware": lambda seed, knowledge: CostAwareSampler(knowledge, seed),
    "tpe": _tpe,
    "nsga2": lambda seed, _: optuna.samplers.NSGAIISampler(seed=seed),
    "nsga3": lambda seed, _: optuna.samplers.NSGAIIISampler(seed=seed),
    "gp": lambda seed, _: optuna.samplers.GPSampler(seed=seed),
    "random": lambda seed, _: optuna.samplers.RandomSampler(seed=seed),
    "qmc": lambda seed, _: optuna.samplers.QMCSampler(seed=seed, scramble=True),
}
"""Name -> maker. TPE models all dimensions jointly and is told of the running trials."""

LADDER_STEPS = 4
"""Uniform ratios tried first where ``search.ladder`` is ``auto`` and trials do not start from one another by choice."""

_ONE_SEQUENCE = {"qmc"}
"""Samplers whose points belong to one sequence, so that every trial must use the same seed."""


def sampler_name(spec: SearchConfig, plan: PruningPlan) -> str:
    """The sampler that ``auto`` stands for: ``cost_aware`` where there are groups to prune, else ``tpe``."""
    if spec.search.sampler != "auto":
        return spec.search.sampler
    return "cost_aware" if plan.groups and spec.method("neuron") is not None else "tpe"


def wants_sensitivity(spec: SearchConfig, plan: PruningPlan) -> bool:
    """Whether the sensitivity map is measured before the first trial."""
    return spec.search.sensitivity and sampler_name(spec, plan) == "cost_aware"


def start_name(spec: SearchConfig, plan: PruningPlan) -> Start:
    """Where trials start: what ``auto`` stands for depends on the sampler."""
    start: Start | Literal["auto"] = spec.search.start
    if start != "auto":
        return start
    return "tree" if sampler_name(spec, plan) == "cost_aware" else "dense"


def ladder_steps(spec: SearchConfig, plan: PruningPlan) -> int:
    """Uniform ratios that are tried from the dense network first; ``auto`` is none where the tree has its descent."""
    if spec.search.ladder != "auto":
        return spec.search.ladder
    return 0 if start_name(spec, plan) == "tree" else LADDER_STEPS


def load_sampler(name: str, base_dir: Path) -> SamplerMaker:
    """The maker of a sampler of this name.

    Raises:
        ConfigError: If ``name`` is a ``module:callable`` that can't be imported or gives no Optuna sampler.
    """
    if name in SAMPLERS:
        return SAMPLERS[name]
    where = "search.sampler"

    def make(seed: int, _: SearchKnowledge | None) -> BaseSampler:
        try:
            sampler = call(load_callable(name, base_dir, where), {"seed": seed}, where)
        except TaskError as error:
            raise ConfigError([str(error)]) from error
        if not isinstance(sampler, BaseSampler):
            raise ConfigError(
                [f"{where}: {name} must give an optuna.samplers.BaseSampler, got {type(sampler).__name__}."]
            )
        return sampler

    make(0, None)
    return make


def make_sampler(
    name: str, make: SamplerMaker, study_seed: int, number: int, knowledge: SearchKnowledge
) -> BaseSampler:
    """The sampler for one trial.

    Its random state follows from the study's seed and the trial's number alone, so that a study that was interrupted
    goes on exactly as it would have.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # TPE's `group`: experimental for years, and needed here
        return make(study_seed if name in _ONE_SEQUENCE else derive_seed(study_seed, number, "sampler"), knowledge)
