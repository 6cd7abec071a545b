"""Where trials run: in this process (inline), or on Ray Tune. Only the module ray_tune loads Ray."""

import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from autoprune.errors import StudyError

if TYPE_CHECKING:
    from autoprune.search.run import Engine

ENGINES = {"ray": ("autoprune.engines.ray_tune", "run_ray"), "inline": ("autoprune.engines.inline", "run_in_process")}
"""Name -> module and function; each runs the trials of a driver until it has no more to give."""


def load_engine(name: str, address: str | None = None) -> "Engine":
    """The engine of this name; loads what it needs.

    Args:
        address: Of a running Ray that the engine ``ray`` is to join; ``None`` starts one.

    Raises:
        StudyError: If another engine is to join a Ray, or the address is that of a Ray Client.
    """
    if address is not None and name != "ray":
        raise StudyError(f"--address goes with --engine ray, got --engine {name}. Leave one of them out.")
    if address is not None and "://" in address:
        raise StudyError(
            f"--address must be auto or HOST:PORT, got {address}: the search writes the study itself, so it can't run "
            "through a Ray Client. Run it on a machine of the cluster."
        )
    if name == "ray" and address is None:
        # Read when Ray is imported: its processes listen on loopback only, for which `_node_ip_address` alone is not
        # enough. A Ray that is joined has the addresses of its nodes.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    module, function = ENGINES[name]
    engine: Callable[..., None] = getattr(import_module(module), function)
    return engine if address is None else partial(engine, address=address)


__all__ = ["ENGINES", "load_engine"]
