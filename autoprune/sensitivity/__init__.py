"""Sensitivity: how the accuracy falls when each group of channels alone is cut, and the widths that follow from it.

The names that need torch are loaded at first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from autoprune.sensitivity.map import SensitivityMap, SensitivityPoint

if TYPE_CHECKING:
    from autoprune.sensitivity.measure import (
        KEPT_SHARES,
        SensitivityMeter,
        map_of,
        measure_map,
        points_to_measure,
        task_meter,
    )

__all__ = [
    "KEPT_SHARES",
    "SensitivityMap",
    "SensitivityMeter",
    "SensitivityPoint",
    "map_of",
    "measure_map",
    "points_to_measure",
    "task_meter",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.measure"), name)
