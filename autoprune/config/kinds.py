"""A section of a space file that is one of several kinds, or a list of them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, GetPydanticSchema, Tag, WrapValidator, create_model
from pydantic_core import PydanticCustomError

from autoprune.config.searchable import Searchable, as_type, searchable
from autoprune.config.strict import Mistake, StrictModel, also, repeated, unknown
from autoprune.training.schedules.parameters import KindSpec


def as_list(value: Any) -> Any:
    """Make a list of a single section."""
    return value if isinstance(value, list) else [value]


def told_apart_by(tag: str, known: tuple[str, ...], members: Any) -> Any:
    """A union of sections whose member is named by the key ``tag``."""

    def tag_of(value: Any) -> Any:
        return value.get(tag) if isinstance(value, dict) else getattr(value, tag, None)

    def check(value: Any) -> Any:
        if tag_of(value) is None:
            raise PydanticCustomError(
                "no_kind", "needs a '{tag}'. Known: {known}", {"tag": tag, "known": ", ".join(known)}
            )
        if tag_of(value) not in known:
            raise unknown(tag, tag_of(value), known)
        return value

    return Annotated[members, Discriminator(tag_of), BeforeValidator(check)]


def no_repeats(tag: str) -> WrapValidator:
    """Refuse a list in which two sections name the same kind."""

    def find(sections: list[Any]) -> list[Mistake]:
        rule = "names the {tag} '{name}' twice; put the values of both into one"
        names = [section.get(tag) for section in sections if isinstance(section, dict) and tag in section]
        return [
            Mistake((), PydanticCustomError("repeated", rule, {"tag": tag, "name": str(name)}), sections)
            for name in repeated(names)
        ]

    return also(find)


def sections_of(registry: Mapping[str, KindSpec], tag: str, what: str) -> GetPydanticSchema:
    """One section class a registered kind, told apart by the key ``tag``; a list of them is a choice."""
    members: Any = None
    for kind, member_kind in registry.items():
        fields: dict[str, Any] = {
            name: (Annotated[Searchable, searchable(parameter)], ... if parameter.required else parameter.default)
            for name, parameter in member_kind.params.items()
        }
        fields[tag] = (Literal[kind], kind)
        section = create_model(f"{what} {kind}", __base__=StrictModel, **fields)
        member = Annotated[section, Tag(kind)]
        members = member if members is None else members | member
    sections = Annotated[Any, as_type(told_apart_by(tag, tuple(registry), members))]
    return as_type(
        Annotated[
            list[sections],
            Field(min_length=1),
            no_repeats(tag),
            BeforeValidator(as_list),
        ]
    )
