"""space.yaml -> SearchSpec; every mistake is found at once, each with its place in the file."""

from autoprune.spec.changes import differences
from autoprune.spec.dimension import Range
from autoprune.spec.load import load_spec, located, parse_spec, valid_task
from autoprune.spec.model import COSTS, Ceiling, SearchSpec
from autoprune.spec.task import CallableRef, TaskSettings

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
