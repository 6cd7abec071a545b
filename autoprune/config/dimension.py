"""One searched value of a space, as plain data: whoever samples it asks for a value by its name and domain."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from autoprune.config.searchable import Range
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

    def every_value(self) -> list[Scalar]:
        """The values of choices or of a range with steps."""
        if isinstance(self.domain, list):
            return self.domain
        low, high, step = self.domain.low, self.domain.high, float(self.domain.step or 1)
        return [self.nearest(low + number * step) for number in range(round((high - low) / step) + 1)]


Value = Scalar | Dimension
"""A fixed value, or a dimension that gives one."""

Pick = Callable[[Value], Scalar]
"""Gives a fixed value as it is, and asks the sampler for a dimension's."""


def value_of(name: str, raw: Any, *, integer: bool = False) -> Value:
    """Make a value of what a space file says: fixed where only one value is possible, else a dimension."""
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


def ends(value: Value) -> list[Scalar]:
    """The choices of a value, or the ends of its range."""
    if not isinstance(value, Dimension):
        return [value]
    return value.domain if isinstance(value.domain, list) else [value.domain.low, value.domain.high]


def highest(value: Value) -> float:
    """The greatest that a number may be."""
    return max(float(end) for end in ends(value))
