"""The logs of a study, in ``logs/``: kept small, and never in the way of a trial."""

import os
from contextlib import suppress
from pathlib import Path

MAX_BYTES = 10_000_000
"""Size above which a log is cut."""

KEPT_BYTES = 1_000_000
"""How much is left of a log that is cut: its end."""

N_WORKER_LOGS = 20
"""How many workers' logs are left when a search begins: the newest."""


def open_log(path: Path) -> int:
    """Open a log for appending, cut if it has grown too large; its folder is made in the study's.

    Returns:
        A file descriptor.

    Raises:
        OSError: If the study's folder is missing or can't be written.
    """
    path.parent.mkdir(exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    with suppress(OSError):
        cut_log(file)
    return file


def cut_log(file: int) -> None:
    """Leave only the last lines of an open log that is over ``MAX_BYTES``; raises OSError if that can't be done."""
    size = os.fstat(file).st_size
    if size <= MAX_BYTES:
        return
    end = os.pread(file, KEPT_BYTES, size - KEPT_BYTES)
    os.ftruncate(file, 0)
    os.write(file, end[end.find(b"\n") + 1 :])


def worker_log(logs: Path, host: str, pid: int) -> Path:
    """Return the log of a worker process."""
    return logs / f"worker-{host}-{pid}.log"


def delete_old_worker_logs(logs: Path) -> None:
    """Delete all but the newest ``N_WORKER_LOGS`` workers' logs, as far as that can be done."""
    with suppress(OSError):
        oldest_first = sorted(logs.glob("worker-*.log"), key=lambda path: path.stat().st_mtime_ns)
        for path in oldest_first[:-N_WORKER_LOGS]:
            path.unlink()
