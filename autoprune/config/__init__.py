"""space.yaml -> SearchConfig; every mistake is found at once, each with its place in the file."""

from autoprune.config.changes import differences
from autoprune.config.constraints import COSTS, Ceiling
from autoprune.config.load import SpaceFile, load_config, located, parse_config, read_space_file, valid_task
from autoprune.config.model import SearchConfig
from autoprune.config.searchable import Range
from autoprune.config.task import CallableRef, TaskSettings

__all__ = [
    "COSTS",
    "CallableRef",
    "Ceiling",
    "Range",
    "SearchConfig",
    "SpaceFile",
    "TaskSettings",
    "differences",
    "load_config",
    "located",
    "parse_config",
    "read_space_file",
    "valid_task",
]
