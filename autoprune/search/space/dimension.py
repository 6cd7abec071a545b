"""One searched value of a space, and a choice among kinds with values of their own."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial

from autoprune.config import Range
from autoprune.training.schedules.parameters import KindSpec
from autoprune.trial import Scalar


@dataclass(frozen=True)
class Dimension:
    """One searched value: its name in the study, and the range or the choices it is taken from.

    Attributes:
        domain: A :class:`Range` or a list of choices.
        integer: Whether a range holds whole numbers only.
    """

    name: str
    domain: Range | list[Scalar]
    integer: bool = False

    @property
    def column_type(self) -> str:
        """The pandas type of a column that holds its values."""
        if not isinstance(self.domain, list):
            return "Int64" if self.integer else "float64"
        kinds = {type(choice) for choice in self.domain}
        if kinds == {bool}:
            return "boolean"
        if kinds == {int}:
            return "Int64"
        return "float64" if kinds <= {int, float} else "str"

    def suggest(self, trial: BaseTrial) -> Scalar:
        """Ask Optuna for a value."""
        if isinstance(self.domain, list):
            return _scalar(trial.suggest_categorical(self.name, self.domain))
        low, high, step = self.domain.low, self.domain.high, self.domain.step
        if self.integer:
            return trial.suggest_int(self.name, int(low), int(high), step=int(step or 1), log=self.domain.log)
        return trial.suggest_float(self.name, float(low), float(high), step=step, log=self.domain.log)

    def distribution(self) -> BaseDistribution:
        """The dimension as Optuna records it."""
        if isinstance(self.domain, list):
            return CategoricalDistribution(self.domain)
        low, high, step = self.domain.low, self.domain.high, self.domain.step
        if self.integer:
            return IntDistribution(int(low), int(high), log=self.domain.log, step=int(step or 1))
        return FloatDistribution(float(low), float(high), log=self.domain.log, step=step)

    def holds(self, value: Scalar) -> bool:
        """Whether this is one of the allowed values."""
        if isinstance(self.domain, list):
            return value in self.domain
        return isinstance(value, int | float) and math.isclose(float(self.nearest(float(value))), value)

    def position(self, value: Scalar) -> float:
        """Where a value lies in a range on its own axis, or a choice among the others, in [0, 1]."""
        if isinstance(self.domain, list):
            return self.domain.index(value) / max(1, len(self.domain) - 1)
        low, high, inside = float(self.domain.low), float(self.domain.high), float(value)
        if self.domain.log:
            low, high, inside = math.log(low), math.log(high), math.log(inside)
        return (inside - low) / (high - low)

    def at(self, position: float) -> Scalar:
        """The allowed value nearest to a position in [0, 1], as :meth:`position` gives it."""
        inside = min(max(position, 0.0), 1.0)
        if isinstance(self.domain, list):
            return self.domain[round(inside * (len(self.domain) - 1))]
        low, high = float(self.domain.low), float(self.domain.high)
        return self.nearest(low * (high / low) ** inside if self.domain.log else low + inside * (high - low))

    def middle(self) -> Scalar:
        """The value a person would try first: the middle of the range on its own axis, or of the numbers to choose
        from (the lower one of two), or the first of other choices."""
        if not isinstance(self.domain, list):
            return self.at(0.5)
        numeric = all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in self.domain)
        return sorted(self.domain, key=float)[(len(self.domain) - 1) // 2] if numeric else self.domain[0]

    def nearest(self, value: float) -> Scalar:
        """The allowed value nearest to ``value``."""
        if isinstance(self.domain, list):
            return min(self.domain, key=lambda choice: abs(float(choice) - value))
        low, high = self.domain.low, self.domain.high
        step = self.domain.step or (1 if self.integer else None)
        inside = min(max(value, low), high)
        if step is not None:
            inside = min(low + step * round((inside - low) / step), high)
        return round(inside) if self.integer else float(inside)


Value = Scalar | Dimension
"""A fixed value, or a dimension that gives one."""


def _scalar(value: Any) -> Scalar:
    """A choice as Optuna gives it back, which is typed more widely than what was put in."""
    chosen: Scalar = value
    return chosen


def value_of(name: str, raw: Any, *, integer: bool = False) -> Value:
    if isinstance(raw, Range):
        reachable = _ending_on_a_step(raw)
        return raw.low if raw.low == reachable.high else Dimension(name, reachable, integer)
    if isinstance(raw, list) and len(raw) > 1:
        return Dimension(name, raw, integer)
    scalar: Scalar = raw[0] if isinstance(raw, list) else raw
    return scalar


def _ending_on_a_step(domain: Range) -> Range:
    """The same range with ``high`` lowered to a value that is reached, worked out in decimals as Optuna does."""
    if domain.step is None:
        return domain
    low, high, step = (Decimal(str(number)) for number in (domain.low, domain.high, domain.step))
    rest = (high - low) % step
    return domain.model_copy(update={"high": float(high - rest)}) if rest else domain


@dataclass(frozen=True)
class Kinds:
    """A choice among kinds, each with parameters of its own."""

    name: str
    kinds: Mapping[str, Mapping[str, Value]]

    def suggest(self, trial: BaseTrial) -> tuple[str, dict[str, Scalar]]:
        names = list(self.kinds)
        kind = names[0] if len(names) == 1 else str(trial.suggest_categorical(self.name, names))
        return kind, {key: pick(value, trial) for key, value in self.kinds[kind].items()}


def pick(value: Value, trial: BaseTrial) -> Scalar:
    return value.suggest(trial) if isinstance(value, Dimension) else value


def kinds_of(name: str, sections: list[Any], tag: str, registry: Mapping[str, KindSpec]) -> Kinds:
    kinds = {}
    for section in sections:
        kind = getattr(section, tag)
        kinds[kind] = {
            key: value_of(f"{name}.{kind}.{key}", getattr(section, key), integer=parameter.type == "int")
            for key, parameter in registry[kind].params.items()
        }
    return Kinds(name, kinds)


def possible(value: Value) -> list[Scalar]:
    """The choices of a value that is chosen by name."""
    if isinstance(value, Dimension):
        return value.domain if isinstance(value.domain, list) else []
    return [value]


def highest(value: Value) -> float:
    if isinstance(value, Dimension):
        return float(max(value.domain) if isinstance(value.domain, list) else value.domain.high)
    return float(value)
