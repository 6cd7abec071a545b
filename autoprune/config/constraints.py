"""The `constraints` section of a space file: limits that every trial must hold."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
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


class Constraints(StrictModel):
    """Limits that every trial must hold, checked before it is trained (``accuracy_drop``: when a point is chosen)."""

    accuracy_drop: Annotated[float, Field(ge=0)] | None = None
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
