"""Ctrl-C and SIGTERM while a study runs: never in the middle of a change to it, and at once the second time."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

EXIT_INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""


class CriticalSection:
    """Holds Ctrl-C and SIGTERM back while a change is written; a second one ends the process at once."""

    def __init__(self) -> None:
        self._depth = 0
        self._interrupted = False
        self._raised = False

    def __enter__(self) -> "CriticalSection":
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        self._raise_if_due()

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Raise KeyboardInterrupt once, at the first Ctrl-C, as soon as no change is being written.

        After a Ctrl-C the process is on its way out: the handler stays, so that a second one ends it at once.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        self.install()
        try:
            yield
        finally:
            if not self._interrupted:
                for number, handler in before.items():
                    signal.signal(number, handler)

    def install(self) -> None:
        """Take the signals over, again where a library has taken them in between."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._interrupted:
            os.write(2, (b"\x1b[?25h" if os.isatty(2) else b"") + b"\nended at once; the same command goes on.\n")
            os._exit(EXIT_INTERRUPTED)
        self._interrupted = True
        self._raise_if_due()

    def _raise_if_due(self) -> None:
        if self._interrupted and self._depth == 0 and not self._raised:
            self._raised = True
            raise KeyboardInterrupt
