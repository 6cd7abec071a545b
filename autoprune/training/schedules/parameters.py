"""Parameters of the members of a family (schedules, optimizers): their types, bounds and defaults."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from autoprune.errors import AutopruneError, unknown_name
from autoprune.trial import Scalar


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter of a schedule or an optimizer.

    Attributes:
        low: Least value, itself allowed unless ``low_open``; ``None`` is no bound.
        high: Greatest value, itself allowed unless ``high_open``; ``None`` is no bound.
        choices: The values of a ``"choice"``, in the order to show them.
        default: Value if none is given; ``None`` means that one must be given.
    """

    type: Literal["float", "int", "choice"]
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    choices: tuple[Scalar, ...] = ()
    default: Scalar | None = None

    @property
    def required(self) -> bool:
        return self.default is None

    @property
    def rule(self) -> str:
        """What a value has to be, such as ``"an integer in [1, inf)"``."""
        if self.type == "choice":
            return "one of " + ", ".join(str(choice) for choice in self.choices)
        left = "(-inf" if self.low is None else f"{'(' if self.low_open else '['}{self.low:g}"
        right = "inf)" if self.high is None else f"{self.high:g}{')' if self.high_open else ']'}"
        return f"{'an integer' if self.type == 'int' else 'a number'} in {left}, {right}"

    def allows(self, value: object) -> bool:
        """Whether ``value`` has the right type and lies within the bounds; no bool passes as a number."""
        if self.type == "choice":
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        if isinstance(value, bool) or not isinstance(value, int if self.type == "int" else int | float):
            return False
        if not math.isfinite(value):
            return False
        if self.low is not None and (value < self.low or (self.low_open and value == self.low)):
            return False
        return self.high is None or not (value > self.high or (self.high_open and value == self.high))


@dataclass(frozen=True)
class KindSpec:
    """One member of a family.

    Attributes:
        summary: One line for help texts.
        params: Parameter name -> what it takes.
    """

    summary: str
    params: Mapping[str, ParameterSpec]


def resolve_params(
    family: str, kinds: Mapping[str, KindSpec], name: str, params: Mapping[str, Scalar]
) -> dict[str, Scalar]:
    """Check the parameters of one member and fill in the defaults.

    Args:
        family: How messages call the family, such as ``"learning-rate schedule"``.

    Raises:
        AutopruneError: If the member or a parameter is unknown, a parameter is missing, or a value breaks its rule.
    """
    if name not in kinds:
        raise AutopruneError(unknown_name(family, name, sorted(kinds)))
    where = f"{family} '{name}'"
    known = kinds[name].params
    for key, value in params.items():
        if key not in known:
            raise AutopruneError(f"{where}: {unknown_name('parameter', key, sorted(known))}")
        if not known[key].allows(value):
            raise AutopruneError(f"{where}: {key} must be {known[key].rule}, got {value!r}.")
    resolved: dict[str, Scalar] = {}
    for key, kind in known.items():
        if key in params:
            resolved[key] = params[key]
        elif kind.default is not None:
            resolved[key] = kind.default
        else:
            raise AutopruneError(f"{where}: {key} is required; give {kind.rule}.")
    return resolved
