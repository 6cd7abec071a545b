"""A searchable value as a space file has it: a fixed scalar, a list of choices, or a range."""

import math
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, GetPydanticSchema, PlainValidator, Tag, model_validator
from pydantic_core import PydanticCustomError

from autoprune.config.strict import Mistake, StrictModel, all_of, repeated, unknown
from autoprune.training.schedules.parameters import ParameterSpec


def _check_number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise PydanticCustomError("number", "must be a number, got {value}", {"value": repr(value)})
    return value


Number = Annotated[int | float, PlainValidator(_check_number)]
Scalar = bool | int | float | str


class Range(StrictModel):
    """Every value from ``low`` to ``high``, both included; ``log`` samples the exponent evenly.

    With ``step``, only ``low``, ``low + step`` and so on, as far as ``high``.
    """

    low: Number
    high: Number
    log: bool = False
    step: Number | None = None

    @model_validator(mode="after")
    def _check_ends(self) -> "Range":
        shown = {"low": self.low, "high": self.high, "step": self.step}
        broken = []
        if self.low > self.high:
            broken.append("low <= high must hold, but got low={low}, high={high}")
        if self.log and self.low <= 0:
            broken.append("low > 0 must hold when log is true, got {low}")
        if self.log and self.step is not None:
            broken.append("log and step can't be used together")
        if self.step is not None and self.step <= 0:
            broken.append("step > 0 must hold, got {step}")
        if broken:
            raise all_of(Mistake((), PydanticCustomError("range", rule, shown), self) for rule in broken)
        return self


Searchable = Scalar | Range | list[Scalar]
"""A fixed value, a range, or a list of choices."""


def _form(value: Any) -> str:
    if isinstance(value, dict | Range):
        return "range"
    return "choice" if isinstance(value, list) else "fixed"


def endpoints(dimension: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every value that bounds a dimension, with its place inside it: ``()``, ``("high",)`` or ``(1,)``."""
    if isinstance(dimension, Range):
        yield ("low",), dimension.low
        yield ("high",), dimension.high
    elif isinstance(dimension, list):
        yield from (((index,), choice) for index, choice in enumerate(dimension))
    else:
        yield (), dimension


def searchable(kind: ParameterSpec, what: str = "value") -> GetPydanticSchema:
    """For ``Annotated[Searchable, ...]``: a searchable value whose endpoints or choices the kind allows.

    Args:
        what: How messages call a choice.
    """

    def broken(value: Any) -> PydanticCustomError:
        if kind.type == "choice":
            return unknown(what, value, kind.choices)
        rule = kind.rule.removeprefix("a number ")
        return PydanticCustomError("rule", "must be {rule}, got {value}", {"rule": rule, "value": repr(value)})

    def check(dimension: Any) -> Any:
        if isinstance(dimension, Range) and kind.type == "choice":
            raise PydanticCustomError("not_a_choice", "must be one name or a list of names, got a range")
        if dimension == []:
            raise PydanticCustomError("empty_choice", "must be one value or a list of some, got an empty list")
        mistakes = [
            Mistake(place, broken(value), value) for place, value in endpoints(dimension) if not kind.allows(value)
        ]
        for value in repeated(dimension if isinstance(dimension, list) else []):
            error = PydanticCustomError("repeated", "names {value} twice", {"value": repr(value)})
            mistakes.append(Mistake((), error, dimension))
        if kind.type == "int" and isinstance(dimension, Range) and isinstance(dimension.step, float):
            error = PydanticCustomError("step", "must be an integer, got {value}", {"value": dimension.step})
            mistakes.append(Mistake(("step",), error, dimension.step))
        if mistakes:
            raise all_of(mistakes)
        return dimension

    return as_type(
        Annotated[
            Annotated[Any, Tag("fixed")] | Annotated[Range, Tag("range")] | Annotated[list[Any], Tag("choice")],
            Discriminator(_form),
            AfterValidator(check),
        ]
    )


def as_type(annotation: Any) -> GetPydanticSchema:
    """Metadata by which a field is validated as a type that is made at run time."""
    return GetPydanticSchema(lambda _, handler: handler(annotation))
