"""autoprune: one search over learning-rate schedule, batch-size schedule and per-layer pruning ratios.

The public names load on first use, so that ``import autoprune`` loads neither torch nor Ray.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoprune.api import ModelPlan, plan
    from autoprune.formats.saved_model import load

__all__ = ["ModelPlan", "load", "plan"]

_HOMES = {"ModelPlan": "autoprune.api", "load": "autoprune.formats.saved_model", "plan": "autoprune.api"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
