"""The logs of a study stay small."""

import os
from pathlib import Path

import pytest

from autoprune.study.logs import (
    KEPT_BYTES,
    MAX_BYTES,
    N_WORKER_LOGS,
    delete_old_worker_logs,
    open_log,
    worker_log,
)


def test_a_log_is_appended_to(tmp_path: Path) -> None:
    for text in (b"one\n", b"two\n"):
        file = open_log(tmp_path / "logs" / "search.log")
        os.write(file, text)
        os.close(file)
    assert (tmp_path / "logs" / "search.log").read_bytes() == b"one\ntwo\n"


def test_without_a_study_there_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_log(tmp_path / "none" / "logs" / "search.log")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n_over", [0, 1])
def test_a_log_that_is_too_large_is_cut_to_its_last_lines(tmp_path: Path, n_over: int) -> None:
    path = tmp_path / "search.log"
    lines = b"".join(b"line %07d\n" % number for number in range(MAX_BYTES // 13 + 1))
    path.write_bytes(lines[-MAX_BYTES - n_over :])
    file = open_log(path)
    os.write(file, b"more\n")
    os.close(file)
    kept = path.read_bytes()
    if not n_over:
        assert len(kept) == MAX_BYTES + len(b"more\n")
        return
    assert KEPT_BYTES - 13 <= len(kept) <= KEPT_BYTES + len(b"more\n")
    assert kept.startswith(b"line ")
    assert lines + b"more\n" == lines[: len(lines) + len(b"more\n") - len(kept)] + kept


def test_the_newest_logs_of_workers_stay(tmp_path: Path) -> None:
    delete_old_worker_logs(tmp_path / "none")
    (tmp_path / "search.log").touch()
    paths = [worker_log(tmp_path, "node", pid) for pid in range(N_WORKER_LOGS + 3)]
    for age, path in enumerate(paths):
        path.touch()
        os.utime(path, (10**9 - age, 10**9 - age))
    os.utime(tmp_path / "search.log", (0, 0))
    delete_old_worker_logs(tmp_path)
    assert set(tmp_path.iterdir()) == {tmp_path / "search.log", *paths[:N_WORKER_LOGS]}
