"""The rules of a range, and of what it may bound."""

import math
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError

from autoprune.config import Range
from autoprune.config.searchable import Searchable, searchable
from autoprune.training.schedules import ParameterSpec


def messages(error: ValidationError) -> list[str]:
    return [problem["msg"] for problem in error.errors()]


@pytest.mark.parametrize(
    "fields",
    [
        {"low": 0, "high": 0},
        {"low": -2.5, "high": 1},
        {"low": 1e-5, "high": 1e-3, "log": True},
        {"low": 0, "high": 1, "step": 0.3},
    ],
)
def test_good_ranges(fields: dict[str, Any]) -> None:
    assert Range(**fields).model_dump(exclude_defaults=True) == fields


@pytest.mark.parametrize(
    ("fields", "rules"),
    [
        ({"low": 3, "high": 1}, ["low <= high must hold, but got low=3, high=1"]),
        ({"low": 0, "high": 1, "log": True}, ["low > 0 must hold when log is true, got 0"]),
        ({"low": 1, "high": 2, "log": True, "step": 1}, ["log and step can't be used together"]),
        ({"low": 1, "high": 2, "step": 0}, ["step > 0 must hold, got 0"]),
        (
            {"low": 3, "high": 1, "step": -1},
            ["low <= high must hold, but got low=3, high=1", "step > 0 must hold, got -1"],
        ),
        ({"low": math.nan, "high": math.inf}, ["must be a number, got nan", "must be a number, got inf"]),
        ({"low": True, "high": "2"}, ["must be a number, got True", "must be a number, got '2'"]),
    ],
)
def test_broken_ranges(fields: dict[str, Any], rules: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        Range(**fields)
    assert messages(caught.value) == rules


@pytest.mark.parametrize("value", [0.5, 1, [0.25, 1], {"low": 0.25, "high": 1}, [1]])
def test_a_number_may_be_fixed_chosen_or_a_range(value: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(
        Annotated[Searchable, searchable(ParameterSpec("float", low=0, high=1, low_open=True))]
    )
    found = adapter.validate_python(value)
    assert found == (Range(**value) if isinstance(value, dict) else value)


@pytest.mark.parametrize("value", [0, 1.01, math.nan, True, "1", None, {}, [0.5, 0], {"low": 0, "high": 1}])
def test_bounds_hold_for_every_form(value: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(
        Annotated[Searchable, searchable(ParameterSpec("float", low=0, high=1, low_open=True))]
    )
    with pytest.raises(ValidationError):
        adapter.validate_python(value)
