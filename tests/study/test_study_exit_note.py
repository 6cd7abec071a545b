"""How a process that died amid a run is known by: real processes that end in each way."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from autoprune.study.exit_note import ExitNote, delete_exit_notes, exit_cause, exit_causes

USER = """import ctypes, os, signal, sys, threading, time


def crash():
    ctypes.string_at(0)


def leave(code):
    os._exit(code)


def in_a_thread():
    threading.Thread(target=crash).start()
    time.sleep(30)


def in_a_child():
    if os.fork() == 0:
        os._exit(9)
    os.wait()
    os.kill(os.getpid(), signal.SIGKILL)


def crash_in_a_child():
    if os.fork() == 0:
        crash()
    os.wait()
    os.kill(os.getpid(), signal.SIGKILL)
"""

ENDS = {
    "crash()": (-signal.SIGSEGV, "signal 11, SIGSEGV (user.py:5)"),
    "leave(3)": (3, "os._exit(3) (user.py:9)"),
    "leave(0)": (0, "os._exit(0) (user.py:9)"),
    "os.abort()": (-signal.SIGABRT, "signal 6, SIGABRT (<string>:4)"),
    "os.kill(os.getpid(), signal.SIGFPE)": (-signal.SIGFPE, "signal 8, SIGFPE (<string>:4)"),
    "os.kill(os.getpid(), signal.SIGTERM)": (-signal.SIGTERM, "signal 15, SIGTERM"),
    "os.kill(os.getpid(), signal.SIGHUP)": (-signal.SIGHUP, "signal 1, SIGHUP"),
    "signal.setitimer(signal.ITIMER_REAL, 0.01); time.sleep(9)": (-signal.SIGALRM, "signal 14, SIGALRM"),
    "os.kill(os.getpid(), signal.SIGUSR2)": (-signal.SIGUSR2, "signal 12, SIGUSR2"),
    "os.kill(os.getpid(), signal.SIGKILL)": (-signal.SIGKILL, None),
    "in_a_thread()": (-signal.SIGSEGV, "signal 11, SIGSEGV (user.py:5)"),
    "in_a_child()": (-signal.SIGKILL, None),
    "crash_in_a_child()": (-signal.SIGKILL, None),
    "sys.exit(3)": (3, None),
}


@pytest.mark.parametrize("statement", ENDS)
def test_a_process_tells_how_it_ends(statement: str, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    code = (
        "import os, signal, sys; from pathlib import Path; from autoprune.study.exit_note import ExitNote\n"
        "from user import *; note = ExitNote(Path('logs'), take_traces=True); note.begin('trial 1'); note.end()\n"
        "note.note_signals(); note.begin('trial 3-seed0')\n"
        f"{statement}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), str(tmp_path)])},
        capture_output=True,
        check=False,
    )
    returncode, cause = ENDS[statement]
    assert done.returncode == returncode, done.stderr
    assert exit_cause(tmp_path / "logs", "trial 3-seed0") == cause
    assert exit_causes(tmp_path / "logs") == ({} if cause is None else {"trial 3-seed0": cause})
    delete_exit_notes(tmp_path / "logs")
    assert list((tmp_path / "logs").iterdir()) == []


def note(logs: Path, n_killed: int, count: str, **changes: object) -> None:
    """The note of a process that has told nothing, and the kernel's count of those it has ended since."""
    counter = logs / "memory.events"
    counter.write_text(count)
    pid = subprocess.Popen(["true"])
    pid.wait()
    head = {"run": "trial 0", "host": socket.gethostname(), "pid": pid.pid, "oom_kills": {str(counter): n_killed}}
    (logs / "exit-trial-0.txt").write_text(json.dumps(head | changes) + "\n")


def test_memory_that_ran_out_is_known_by_the_kernels_count(tmp_path: Path) -> None:
    told = "out of memory: the kernel ended it by signal 9, SIGKILL"
    note(tmp_path, 2, "low 0\noom 4\noom_kill 3\n")
    assert exit_cause(tmp_path, "trial 0") == told
    note(tmp_path, 3, "oom 9\noom_kill 3\noom_group_kill 7\n")
    assert exit_cause(tmp_path, "trial 0") is None
    note(tmp_path, 2, "oom_kill 3\n", host="another")
    assert exit_cause(tmp_path, "trial 0", is_gone=True) is None
    note(tmp_path, 2, "oom_kill 3\n", pid=os.getpid())
    assert exit_cause(tmp_path, "trial 0") is None, "it is still there"
    assert exit_cause(tmp_path, "trial 0", is_gone=True) == told
    note(tmp_path, 2, "")
    (tmp_path / "memory.events").unlink()
    assert exit_cause(tmp_path, "trial 0") is None


@pytest.mark.parametrize("text", ["", "nonsense", "[]", '{"run": 3}', '{"run": "trial 0"}\nFatal'])
def test_a_damaged_note_tells_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "exit-trial-0.txt").write_text(text)
    assert exit_cause(tmp_path, "trial 0") is None
    assert exit_causes(tmp_path) == {}
    assert exit_cause(tmp_path, "trial 1") is None


def test_a_process_leaves_all_as_it_was_after_a_run(tmp_path: Path) -> None:
    leave = os._exit
    with ExitNote(tmp_path / "logs").around("trial 1"):
        assert [path.name for path in (tmp_path / "logs").iterdir()] == ["exit-trial-1.txt"]
        assert os._exit is not leave
    assert os._exit is leave
    assert list((tmp_path / "logs").iterdir()) == []
    with ExitNote(tmp_path / "none" / "logs").around("trial 1"):  # it can't be written
        assert os._exit is leave


def test_one_runs_note_is_deleted_alone(tmp_path: Path) -> None:
    note, other = ExitNote(tmp_path), ExitNote(tmp_path)
    note.begin("trial 1")
    other.begin("trial 12")
    delete_exit_notes(tmp_path, "trial 1")
    delete_exit_notes(tmp_path, "trial 2")
    assert [path.name for path in tmp_path.iterdir()] == ["exit-trial-12.txt"]
    other.end()
    note.end()
