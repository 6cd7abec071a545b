"""Signals to a search and ``kill -9`` of all of it: nothing told is lost or left running, the next run goes on."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engines_cli import Search, searching
from tiny import copy_study

pytestmark = pytest.mark.usefixtures("brief_latency")

N_TRIALS = 5
CHANGES = {"search": {"trials": N_TRIALS}, "training": {"epochs": 4}}
RAY = pytest.param("ray", marks=pytest.mark.slow)


def amid_a_trial(search: Search) -> bool:
    """Whether a trial has finished and another one has done an epoch."""
    return bool(search.told()) and bool(search.amid())


def assert_the_next_run_completes(search: Search, engine: str, finished: dict[int, list[float]]) -> None:
    search.go_on(engine)
    frame = search.frame()
    assert frame["number"].tolist() == list(range(N_TRIALS))
    assert frame["error"].dropna().tolist() == []
    assert set(frame["state"]) == {"finished"}
    assert set(frame["epochs"]) == {4}
    assert search.states() == ["COMPLETE"] * N_TRIALS
    assert {trial.number: trial.values for trial in search.trials() if trial.number in finished} == finished
    search.wait_for_the_last_process()


def finished(search: Search) -> dict[int, list[float]]:
    return {trial.number: trial.values for trial in search.trials() if trial.state.name == "COMPLETE"}


@pytest.mark.parametrize("engine", ["inline", RAY])
def test_ctrl_c_ends_cleanly_and_the_next_run_goes_on(trained_tiny: Path, tmp_path: Path, engine: str) -> None:
    with searching(tmp_path / "a", trained_tiny, CHANGES, seconds=0.03) as search:
        search.start(engine)
        search.wait_until(amid_a_trial)
        search.ctrl_c()
        began = time.monotonic()
        code, out, err = search.end()
        assert time.monotonic() - began < 20
        assert (code, err) == (130, "")
        assert "the same command goes on" in out
        assert "Traceback" not in out
        assert "RUNNING" not in search.states()
        assert "WAITING" in search.states()
        told = finished(search)
        assert search.frame()["number"].tolist() == sorted(told)
        assert (search.results / "front.parquet").exists()
        search.wait_for_the_last_process()
        assert list(search.scratch.glob("autoprune*")) == []
        assert_the_next_run_completes(search, engine, told)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_a_warning_asks_for_a_requeue_within_10_seconds(trained_tiny: Path, tmp_path: Path, engine: str) -> None:
    with searching(tmp_path / "a", trained_tiny, CHANGES, seconds=0.03) as search:
        told: dict[int, list[float]] = {}
        for warning in (signal.SIGTERM, signal.SIGUSR1):
            process = search.start(engine)
            n_finished = len(told)
            search.wait_until(lambda search, n=n_finished: len(search.told()) > n and search.amid())
            amid = search.amid()
            process.send_signal(warning)
            began = time.monotonic()
            code, out, err = search.end()
            assert time.monotonic() - began < 10
            assert (code, err) == (os.EX_TEMPFAIL, "")
            assert "the same command goes on" in out
            assert "RUNNING" not in search.states()
            before, told = told, finished(search)
            assert before.items() <= told.items()
            assert amid <= search.amid() | set(told), "a trial that had done an epoch keeps its checkpoint"
            search.wait_for_the_last_process()
        assert_the_next_run_completes(search, engine, told)


def test_a_warning_before_the_first_trial_asks_for_a_requeue_too(trained_tiny: Path, tmp_path: Path) -> None:
    changes = {"dense": {"epochs": 200}}
    with searching(tmp_path / "a", trained_tiny, changes) as search:
        shutil.rmtree(search.results / "dense")
        process = search.start("inline")
        search.wait_until(lambda search: (search.results / "dense" / "training").exists())
        process.send_signal(signal.SIGUSR1)
        code, _, err = search.end()
        assert (code, err) == (os.EX_TEMPFAIL, "")
        assert (search.results / "dense" / "training").exists()


def test_warnings_after_the_last_trial_change_nothing(trained_tiny: Path, tmp_path: Path) -> None:
    """While the interpreter takes its modules down, it has no handlers: a signal by itself would end the process."""
    space = copy_study(trained_tiny, tmp_path, {"search": {"trials": 1}})
    program = """
import signal, sys
from autoprune.cli.main import main

class TakenDownLate:
    def __del__(self, warn=signal.raise_signal):
        for number in (WARNINGS):
            warn(number)

sys.modules["taken_down_late"] = late = type(sys)("taken_down_late")
late.last = TakenDownLate()
del late
main()
""".replace("WARNINGS", f"{int(signal.SIGTERM)}, {int(signal.SIGUSR1)}")
    command = [sys.executable, "-c", program, "search", str(space), "--engine", "inline"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "next: autoprune export" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_a_second_ctrl_c_ends_at_once(trained_tiny: Path, tmp_path: Path, engine: str) -> None:
    with searching(tmp_path / "a", trained_tiny, CHANGES, seconds=0.03) as search:
        search.start(engine)
        search.wait_until(amid_a_trial)
        told = finished(search)
        search.ctrl_c()
        time.sleep({"inline": 0.1, "ray": 1.0}[engine])
        search.ctrl_c()
        began = time.monotonic()
        code, out, err = search.end()
        assert time.monotonic() - began < 5
        assert code in (130, -signal.SIGINT)  # the latter if the interpreter was about to end anyway
        assert "Traceback" not in out + err
        if engine == "ray":  # it takes seconds to end Ray, and the trials are put back before
            assert "RUNNING" not in search.states()
        search.wait_for_the_last_process()
        assert_the_next_run_completes(search, engine, told)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_kill_9_of_all_processes_loses_no_finished_trial(trained_tiny: Path, tmp_path: Path, engine: str) -> None:
    with searching(tmp_path / "a", trained_tiny, CHANGES, seconds=0.03) as search:
        search.start(engine)
        search.wait_until(amid_a_trial)
        search.kill()
        search.wait_for_the_last_process()
        told = finished(search)
        assert told
        assert "RUNNING" in search.states()
        assert_the_next_run_completes(search, engine, told)
