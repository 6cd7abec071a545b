"""The errors that autoprune raises on purpose: each message says where, what is wrong, and the way out."""

import difflib
import signal
import sysconfig
import threading
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path


class AutopruneError(Exception):
    """A mistake the user can mend; the command line prints its message and exits with code 2."""


class ConfigError(AutopruneError):
    """A space file that can't be used. Carries every mistake found, one line each.

    Args:
        problems: Messages of the form ``"space.yaml:14: pruning[0].ratio.high must be in [0, 1), got 1.2."``.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class TaskError(AutopruneError):
    """The user's model, data, loss, metric or weights can't be used together."""


class PruningError(AutopruneError):
    """A network can't be pruned as asked."""


class StudyError(AutopruneError):
    """A study folder or its storage can't be opened, written or continued."""


class UnwritableError(StudyError):
    """A study's folder can't be written now, which is no trial's fault: nothing but a stop helps."""


class SavedModelError(AutopruneError):
    """A saved network is missing, damaged, or of another kind."""


class ExportError(AutopruneError):
    """An exported format does not reproduce the trial's network, or the selection names no trial."""


class Interrupted(KeyboardInterrupt):
    """A signal asks this process to end. Any other KeyboardInterrupt may have been raised by the user's code."""


def is_interrupt(error: BaseException) -> bool:
    """Return whether a signal raised this, such as Ctrl-C, and not the user's code."""
    if not isinstance(error, KeyboardInterrupt) or isinstance(error, Interrupted):
        return isinstance(error, Interrupted)
    in_main_thread = threading.current_thread() is threading.main_thread()  # no other is told of a signal
    return in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Return the message for a name that is not known: it names the nearest known one, and all of them.

    Example:
        >>> unknown_name("criterion", "tailor", ["l1", "taylor"])
        "unknown criterion 'tailor' (did you mean 'taylor'?). Known: l1, taylor."
    """
    names = list(known)
    return f"unknown {what} '{name}'{did_you_mean(name, names)}. Known: {', '.join(names)}."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint, to follow a name that is not known, at the nearest known one; empty if none is near."""
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean '{nearest[0]}'?)" if nearest else ""


def describe_error(error: BaseException) -> str:
    """One line with the error's kind, its message, and where it was raised: the innermost line of no library.

    Characters that a terminal would obey, such as escape codes, are shown as Python writes them.
    """
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration):
        error = error.__cause__  # what a generator makes of it hides the place
    frames = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    message = ""
    with suppress(Exception):  # its class may not know how to show itself
        message = printable(" ".join(str(error).split()))
    return f"{type(error).__name__}{f': {message}' if message else ''}{place_of(frames)}"


def place_of(frames: Sequence[tuple[str, int]]) -> str:
    """Return ``" (file.py:12)"`` for the innermost line of no library, or the innermost of all; empty without any.

    Args:
        frames: File and line, the innermost last.
    """
    libraries = tuple(sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib"))
    own = [frame for frame in frames if not frame[0].startswith((*libraries, "<"))] or list(frames)
    return f" ({Path(own[-1][0]).name}:{own[-1][1]})" if own else ""


def printable(text: str) -> str:
    r"""Return a text with every character that does not print as Python escapes it.

    Example:
        >>> printable("\x1b[31mred")
        '\\x1b[31mred'
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
