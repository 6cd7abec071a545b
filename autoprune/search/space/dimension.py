"""Asking Optuna for a dimension's value, and a choice among kinds with values of their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial

from autoprune.config.dimension import Dimension, Value, value_of
from autoprune.training.schedules.parameters import KindSpec
from autoprune.trial import Scalar


def suggest(dimension: Dimension, trial: BaseTrial) -> Scalar:
    """Ask Optuna for a value of a dimension."""
    name, domain = dimension.name, dimension.domain
    if isinstance(domain, list):
        return _scalar(trial.suggest_categorical(name, domain))
    if dimension.integer:
        return trial.suggest_int(name, int(domain.low), int(domain.high), step=int(domain.step or 1), log=domain.log)
    return trial.suggest_float(name, float(domain.low), float(domain.high), step=domain.step, log=domain.log)


def distribution(dimension: Dimension) -> BaseDistribution:
    """Return a dimension as Optuna records it."""
    domain = dimension.domain
    if isinstance(domain, list):
        return CategoricalDistribution(domain)
    if dimension.integer:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log, step=int(domain.step or 1))
    return FloatDistribution(float(domain.low), float(domain.high), log=domain.log, step=domain.step)


def pick(value: Value, trial: BaseTrial) -> Scalar:
    """Return a fixed value as it is, and ask Optuna for a dimension's."""
    return suggest(value, trial) if isinstance(value, Dimension) else value


def _scalar(value: Any) -> Scalar:
    """A choice as Optuna gives it back, which is typed more widely than what was put in."""
    chosen: Scalar = value
    return chosen


@dataclass(frozen=True)
class Kinds:
    """A choice among kinds, each with parameters of its own."""

    name: str
    kinds: Mapping[str, Mapping[str, Value]]

    def suggest(self, trial: BaseTrial) -> tuple[str, dict[str, Scalar]]:
        """Ask Optuna for a kind, and for the values of its parameters."""
        names = list(self.kinds)
        kind = names[0] if len(names) == 1 else str(trial.suggest_categorical(self.name, names))
        return kind, {key: pick(value, trial) for key, value in self.kinds[kind].items()}


def kinds_of(name: str, sections: list[Any], tag: str, registry: Mapping[str, KindSpec]) -> Kinds:
    """Make a choice among the kinds that a space file names."""
    kinds = {}
    for section in sections:
        kind = getattr(section, tag)
        kinds[kind] = {
            key: value_of(f"{name}.{kind}.{key}", getattr(section, key), integer=parameter.type == "int")
            for key, parameter in registry[kind].params.items()
        }
    return Kinds(name, kinds)
