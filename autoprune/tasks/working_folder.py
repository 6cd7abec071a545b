"""The user's code runs in the space file's folder, so that a relative path means the same in every process."""

import contextlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoprune.errors import TaskError


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Make a folder the current directory of this process, and go back at the end.

    A Python path that looks into the current directory, as in a notebook, still finds the modules that are in the
    caller's.

    Args:
        folder: The space file's.

    Raises:
        TaskError: If there is no such folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, working_in(Path(folder)):
        ...     Path("here.txt").write_text("a relative path")
        15
    """
    before = Path.cwd()
    place = contextlib.chdir(folder)
    try:
        place.__enter__()
    except OSError as error:
        raise TaskError(
            f"{folder}: the folder of the space file can't be entered: {error.strerror}. The names and relative paths "
            "in the file start from there: put it back."
        ) from None
    added = "" in sys.path and str(before) not in sys.path
    if added:
        sys.path.insert(sys.path.index("") + 1, str(before))
    try:
        yield
    finally:
        if added:
            with contextlib.suppress(ValueError):
                sys.path.remove(str(before))
        place.__exit__(None, None, None)
