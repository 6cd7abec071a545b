"""`search.log` of a study: what a search did, what failed and what was tried again."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoprune.study.logs import open_log


@contextmanager
def written_to(path: Path) -> Iterator[None]:
    """Append what autoprune logs, from INFO on, to a file for the time of the context.

    Args:
        path: The file; it is opened with the first record. Where it can't be written, records are lost.
    """
    logger, handler = logging.getLogger("autoprune"), _LogFile(path)
    level = logger.level
    logger.addHandler(handler)
    if logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()


class _LogFile(logging.Handler):
    """Appends records to a log of a study, and loses those that can't be written."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._file: int | None = None
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode(errors="backslashreplace") + b"\n"
            if self._file is None:
                self._file = open_log(self._path)
            os.write(self._file, line)
        except OSError:
            return
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        super().close()
