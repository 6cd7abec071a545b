"""space.yaml -> SearchSpec; every mistake is found at once, each with its place in the file."""

from autoprune.config.changes import differences
from autoprune.config.dimension import Range
from autoprune.config.load import load_spec, located, parse_spec, valid_task
from autoprune.config.model import COSTS, Ceiling, SearchSpec
from autoprune.config.task import CallableRef, TaskSettings

__all__ = [
    "COSTS",
    "CallableRef",
    "Ceiling",
    "Range",
    "SearchSpec",
    "TaskSettings",
    "differences",
    "load_spec",
    "located",
    "parse_spec",
    "valid_task",
]
