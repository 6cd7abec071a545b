"""A search that runs in a program's own process leaves the program's signal handlers as they were."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0)

    return run


def in_place() -> list[Any]:
    return [*map(signal.getsignal, SIGNALS), sys.unraisablehook]


@pytest.mark.parametrize("engine", ["inline", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_whole_search(command: Callable[..., int], engine: str) -> None:
    before = in_place()
    assert command({"search": {"trials": 2}}, engine) == 0
    assert in_place() == before


def test_one_that_a_signal_ended(command: Callable[..., int]) -> None:
    before = in_place()
    assert command({"task": {"loss": "tiny_task:warned"}}, "inline") == os.EX_TEMPFAIL
    assert in_place() == before


def test_one_that_a_mistake_ended(command: Callable[..., int]) -> None:
    before = in_place()
    assert command({"objectives": ["accuracy", "beauty"]}, "ray") == 2
    assert in_place() == before
