"""The samplers a space file can name, made anew for every trial from the study's seed and the trial's number."""

import warnings
from collections.abc import Callable

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler

from autoprune.search.seeds import derive_seed


def _tpe(seed: int) -> BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "auto": _tpe,
    "tpe": _tpe,
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed),
    "nsga3": lambda seed: optuna.samplers.NSGAIIISampler(seed=seed),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "qmc": lambda seed: optuna.samplers.QMCSampler(seed=seed, scramble=True),
}
"""Name -> sampler for a seed. ``auto`` is TPE over all dimensions jointly, told of the running trials."""

_ONE_SEQUENCE = {"qmc"}
"""Samplers whose points belong to one sequence, so that every trial must use the same seed."""


def make_sampler(name: str, study_seed: int, number: int) -> BaseSampler:
    """The sampler for one trial.

    Its random state follows from the study's seed and the trial's number alone, so that a study that was interrupted
    goes on exactly as it would have.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # TPE's `group`: experimental for years, and needed here
        return SAMPLERS[name](study_seed if name in _ONE_SEQUENCE else derive_seed(study_seed, number, "sampler"))
