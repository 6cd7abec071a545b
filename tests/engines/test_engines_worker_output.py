"""What a worker prints lands in its log, and a log that can't be written fails nothing."""

import re
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from autoprune.study.logs import MAX_BYTES

REDIRECTED = """
import os, resource, subprocess, sys, warnings
from pathlib import Path
from autoprune.engines.worker_output import WorkerOutput

print("before")
output = WorkerOutput(Path("study/logs"))
output.begin("trial 12")
"""


def run(code: str, folder: Path, limits: Sequence[tuple[int, int]] = ()) -> "subprocess.CompletedProcess[str]":
    """Run code in a process whose output is redirected to a log in ``study/logs`` of the folder."""

    def limited() -> None:
        for kind, limit in limits:
            resource.setrlimit(kind, (limit, limit))

    (folder / "study").mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-c", REDIRECTED + code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limited,
    )


def log_of(folder: Path) -> str:
    (path,) = (folder / "study" / "logs").iterdir()
    assert re.fullmatch(r"worker-.+-\d+\.log", path.name)
    return path.read_text()


def test_all_that_is_printed_is_in_the_log_in_its_order(tmp_path: Path) -> None:
    done = run(
        "print('from Python é')\n"
        "os.write(2, b'from C\\n')\n"
        "print('to stderr', file=sys.stderr)\n"
        "warnings.warn('take care', stacklevel=1)\n"
        "subprocess.run(['echo', 'from a child'])\n"
        "output.begin('trial 13')\n"
        "print('no end of line', end='')\n",
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "before\n", "")
    begun = r"--- trial %d, \d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    expected = [
        begun % 12,
        "from Python é",
        "from C",
        "to stderr",
        ".*UserWarning: take care",
        "from a child",
        begun % 13,
        "no end of line",
    ]
    lines = log_of(tmp_path).splitlines()
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), line


def test_a_crash_leaves_its_trace(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", REDIRECTED + "os.abort()\n"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (-signal.SIGABRT, "")
    assert "Fatal Python error: Aborted" in log_of(tmp_path)


def test_a_disk_that_is_full_loses_output_and_fails_nothing(tmp_path: Path) -> None:
    done = run(
        "for _ in range(100):\n"
        "    print('x' * 99)\n"
        "    print('y' * 99, file=sys.stderr)\n"
        "output.begin('trial 13')\n"
        "sys.stdout.flush()\n"
        "Path('done').write_text('so far')\n",
        tmp_path,
        [(resource.RLIMIT_FSIZE, 2000)],
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "before\n", "")
    assert (tmp_path / "done").read_text() == "so far"
    assert len(log_of(tmp_path)) == 2000


def test_descriptors_that_are_closed_fail_nothing(tmp_path: Path) -> None:
    done = run("os.close(1)\nos.close(2)\nprint('lost')\nPath('done').touch()\n", tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "done").exists()


def test_where_no_log_can_be_opened_all_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "logs").touch()  # what a read-only folder is to a user who is not root
    done = run("print('after')\nos.write(2, b'from C\\n')\n", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "before\nafter\n", "from C\n")


def test_a_study_folder_that_is_read_only(tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    if subprocess.run(["chattr", "+i", study], capture_output=True, check=False).returncode != 0:
        pytest.skip("chattr +i is not allowed here")
    try:
        done = run("print('after')\n", tmp_path)
    finally:
        subprocess.run(["chattr", "-i", study], check=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "before\nafter\n", "")
    assert list(study.iterdir()) == []


def test_a_log_that_grows_is_cut_when_the_next_trial_begins(tmp_path: Path) -> None:
    done = run(f"print('x' * {MAX_BYTES})\noutput.begin('trial 13')\nprint('the last')\n", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    text = log_of(tmp_path)
    assert len(text) < MAX_BYTES // 5
    assert "--- trial 13, " in text
    assert text.endswith("the last\n")
