"""plan.json: what can be pruned (plan), what every candidate costs (table), what the channels are worth (scores)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from autoprune.errors import StudyError
from autoprune.study.folder import StudyFolder

T = TypeVar("T")


def read_plan_part(path: Path, part: Literal["plan", "table", "scores"], rebuild: Callable[[Any], T]) -> T:
    """Read one part of a study's plan.

    Args:
        rebuild: Makes the part of its plain JSON values.

    Raises:
        StudyError: If the file or the part is missing or damaged.
    """
    try:
        return rebuild(StudyFolder.read_json(path)[part])
    except (KeyError, TypeError, ValueError) as error:
        cause = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise StudyError(f"{path}: not a plan: {cause}. Restore it, or start the study anew.") from None
