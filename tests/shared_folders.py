"""Folders that are built once for a whole run of the tests, however many processes it has."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def build_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """Return the folder of this name, built by the first process that asks for it; not to be changed.

    Other processes of pytest-xdist wait until it is built. Where a build fails, the next process tries again.

    Args:
        build: Fills the folder that it is given, which is there and empty.
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of all the processes
    folder = root / "shared" / name
    folder.parent.mkdir(exist_ok=True)
    is_built = folder.with_name(f"{name}.built")
    with FileLock(folder.with_name(f"{name}.lock")):
        if not is_built.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            build(folder)
            is_built.touch()
    return folder
