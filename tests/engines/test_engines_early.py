"""Ray is started while all else is loaded, and ends with the command however that ends."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from engines_cli import searching

from autoprune.config import read_space_file
from autoprune.engines import started_early

WATCHED = """
import os, runpy, sys, threading

putenv, start = os.putenv, threading.Thread.start
started, added = [], []


def noted(name, value):
    if started and os.fsencode(name) not in os.environ._data:
        added.append(os.fsdecode(name))
    putenv(name, value)


def begun(thread):
    started.append(thread)
    start(thread)


threading.Thread.start = begun
os.putenv = noted
sys.argv = ["autoprune", "search", sys.argv[1]]
try:
    runpy.run_module("autoprune", run_name="__main__")
finally:
    print("added:", added, file=sys.stderr)
"""
"""A search that says which environment variables were added since it has had a second thread."""

CHANGES = {"search": {"trials": 2, "ladder": 0}}


def test_nothing_is_started_in_vain(trained_tiny: Path, tmp_path: Path) -> None:
    with searching(tmp_path, trained_tiny, CHANGES) as search:
        results = search.results.parent
        (search.results / "test.json").write_text("{}")
        file = read_space_file(search.space)
        for name, address, known in (
            ("inline", None, file),
            ("ray", "auto", file),
            ("ray", None, None),  # it has mistakes
            ("ray", None, file),  # its test split was read: it has been at its end
        ):
            with started_early(name, address, known, results):
                import ray

                assert not ray.is_initialized()


@pytest.mark.slow
def test_no_environment_variable_is_added_beside_another_thread(trained_tiny: Path, tmp_path: Path) -> None:
    """A variable that is added may move all of them, and a library that reads them from C then ends the process."""
    with searching(tmp_path, trained_tiny, CHANGES) as search:
        ours = ("RAY_", "TUNE_", "OPENBLAS_", "KMP_", "PYTHONBREAKPOINT")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        done = subprocess.run(
            [sys.executable, "-c", WATCHED, search.space],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "added: []\n")


@pytest.mark.slow
def test_a_mistake_found_later_ends_ray(trained_tiny: Path, tmp_path: Path) -> None:
    with searching(tmp_path, trained_tiny, CHANGES) as search:
        task = tmp_path / "tiny_task.py"
        task.write_text(task.read_text().replace("nn.Linear(128, 10)", "nn.Linear(64, 10)"))
        done = search.run("ray")
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert "the model, on" in done.stderr
        search.wait_for_the_last_process()


@pytest.mark.slow
def test_a_warning_while_ray_starts_asks_for_a_requeue(trained_tiny: Path, tmp_path: Path) -> None:
    with searching(tmp_path, trained_tiny, {**CHANGES, "dense": {"epochs": 2000}}) as search:
        shutil.rmtree(search.results / "dense")
        process = search.start("ray")
        search.wait_until(lambda search: (search.results / "dense" / "training").exists())
        process.send_signal(signal.SIGTERM)
        code, _, err = search.end()
        assert (code, err) == (os.EX_TEMPFAIL, "")
        search.wait_for_the_last_process()
