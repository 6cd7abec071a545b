"""The command line, run in this process: a process of its own takes seconds to load torch."""

import contextlib
import io
import os
import signal
import sys
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest

from autoprune.cli.main import main

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Ran(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


def run_command(*arguments: object, cwd: Path) -> Ran:
    """Run `autoprune` with these arguments in a folder, as if on no terminal of 80 columns.

    The signal handlers and the environment of this process are put back, which a search changes until its process ends.
    """
    out, err = io.StringIO(), io.StringIO()
    handlers, hook = {number: signal.getsignal(number) for number in SIGNALS}, sys.unraisablehook
    code: object = 0
    try:
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.dict(os.environ),
        ):
            patch.chdir(cwd)
            patch.setenv("COLUMNS", "80")
            patch.setattr(sys, "argv", ["autoprune", *map(str, arguments)])
            main()
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.unraisablehook = hook
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Ran(int(code or 0), out.getvalue(), err.getvalue())  # type: ignore[call-overload]


def run_well(*arguments: object, cwd: Path, code: int = 0) -> Ran:
    """Run `autoprune` and see that it ends with this exit code."""
    ran = run_command(*arguments, cwd=cwd)
    assert ran.code == code, ran.out + ran.err
    return ran
