"""The base of every section of a space file, and how validators report all that is wrong, each in its place."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from autoprune.errors import unknown_name


class Mistake(NamedTuple):
    """One thing wrong with a value.

    Attributes:
        place: Keys and indices from the value down to what is wrong.
    """

    place: tuple[str | int, ...]
    error: PydanticCustomError
    value: object


class StrictModel(BaseModel):
    """A frozen mapping with known keys only; no value is turned into another type.

    Attributes:
        refused: Key that one might look for here -> why there is none, and the way out.
    """

    refused: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True)

    @model_validator(mode="wrap")
    @classmethod
    def _name_known_keys(cls, value: Any, handler: ModelWrapValidatorHandler["StrictModel"]) -> "StrictModel":
        try:
            return handler(value)
        except ValidationError as error:
            mistakes = [cls._retold(mistake) for mistake in mistakes_of(error)]
        raise all_of(mistakes)

    @classmethod
    def _retold(cls, mistake: Mistake) -> Mistake:
        known = list(cls.model_fields)
        if mistake.error.type == "extra_forbidden" and len(mistake.place) == 1:
            reason = cls.refused.get(str(mistake.place[0]))
            if reason is not None:
                return mistake._replace(error=PydanticCustomError("refused", "{reason}", {"reason": reason}))
            return mistake._replace(error=unknown("key", mistake.place[0], known))
        if mistake.error.type == "model_type" and not mistake.place:
            rule = "must be a mapping with keys out of: {known}"
            return mistake._replace(error=PydanticCustomError("no_mapping", rule, {"known": ", ".join(known)}))
        return mistake


def all_of(mistakes: Iterable[Mistake]) -> ValidationError:
    """One exception that carries several mistakes."""
    details = [InitErrorDetails(type=each.error, loc=each.place, input=each.value) for each in mistakes]
    return ValidationError.from_exception_data("space file", details)


def mistakes_of(error: ValidationError) -> list[Mistake]:
    """The mistakes that an exception carries."""
    return [
        Mistake(
            problem["loc"],
            PydanticCustomError(problem["type"], "{message}", {"message": problem["msg"]}),
            problem["input"],
        )
        for problem in error.errors(include_url=False)
    ]


def also(find_mistakes: Callable[[Any], list[Mistake]]) -> WrapValidator:
    """Look for more mistakes in a raw value, besides those that its own type finds."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        mistakes = find_mistakes(value)
        try:
            validated = handler(value)
        except ValidationError as error:
            mistakes += mistakes_of(error)
        if mistakes:
            raise all_of(mistakes)
        return validated

    return WrapValidator(check)


def repeated(values: Sequence[Any]) -> list[Any]:
    """The values that stand more than once, each once."""
    return [value for index, value in enumerate(values) if values[: index + 1].count(value) == 2]


def unknown(what: str, value: object, known: Sequence[object]) -> PydanticCustomError:
    """The error for a name that is not known: names the nearest that is, and all of them."""
    message = unknown_name(what, str(value), map(str, known)).removesuffix(".")
    return PydanticCustomError("unknown", "{message}", {"message": message})


def auto_or_integer(value: Any, low: int) -> Any:
    """Check for ``auto`` or an integer of ``low`` or more."""
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or value < low):
        rule = f"must be auto or an integer in [{low}, inf), got {{v}}"
        raise PydanticCustomError("auto_or_integer", rule, {"v": repr(value)})
    return value
