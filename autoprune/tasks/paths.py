"""Paths as space files give them: with environment variables and ``~``."""

import os
import re
from pathlib import Path

from autoprune.errors import TaskError


def expand(path: Path | str) -> Path:
    """Put in the values of ``${NAME}``, ``$NAME`` and ``~``.

    Raises:
        TaskError: If a variable is not set.
    """
    expanded = os.path.expandvars(path)
    unset = re.search(r"\$\{?(\w+)", expanded)
    if unset:
        raise TaskError(f"{path}: the environment variable {unset[1]} is not set. Set it, or write the path in full.")
    return Path(expanded).expanduser()
