"""A searchable value in a space file: a fixed scalar, a list of choices, or a range."""

import math
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, GetPydanticSchema, Tag, model_validator
from pydantic_core import PydanticCustomError

from autoprune.spec.strict import Section, unknown

Number = int | float
Scalar = bool | int | float | str


class Range(Section):
    """Every value from ``low`` to ``high``, both included; ``log`` samples the exponent evenly."""

    low: Number
    high: Number
    log: bool = False
    step: Number | None = None

    @model_validator(mode="after")
    def _check_ends(self) -> "Range":
        if self.low > self.high:
            raise PydanticCustomError(
                "range_order",
                "low <= high must hold, but got low={low}, high={high}",
                {"low": self.low, "high": self.high},
            )
        if self.log and self.low <= 0:
            raise PydanticCustomError("range_log", "low > 0 must hold when log is true, got {low}", {"low": self.low})
        if self.log and self.step is not None:
            raise PydanticCustomError("range_step", "log and step can't be used together")
        if self.step is not None and self.step <= 0:
            raise PydanticCustomError("range_step", "step > 0 must hold, got {step}", {"step": self.step})
        return self


Dimension = Scalar | Range | list[Scalar]
"""A fixed value, a range, or a list of choices."""


def _kind(value: Any) -> str:
    if isinstance(value, dict | Range):
        return "range"
    return "choice" if isinstance(value, list) else "fixed"


def endpoints(dimension: Any) -> Iterator[tuple[str, Any]]:
    """Every value that bounds a dimension, with its place inside it: ``""``, ``".high"`` or ``"[1]"``."""
    if isinstance(dimension, Range):
        yield ".low", dimension.low
        yield ".high", dimension.high
    elif isinstance(dimension, list):
        yield from ((f"[{index}]", choice) for index, choice in enumerate(dimension))
    else:
        yield "", dimension


def numeric(
    low: float | None = None,
    high: float | None = None,
    *,
    low_open: bool = False,
    high_open: bool = False,
    integer: bool = False,
) -> GetPydanticSchema:
    """For ``Annotated[Dimension, ...]``: a searchable number with its endpoints between ``low`` and ``high``."""
    interval = (
        f"{'(' if low_open or low is None else '['}{'-inf' if low is None else _plain(low)}, "
        f"{'inf' if high is None else _plain(high)}{')' if high_open or high is None else ']'}"
    )
    rule = f"a whole number in {interval}" if integer else f"in {interval}"

    def check(dimension: Any) -> Any:
        for place, value in endpoints(dimension):
            good = isinstance(value, int if integer else int | float) and not isinstance(value, bool)
            good = good and math.isfinite(value)
            good = good and (low is None or (value > low if low_open else value >= low))
            good = good and (high is None or (value < high if high_open else value <= high))
            if not good:
                raise PydanticCustomError(
                    "out_of_range",
                    "{place} must be {rule}, got {value}" if place else "must be {rule}, got {value}",
                    {"place": place, "rule": rule, "value": value},
                )
        if integer and isinstance(dimension, Range) and not isinstance(dimension.step, int | None):
            raise PydanticCustomError("out_of_range", ".step must be a whole number, got {v}", {"v": dimension.step})
        return dimension

    return _dimension(check)


def choice_of(names: tuple[Any, ...], what: str) -> GetPydanticSchema:
    """For ``Annotated[Dimension, ...]``: a searchable name, one of ``names`` or a list of some of them."""

    def check(dimension: Any) -> Any:
        if isinstance(dimension, Range):
            raise PydanticCustomError("not_a_choice", "must be one name or a list of names, got a range")
        for _, value in endpoints(dimension):
            if value not in names:
                raise unknown(what, value, names)
        return dimension

    return _dimension(check)


def _dimension(check: Callable[[Any], Any]) -> GetPydanticSchema:
    def check_list(choices: list[Any]) -> list[Any]:
        if not choices:
            raise PydanticCustomError("empty_choice", "a list of choices can't be empty")
        if len(set(map(repr, choices))) < len(choices):
            raise PydanticCustomError("repeated_choice", "a choice stands twice in the list")
        return choices

    return as_type(
        Annotated[
            Annotated[Scalar, Tag("fixed")]
            | Annotated[Range, Tag("range")]
            | Annotated[list[Scalar], AfterValidator(check_list), Tag("choice")],
            Discriminator(_kind),
            AfterValidator(check),
        ]
    )


def as_type(annotation: Any) -> GetPydanticSchema:
    """Metadata by which a field is validated as a type that is made at run time."""
    return GetPydanticSchema(lambda _, handler: handler(annotation))


def _plain(value: float) -> str:
    return f"{value:g}"
