"""The samplers that a space file can name. Each trial gets a new one, with a seed of its own."""

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
"""Makes a sampler from a seed and from what is known of the study."""


def _tpe(seed: int, _: SearchKnowledge) -> BaseSampler:
    """Make TPE that models all dimensions jointly and counts the running trials."""
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
"""Name in a space file -> maker of the sampler."""

LADDER_STEPS = 4
"""Uniform ratios that are tried first where ``search.ladder`` is ``auto``, unless the tree has its initial design."""

_ONE_SEQUENCE = {"qmc"}
"""Samplers whose points belong to one sequence, so that every trial must use the same seed."""


def sampler_name(config: SearchConfig, plan: PruningPlan) -> str:
    """Return the sampler's name. ``auto`` is ``cost_aware`` where there are groups to prune, else ``tpe``."""
    if config.search.sampler != "auto":
        return config.search.sampler
    return "cost_aware" if plan.groups and config.method("neuron") is not None else "tpe"


def wants_sensitivity(config: SearchConfig, plan: PruningPlan) -> bool:
    """Return whether the sensitivity map is measured before the first trial."""
    return config.search.sensitivity and sampler_name(config, plan) == "cost_aware"


def start_name(config: SearchConfig, plan: PruningPlan) -> Start:
    """Return where trials start. ``auto`` is ``tree`` with the sampler ``cost_aware``, else ``dense``."""
    start: Start | Literal["auto"] = config.search.start
    if start != "auto":
        return start
    return "tree" if sampler_name(config, plan) == "cost_aware" else "dense"


def ladder_steps(config: SearchConfig, plan: PruningPlan) -> int:
    """Return how many uniform ratios are tried first, each from the dense network.

    ``auto`` is 0 for a tree, which has an initial design of its own.
    """
    if config.search.ladder != "auto":
        return config.search.ladder
    return 0 if start_name(config, plan) == "tree" else LADDER_STEPS


def load_sampler(name: str, base_dir: Path) -> SamplerMaker:
    """Return the maker of a sampler.

    Args:
        name: A key of ``SAMPLERS``, or the user's own ``module:callable``, which makes a sampler from a seed.
        base_dir: Folder in which the user's module is looked for first.

    Raises:
        ConfigError: If ``name`` is a ``module:callable`` that can't be imported or returns no Optuna sampler.
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
    """Make the sampler for one trial.

    Its seed follows from the study's seed and the trial's number alone. So an interrupted study goes on exactly as it
    would have without the interruption.

    Args:
        name: Name of the sampler, as the space file has it.
        make: What :func:`load_sampler` returned for this name.
        study_seed: Seed of the study.
        number: Number of the trial.
        knowledge: What is known of the study; one object for all of its trials.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # TPE's `group`: experimental for years, and needed here
        return make(study_seed if name in _ONE_SEQUENCE else derive_seed(study_seed, number, "sampler"), knowledge)
