"""Paths as space files give them: with environment variables and ``~``."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from autoprune.errors import TaskError


def expand(path: Path | str) -> Path:
    """Put in the values of ``${NAME}``, ``$NAME`` and ``~``.

    Raises:
        TaskError: If a variable is not set.
    """
    try:
        return Path(put_in_variables(str(path))).expanduser()
    except KeyError as error:
        raise TaskError(
            f"{path}: the environment variable {error.args[0]} is not set. Set it, or write the path in full."
        ) from None


def put_in_variables(text: str, changed: Callable[[str], str] = str) -> str:
    """Put in the values of ``${NAME}`` and ``$NAME``, each changed so before; raises KeyError if one is not set."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda name: changed(os.environ[name[1] or name[2]]), text)
