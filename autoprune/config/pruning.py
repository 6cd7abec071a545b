"""The `pruning` section of a space file: the three methods, their ratios, and what differs for some layers."""

from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from autoprune.config.criteria import CRITERIA
from autoprune.config.kinds import told_apart_by
from autoprune.config.searchable import Number, Range, Searchable, endpoints, searchable
from autoprune.config.strict import Mistake, StrictModel, all_of, mistakes_of
from autoprune.training.schedules.parameters import ParameterSpec
from autoprune.trial import WeightPattern, WeightScope

Ratio = Annotated[Searchable, searchable(ParameterSpec("float", low=0, high=1, high_open=True))]
_RATIO: TypeAdapter[Any] = TypeAdapter(Ratio)


class RatioOverride(StrictModel):
    """What of a method's range differs for some layers; a key left out keeps the method's value."""

    low: Number | None = None
    high: Number | None = None
    log: bool | None = None
    step: Number | None = None


def _rule_form(value: Any) -> str:
    if isinstance(value, dict | RatioOverride):
        return "override"
    return "skip" if isinstance(value, str) else "ratio"


LayerRule = Annotated[
    Annotated[Literal["skip"], Tag("skip")]
    | Annotated[RatioOverride, Tag("override")]
    | Annotated[Ratio, Tag("ratio")],
    Discriminator(_rule_form),
]


def _check_patterns(layers: Any) -> Any:
    if layers is None:
        return {}
    if isinstance(layers, dict):
        error = PydanticCustomError("pattern", "must be text: put the layer's name in quotes")
        mistakes = [Mistake((pattern,), error, pattern) for pattern in layers if not isinstance(pattern, str)]
        if mistakes:
            raise all_of(mistakes)
    return layers


class _RatioPerLayer(StrictModel):
    """A method with a ratio for every layer: its own, unless a pattern of ``layers`` says otherwise."""

    ratio: Ratio
    layers: Annotated[dict[str, LayerRule], BeforeValidator(_check_patterns)] = Field(default_factory=dict)

    def ratio_under(self, rule: Any) -> Any:
        """The ratio of a layer that a rule other than ``"skip"`` holds for; raises pydantic's ValidationError."""
        if not isinstance(rule, RatioOverride):
            return rule
        base = self.ratio.model_dump() if isinstance(self.ratio, Range) else {}
        return _RATIO.validate_python(base | {key: value for key, value in rule if value is not None})

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        mistakes = []
        for pattern, rule in self.layers.items():
            try:
                self.ratio_under(rule)
            except ValidationError as error:
                mistakes += [
                    mistake._replace(place=("layers", pattern, *mistake.place)) for mistake in mistakes_of(error)
                ]
        if mistakes:
            raise all_of(mistakes)
        return self


class NeuronSettings(_RatioPerLayer):
    """Remove channels and neurons, with a ratio for every group.

    With ``hidden_sizes``, channels over which a norm takes its statistics are groups too. With ``reconstruct``, the
    layers behind a group are fitted to training examples after a cut, so that their outputs change least.
    """

    method: Literal["neuron"]
    criterion: Annotated[Searchable, searchable(ParameterSpec("choice", choices=CRITERIA), "criterion")] = "l2"
    ratio: Ratio = Range(low=0.0, high=0.9)
    reconstruct: bool = True
    round_to: int = Field(1, ge=1)
    hidden_sizes: bool = False


class LayerSettings(StrictModel):
    """Remove whole residual blocks, the least important first.

    Importance is the rise of the loss without the block, or the angle by which the block turns its input.
    """

    method: Literal["layer"]
    importance: Literal["loss", "angular"] = "loss"
    ratio: Ratio = Range(low=0.0, high=0.5)
    layers: Annotated[dict[str, Literal["skip"]], BeforeValidator(_check_patterns)] = Field(default_factory=dict)


class WeightSettings(_RatioPerLayer):
    """Set single weights to zero, by magnitude; a ``pattern`` other than ``none`` gives the ratio of every layer."""

    method: Literal["weight"]
    scope: Annotated[Searchable, searchable(ParameterSpec("choice", choices=get_args(WeightScope)), "scope")] = "layer"
    pattern: Annotated[Searchable, searchable(ParameterSpec("choice", choices=get_args(WeightPattern)), "pattern")] = (
        "none"
    )
    ratio: Ratio = Range(low=0.0, high=0.8)

    @model_validator(mode="after")
    def _check_one_ratio_for_all(self) -> Self:
        """Where no ratio of a layer's own, or none at all, is ever used, none may be given."""
        scopes, patterns = ([str(name) for _, name in endpoints(value)] for value in (self.scope, self.pattern))
        reason, mistakes = "", []
        if "none" not in patterns:
            reason = f"pattern {' or '.join(patterns)} gives the ratio"
            for key in ("scope", "ratio"):
                value = getattr(self, key)
                if value != type(self).model_fields[key].default:
                    error = PydanticCustomError("pattern", "must be left out: {reason}", {"reason": reason})
                    mistakes.append(Mistake((key,), error, value))
        elif "layer" not in scopes:
            reason = f"with scope {' or '.join(scopes)}, one ratio holds for all layers"
        if reason:
            error = PydanticCustomError("one_ratio", "must be skip: {reason}", {"reason": reason})
            mistakes += [
                Mistake(("layers", pattern), error, rule) for pattern, rule in self.layers.items() if rule != "skip"
            ]
        if mistakes:
            raise all_of(mistakes)
        return self


SETTINGS = (NeuronSettings, LayerSettings, WeightSettings)
"""The sections that a space file may hold under `pruning`, each named by its key `method`."""

METHODS: tuple[str, ...] = tuple(get_args(section.model_fields["method"].annotation)[0] for section in SETTINGS)

_TAGGED: list[Any] = [Annotated[section, Tag(name)] for section, name in zip(SETTINGS, METHODS, strict=True)]
Method = told_apart_by("method", METHODS, reduce(or_, _TAGGED))
