"""A search that runs in a program's own process leaves the program's signal handlers as they were."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from tiny import TINY_TASK, copy_study

from autoprune.cli.main import main

WARNED_TASK = (
    TINY_TASK
    + """

def warned(outputs, targets):
    import signal

    signal.raise_signal(signal.SIGUSR1)
    return nn.functional.cross_entropy(outputs, targets)
"""
)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@pytest.fixture
def command(
    tmp_path: Path, trained_tiny: Path, brief_latency: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """Runs `autoprune search` on a tiny study in this process; gives its exit code."""

    def run(changes: dict[str, Any], engine: str) -> int:
        space = copy_study(trained_tiny, tmp_path, changes, WARNED_TASK)
        options = ["--engine", engine, "--results", str(tmp_path / "results")]
        monkeypatch.setattr(sys, "argv", ["autoprune", "search", str(space), *options])
        with pytest.raises(SystemExit) as left, mock.patch.dict(os.environ):
            main()
        return int(left.value.code or 0)

    return run


def in_place() -> list[Any]:
    return [*map(signal.getsignal, SIGNALS), sys.unraisablehook]


def test_a_whole_search(command: Callable[..., int]) -> None:
    before = in_place()
    assert command({"search": {"trials": 2}}, "inline") == 0
    assert in_place() == before


BY_RAY = """
import signal, sys
from autoprune.cli.main import main

def in_place():
    return [*map(signal.getsignal, (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)), sys.unraisablehook]

signal.signal(signal.SIGINT, signal.default_int_handler)
before, sys.argv = in_place(), ["autoprune", "search", *sys.argv[1:]]
try:
    main()
except SystemExit as left:
    assert not left.code, left.code
assert in_place() == before
"""
"""A program that searches by Ray: one of its own, as Ray reads its settings when a process first imports it."""


@pytest.mark.slow
def test_a_whole_search_by_ray(trained_tiny: Path, tmp_path: Path) -> None:
    space = copy_study(trained_tiny, tmp_path, {"search": {"trials": 2}})
    options = [str(space), "--results", str(tmp_path / "results")]
    done = subprocess.run([sys.executable, "-c", BY_RAY, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_that_a_signal_ended(command: Callable[..., int]) -> None:
    before = in_place()
    assert command({"task": {"loss": "tiny_task:warned"}}, "inline") == os.EX_TEMPFAIL
    assert in_place() == before


def test_one_that_a_mistake_ended(command: Callable[..., int]) -> None:
    before = in_place()
    assert command({"objectives": ["accuracy", "beauty"]}, "ray") == 2
    assert in_place() == before
