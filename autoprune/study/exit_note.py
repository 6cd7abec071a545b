"""How a process ended amid a run: it notes in ``logs/`` what it can, and whoever finds it gone reads that.

A process that dies by a signal, or ends itself without Python's cleaning up, tells nobody. So a file is there for as
long as a run goes on. At its head stands what the run began with; a signal such as SIGSEGV adds Python's trace, and
``os._exit`` its code. Where nothing was added, the kernel's counters say whether memory ran out.
"""

import faulthandler
import json
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

from autoprune.errors import place_of

_FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in ', re.MULTILINE)
_ADDED = re.compile(r"^(?:Fatal Python error: (?P<error>.*)|(?P<told>(?:os\._exit|signal) ?.*))$", re.MULTILINE)
_NAMES = {
    signal.strsignal(number): number
    for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
}
"""What faulthandler calls a signal -> the signal."""

_UNTRACED = [
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGALRM", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)  # Windows has two of them
]


class ExitNote:
    """Notes how this process ends, if it ends amid a run; the file is gone after the run.

    Where the file can't be written, nothing is noted.

    Args:
        logs: The study's folder of logs; it is made if the study's own is there.
        take_traces: Take Python's traces of fatal signals even if they go elsewhere already, as in a worker of Ray.
            Between runs they go to stderr.
    """

    def __init__(self, logs: Path, *, take_traces: bool = False) -> None:
        self._logs = logs
        self._takes_traces = take_traces or not faulthandler.is_enabled()
        self._is_process_own = take_traces
        self._path: Path | None = None
        self._file: IO[bytes] | None = None
        self._exit = os._exit
        if take_traces:
            os.register_at_fork(after_in_child=self._after_fork)

    def begin(self, run: str) -> None:
        """Note from now on how the process ends, in place of the run before.

        Args:
            run: The run's name, such as ``"trial 12"``.
        """
        self.end()
        with suppress(OSError):
            self._logs.mkdir(exist_ok=True)
            self._path = _path(self._logs, run)
            self._file = self._path.open("wb", buffering=0)
            head = {"run": run, "host": socket.gethostname(), "pid": os.getpid(), "oom_kills": _oom_kills()}
            self._file.write(json.dumps(head).encode() + b"\n")
        if self._file is None:
            return
        if self._takes_traces:
            faulthandler.enable(self._file, all_threads=True)
        self._exit = os._exit
        os._exit = self._noting_exit(self._exit)  # type: ignore[assignment]  # it raises no audit event

    def end(self) -> None:
        """Stop noting: the run has ended."""
        if self._file is None or self._path is None:
            return
        os._exit = self._exit
        if self._takes_traces:
            if self._is_process_own:
                faulthandler.enable(2, all_threads=True)
            else:
                faulthandler.disable()
        self._file.close()
        self._file = None
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    @contextmanager
    def around(self, run: str) -> Iterator[None]:
        """Note how the process ends in the context."""
        self.begin(run)
        try:
            yield
        finally:
            self.end()

    def note_signals(self) -> None:
        """Note the signals that end a process without a trace of Python's; in the main thread only."""
        if threading.current_thread() is not threading.main_thread():
            return

        def end(number: int, frame: FrameType | None) -> None:
            self._write(f"signal {number}\n")
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

        for number in _UNTRACED:
            signal.signal(number, end)

    def _after_fork(self) -> None:
        """A child's end, such as a data worker's, is not this process's."""
        if self._file is not None:
            faulthandler.enable(2, all_threads=True)

    def _noting_exit(self, leave: Callable[[int], NoReturn]) -> Callable[[int], NoReturn]:
        pid = os.getpid()

        def noting_exit(status: int) -> NoReturn:
            if os.getpid() == pid and self._file is not None:  # else a child that was forked ends
                self._write(f"os._exit({status})\n")
                with suppress(Exception):
                    faulthandler.dump_traceback(self._file, all_threads=False)
            leave(status)

        return noting_exit

    def _write(self, text: str) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.write(text.encode())


def exit_cause(logs: Path, run: str, *, is_gone: bool = False) -> str | None:
    """Return how the process ended that had a run, such as ``"signal 11, SIGSEGV (net.py:34)"``.

    Args:
        is_gone: The process is known to have ended; its number may still be there for a moment.

    Returns:
        ``None`` if nothing is known: there is no note, the process is still there, or it was killed without a trace.
    """
    try:
        head, _, added = _path(logs, run).read_text(errors="replace").partition("\n")
        begun = json.loads(head)
        if (told := _told(added)) is not None:
            return told
        is_gone = is_gone or (begun["host"] == socket.gethostname() and not _is_there(begun["pid"]))
        return _out_of_memory(begun) if is_gone else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def exit_causes(logs: Path) -> dict[str, str]:
    """Return how processes ended amid a run: the run's name -> what is known, as :func:`exit_cause` gives it."""
    causes = {}
    for path in sorted(logs.glob("exit-*.txt")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            run = str(json.loads(path.read_text(errors="replace").partition("\n")[0])["run"])
            if (cause := exit_cause(logs, run)) is not None:
                causes[run] = cause
    return causes


def delete_exit_notes(logs: Path, run: str | None = None) -> None:
    """Delete the notes of processes that are gone, or of the one that had a run, as far as that can be done."""
    with suppress(OSError):
        for path in logs.glob("exit-*.txt") if run is None else [_path(logs, run)]:
            path.unlink(missing_ok=True)


def _path(logs: Path, run: str) -> Path:
    return logs / f"exit-{run.replace(' ', '-')}.txt"


def _told(added: str) -> str | None:
    """What the process itself has added, with the innermost line of the user's code."""
    every = list(_ADDED.finditer(added))
    if not every:
        return None
    found = every[-1]
    if found["told"] is not None:
        how = found["told"]
        if how.startswith("signal "):
            return _signal_name(signal.Signals(int(how.removeprefix("signal "))))
    else:
        number = _NAMES.get(found["error"].replace("-", " "))
        how = found["error"] if number is None else _signal_name(number)
    return how + place_of(_frames(added[found.end() :]))


def _signal_name(number: signal.Signals) -> str:
    return f"signal {int(number)}, {number.name}"


def _frames(trace: str) -> list[tuple[str, int]]:
    """Frames of the thread that the trace is of, the innermost last; of the first thread where that is not known."""
    _, current, stack = trace.partition("Current thread ")
    stack = (stack if current else trace).split("\n\n" if current else "\nThread ")[0]
    if not current and "Stack (most recent" in trace:
        stack = trace.partition("Stack (most recent")[2].split("\n\n")[0]
    frames = [(each["file"], int(each["line"])) for each in _FRAME.finditer(stack)]
    return [frame for frame in reversed(frames) if frame[0] != __file__]


def _out_of_memory(begun: dict[str, Any]) -> str | None:
    """Say that the kernel ended a process for want of memory since, if it did so on this machine."""
    if begun["host"] != socket.gethostname():
        return None
    before, now = begun["oom_kills"], _oom_kills(begun["oom_kills"])
    if any(now.get(path, 0) > count for path, count in before.items()):
        return "out of memory: the kernel ended it by signal 9, SIGKILL"
    return None


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _oom_kills(paths: "dict[str, int] | None" = None) -> dict[str, int]:
    """Count the processes that the kernel has ended for want of memory in this process's cgroup, or on the machine.

    Args:
        paths: The files that were read before; they may be of another process's cgroup.

    Returns:
        The first file that tells -> its count. Empty where none does, as on another system than Linux.
    """
    for path in paths or _oom_files():
        with suppress(OSError, ValueError):
            for line in Path(path).read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return {str(path): int(count)}
    return {}


def _oom_files() -> Iterator[Path]:
    """Files with a line ``oom_kill COUNT``: of the cgroup in version 2 or 1, then of the machine.

    Source:
        https://docs.kernel.org/admin-guide/cgroup-v2.html, ``memory.events``.
    """
    root = Path("/sys/fs/cgroup")
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield root / path.lstrip("/") / "memory.events"
            elif "memory" in controllers.split(","):
                yield root / "memory" / path.lstrip("/") / "memory.oom_control"
                yield root / "memory" / "memory.oom_control"
    yield Path("/proc/vmstat")
