"""What a worker process prints goes to a log of the study: the user's prints and libraries' noise.

Whatever happens to the log, such as a full disk, fails no trial.
"""

import io
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from autoprune.study.logs import cut_log, open_log, worker_log

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class WorkerOutput:
    """Sends all that this process prints, from Python or from C, to its log of a study, from now on.

    Where the log can't be opened, the process prints where it did.

    Args:
        logs: The study's folder of logs; it is made if the study's own is there.
    """

    def __init__(self, logs: Path) -> None:
        self._file: int | None = None
        with suppress(OSError):
            self._file = open_log(worker_log(logs, socket.gethostname(), os.getpid()))
            with suppress(OSError, ValueError):
                sys.stdout.flush()
            with suppress(OSError, ValueError):
                sys.stderr.flush()
            os.dup2(self._file, 1)
            os.dup2(self._file, 2)
            sys.stdout, sys.stderr = _writer(1), _writer(2)

    def begin(self, name: str) -> None:
        """Mark where the output of a run begins; a log that has grown too large is cut before.

        Args:
            name: The run's, such as ``"trial 12"``.
        """
        if self._file is None:
            return
        with suppress(OSError):
            cut_log(self._file)
        print(f"--- {name}, {time.strftime('%Y-%m-%d %H:%M:%S')}")


class _Lossy(io.FileIO):
    """A file that loses what can't be written, and says nothing of it."""

    def write(self, data: "ReadableBuffer", /) -> int:
        with suppress(OSError):
            return super().write(data)
        return memoryview(data).nbytes


def _writer(descriptor: int) -> io.TextIOWrapper:
    """A stream to an open file, written to after every line."""
    raw = _Lossy(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", newline="\n", line_buffering=True
    )
