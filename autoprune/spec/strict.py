"""The base of every section of a space file: unknown keys are errors that name the nearest known key."""

import difflib
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError


class Section(BaseModel):
    """A frozen mapping with known keys only."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @model_validator(mode="wrap")
    @classmethod
    def _name_nearest_key(cls, value: Any, handler: ModelWrapValidatorHandler["Section"]) -> "Section":
        try:
            return handler(value)
        except ValidationError as error:
            details = [
                InitErrorDetails(
                    type=cls._unknown_key(str(problem["loc"][0]))
                    if problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1
                    else PydanticCustomError(problem["type"], "{message}", {"message": problem["msg"]}),
                    loc=problem["loc"],
                    input=problem["input"],
                )
                for problem in error.errors(include_url=False)
            ]
        raise ValidationError.from_exception_data(cls.__name__, details)

    @classmethod
    def _unknown_key(cls, key: str) -> PydanticCustomError:
        return unknown("key", key, list(cls.model_fields))


def unknown(what: str, value: object, known: Sequence[object]) -> PydanticCustomError:
    """The error for a name that is not known: names the nearest that is, and all of them."""
    names = [str(name) for name in known]
    near = difflib.get_close_matches(str(value), names, n=1)
    return PydanticCustomError(
        "unknown",
        "unknown {what} '{value}'{hint}. Known: {known}",
        {
            "what": what,
            "value": str(value),
            "hint": f" (did you mean '{near[0]}'?)" if near else "",
            "known": ", ".join(names),
        },
    )
