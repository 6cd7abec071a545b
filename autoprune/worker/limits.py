"""What one trial may take of time and memory: the kernel holds it to that while the trial's own code runs."""

import errno
import resource
import signal
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeVar

from autoprune.errors import AutopruneError, describe_error

Event = TypeVar("Event")

GIB = 2**30
REPEAT_S = 1.0
"""How soon a trial that has caught its timeout is told of it again."""


class TrialTimeout(BaseException):
    """The trial's time is over. No Exception, so that a user's ``except Exception`` does not swallow it."""


class Limits:
    """Limits of one trial, in force only while it works: what is done between two of its events is not limited.

    Args:
        timeout_s: Wall-clock time that it may take. It is interrupted by a signal, for which it must run in the main
            thread and come back to Python now and then: a call of a library that never returns is not interrupted.
        memory_gib: Private memory (RLIMIT_DATA, Linux only) that its process may take beyond what it holds when this
            object is made; that of child processes and of GPUs does not count.
    """

    def __init__(self, timeout_s: float | None = None, memory_gib: float | None = None) -> None:
        self._timeout_s, self._memory_gib = timeout_s, memory_gib
        self._data_bytes = None if memory_gib is None else _held_bytes() + int(memory_gib * GIB)

    def around(self, events: Iterator[Event]) -> Generator[Event]:
        """Give a trial's events, under the limits while each of them is made.

        Raises:
            TrialTimeout: When the time is over.
            MemoryError, RuntimeError, OSError: When the memory is not enough, as whoever asked for it puts it.
        """
        left = self._timeout_s
        while True:
            began = time.monotonic()
            with ExitStack() as limits:
                if left is not None and threading.current_thread() is threading.main_thread():
                    limits.enter_context(_alarm(left, f"search.trial_timeout of {self._timeout_s:g} s is over"))
                if self._data_bytes is not None:
                    limits.enter_context(_data_limit(self._data_bytes))
                try:
                    event = next(events)
                except StopIteration:
                    return
            left = None if left is None else left - (time.monotonic() - began)
            yield event

    def describe(self, error: BaseException) -> str:
        """One line with an error's cause and place, and with the limit that it comes from if it does."""
        if self._memory_gib is not None and _is_out_of_memory(error):
            return f"over resources.memory_per_trial_gib = {self._memory_gib:g}: {describe_error(error)}"
        return str(error) if isinstance(error, AutopruneError) else describe_error(error)


@contextmanager
def _alarm(seconds: float, message: str) -> Iterator[None]:
    """Raise TrialTimeout in the main thread after so many seconds, and again and again if it is caught."""
    armed = True

    def ring(signum: int, frame: FrameType | None) -> None:
        if armed:
            raise TrialTimeout(message)

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6), REPEAT_S)
        try:
            yield
        finally:
            armed = False
    except TrialTimeout as timeout:
        _drop_innermost_frame(timeout)  # ring's own
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _drop_innermost_frame(error: BaseException) -> None:
    place = error.__traceback__
    while place is not None and place.tb_next is not None and place.tb_next.tb_next is not None:
        place = place.tb_next
    if place is not None:
        place.tb_next = None


def _held_bytes() -> int:
    """Private memory of this process as RLIMIT_DATA counts it: what is reserved, used or not; 0 if it is not told."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))


@contextmanager
def _data_limit(n_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (n_bytes if hard == resource.RLIM_INFINITY else min(n_bytes, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, the kernel, or torch's CPU allocator had no memory to give."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or "t allocate memory" in str(error).replace("Cannot", "can't")
