"""The `constraints` section of a space file: limits that every trial must hold."""

import re
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from autoprune.config.strict import StrictModel

COSTS = ("params", "nonzero_params", "size_bytes", "macs", "flops", "latency_ms")


class Ceiling(StrictModel):
    """The most that a network may cost: absolute, or a multiple of the dense network's cost."""

    value: float = Field(gt=0)
    relative: bool = False

    def limit(self, dense: float) -> float:
        """The ceiling in the cost's own unit, given the dense network's cost."""
        return self.value * dense if self.relative else self.value


_MULTIPLE = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*x\s*")


def _parse_ceiling(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"value": value}
    if isinstance(value, dict | Ceiling):
        return value
    if isinstance(value, str) and (multiple := _MULTIPLE.fullmatch(value)):
        return {"value": float(multiple[1]), "relative": True}
    rule = "must be a number or a multiple of dense such as 0.5x, got {value}"
    raise PydanticCustomError("ceiling", rule, {"value": repr(value)})


CeilingField = Annotated[Ceiling, BeforeValidator(_parse_ceiling)] | None


class Drop(StrictModel):
    """How much worse than the dense network's a metric may be: absolute, or a share of the dense network's value."""

    value: float = Field(ge=0)
    relative: bool = False

    def amount(self, dense: float) -> float:
        """The drop in the metric's own unit, given the dense network's value."""
        return self.value * abs(dense) if self.relative else self.value

    def __str__(self) -> str:
        return f"{100 * self.value:g}%" if self.relative else f"{self.value:g}"


_PERCENT = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*%\s*")


def _parse_drop(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return {"value": value}
    if isinstance(value, dict | Drop):
        return value
    if isinstance(value, str) and (percent := _PERCENT.fullmatch(value)):
        return {"value": float(percent[1]) / 100, "relative": True}
    rule = "must be a number of 0 or more, or a share of dense such as 2%, got {value}"
    raise PydanticCustomError("drop", rule, {"value": repr(value)})


class Constraints(StrictModel):
    """Limits that every trial must hold, checked before it is trained (``metric_drop``: when a point is chosen).

    ``accuracy_drop`` is another name of ``metric_drop``.
    """

    metric_drop: Annotated[Drop, BeforeValidator(_parse_drop)] | None = Field(
        None, validation_alias=AliasChoices("metric_drop", "accuracy_drop")
    )
    params: CeilingField = None
    nonzero_params: CeilingField = None
    size_bytes: CeilingField = None
    macs: CeilingField = None
    flops: CeilingField = None
    latency_ms: CeilingField = None

    @property
    def ceilings(self) -> dict[str, Ceiling]:
        """The cost ceilings that are set, by cost name."""
        return {name: getattr(self, name) for name in COSTS if getattr(self, name) is not None}
