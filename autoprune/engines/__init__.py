"""Where trials run: in this process (inline), or on Ray Tune. Only the module ray_tune loads Ray."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoprune.search.run import Engine

ENGINES = {"ray": ("autoprune.engines.ray_tune", "run_ray"), "inline": ("autoprune.engines.inline", "run_in_process")}
"""Name -> module and function; each runs the trials of a driver until it has no more to give."""


def load_engine(name: str) -> "Engine":
    """The engine of this name; loads what it needs."""
    module, function = ENGINES[name]
    engine: Engine = getattr(import_module(module), function)
    return engine


__all__ = ["ENGINES", "load_engine"]
