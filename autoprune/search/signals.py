"""Ctrl-C, SIGTERM and SIGUSR1 in a search: never amid a change to the study, and at once the second time."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from autoprune.errors import Interrupted

EXIT_INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""

EXIT_REQUEUE = 75
"""Exit code after SIGTERM or SIGUSR1, EX_TEMPFAIL of sysexits.h: the same command is to be run again."""


class Preempted(Interrupted):
    """SIGTERM or SIGUSR1, by which a cluster's scheduler says that it will soon take the machine away."""


_INTERRUPTS = {signal.SIGINT: Interrupted, signal.SIGTERM: Preempted, signal.SIGUSR1: Preempted}
_Hook = Callable[["sys.UnraisableHookArgs"], object]

RETRY_S = 0.05
"""How long after a signal was lost it is sent again."""


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """The exit code of a command that ended by this."""
    return EXIT_REQUEUE if isinstance(interrupt, Preempted) else EXIT_INTERRUPTED


@contextmanager
def handlers_restored() -> Iterator[None]:
    """Put the handlers of Ctrl-C, SIGTERM and SIGUSR1 back after the block, whoever has replaced them in it."""
    before = _Handlers()
    try:
        yield
    finally:
        before.restore()


class _Handlers:
    """The handlers that are in place now, in the main thread: no other can change them."""

    def __init__(self) -> None:
        self._handlers = {number: signal.getsignal(number) for number in _INTERRUPTS}
        self._hook = sys.unraisablehook

    def restore(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number, handler in self._handlers.items():
            if handler is not None:  # None is a handler that Python can't put back
                signal.signal(number, handler)
        sys.unraisablehook = self._hook


def raise_when_preempted() -> None:
    """From now on, raise Preempted on SIGTERM and SIGUSR1, as Python raises KeyboardInterrupt on Ctrl-C.

    None of them is lost: one that comes while an object is finalised, where Python can't pass on what a handler raises,
    is sent again. In a thread other than the main one, which can't take a signal, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        if _is_in_hook(frame):
            _send_again(signum)
            return
        raise _INTERRUPTS[signal.Signals(signum)]

    for number in _INTERRUPTS:
        if number != signal.SIGINT or signal.getsignal(number) is signal.default_int_handler:
            signal.signal(number, handle)
    if not isinstance(sys.unraisablehook, _LostSignals):
        sys.unraisablehook = _LostSignals(sys.unraisablehook)


def ignore_at_exit() -> None:
    """Ignore SIGTERM and SIGUSR1 as soon as the interpreter is about to end: the exit code is known by then.

    It takes its own handlers away before it takes down its modules, and a signal would still kill it there. A program
    that called the command in its own process, and has a handler of its own, keeps it.
    """
    atexit.unregister(_ignore_if_default)
    atexit.register(_ignore_if_default)


def _ignore_if_default() -> None:
    for number in (signal.SIGTERM, signal.SIGUSR1):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.SIG_IGN)


class _LostSignals:
    """An unraisable hook: sends a signal again whose exception Python could not pass on.

    What is raised in the hook itself is lost too, so a handler that interrupts it sends its signal again instead.

    Args:
        before: The hook for all else.
        on_lost: Called before.
    """

    def __init__(self, before: _Hook, on_lost: Callable[[], object] = lambda: None) -> None:
        self.before, self._on_lost = before, on_lost

    def __call__(self, unraisable: "sys.UnraisableHookArgs") -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            self.before(unraisable)
            return
        self._on_lost()
        _send_again(signal.SIGTERM if issubclass(unraisable.exc_type, Preempted) else signal.SIGINT)


def _send_again(number: int) -> None:
    again = threading.Timer(RETRY_S, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def _is_in_hook(frame: FrameType | None) -> bool:
    """Whether a signal came while a lost one was being sent again, which takes long where the machine is busy."""
    while frame is not None:
        if frame.f_code is _LostSignals.__call__.__code__:
            return True
        frame = frame.f_back
    return False


class SignalGuard:
    """Holds Ctrl-C, SIGTERM and SIGUSR1 back while a change is written; a second one ends the process at once."""

    def __init__(self) -> None:
        self._depth = 0
        self._interrupt: KeyboardInterrupt | None = None
        self._raised = False
        self._sent_again = False

    def __enter__(self) -> "SignalGuard":
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        self._raise_if_due()

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Raise KeyboardInterrupt once, at the first signal, as soon as no change is being written.

        SIGTERM and SIGUSR1 raise its child Preempted. After a signal the process is on its way out: the handler
        stays, so that a second one ends it at once; :func:`handlers_restored` around all of it ends that.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = _Handlers()
        sys.unraisablehook = _LostSignals(sys.unraisablehook, self._forget)
        self.install()
        try:
            yield
            self._raise_if_due()
        except KeyboardInterrupt as interrupt:
            raise self._interrupt or interrupt from None  # Ray's core raises one of its own in its place
        finally:
            if self._interrupt is None:
                before.restore()

    def install(self) -> None:
        """Take the signals over, again where a library has taken them in between."""
        if threading.current_thread() is threading.main_thread():
            for number in _INTERRUPTS:
                signal.signal(number, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._sent_again:
            self._sent_again = False
        elif self._interrupt is not None:
            os.write(2, (b"\x1b[?25h" if os.isatty(2) else b"") + b"\nended at once; the same command goes on.\n")
            os._exit(exit_code(self._interrupt))
        else:
            self._interrupt = _INTERRUPTS[signal.Signals(signum)]()
        if _is_in_hook(frame):
            self._sent_again = True
            _send_again(signum)
        else:
            self._raise_if_due()

    def _forget(self) -> None:
        """What was raised has reached nobody."""
        self._raised, self._sent_again = False, self._interrupt is not None

    def _raise_if_due(self) -> None:
        if self._interrupt is not None and self._depth == 0 and not self._raised:
            self._raised = True
            raise self._interrupt
