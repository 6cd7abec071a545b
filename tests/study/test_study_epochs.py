"""Every epoch is kept once, whatever ends the search, and read as one typed table."""

import json
import resource
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import TINY_SPACE, copy_study

from autoprune.config import SearchConfig
from autoprune.engines.inline import run_in_process
from autoprune.errors import UnwritableError
from autoprune.search.run import run_search
from autoprune.study.epochs import EpochLog, read_epochs
from autoprune.study.folder import StudyFolder
from autoprune.trial import EpochReport, Replicate, RunId

CONFIG = SearchConfig.model_validate(TINY_SPACE)


def report(run: RunId, epoch: int, accuracy: float = 0.5) -> EpochReport:
    return EpochReport(
        run,
        epoch,
        accuracy,
        loss=float("nan"),
        train_loss=1.5,
        lr=0.1 / epoch,
        batch_size=32,
        train_time_s=2.0 * epoch,
        kept={"stem": 8 - epoch},
        removed_blocks=("block1",) if epoch > 1 else (),
    )


REPORTS = [report(0, 1), report(1, 1), report(0, 2), report(Replicate(0, 1), 1), report(1, 2), report(1, 3)]


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    found = StudyFolder(tmp_path / "study", CONFIG)
    found.create()
    return found


def lines(folder: StudyFolder) -> list[tuple[str, int]]:
    records = [json.loads(line) for line in folder.epochs.read_text().splitlines()]
    return [(record["run"], record["epoch"]) for record in records]


def test_the_table_of_what_was_told(folder: StudyFolder) -> None:
    log = EpochLog(folder)
    for each in REPORTS:
        log.append(each)
    frame = read_epochs(folder)
    assert frame["run"].tolist() == ["0", "0", "1", "1", "1", "0-seed1"]
    assert frame["number"].tolist() == [0, 0, 1, 1, 1, pd.NA]
    assert frame["epoch"].tolist() == [1, 2, 1, 2, 3, 1]
    assert frame["epoch_time_s"].tolist() == [2.0] * 6
    assert frame["kept.stem"].tolist() == [7, 6, 7, 6, 5, 7]
    assert frame["removed_blocks"].tolist() == ["", "block1", "", "block1", "block1", ""]
    assert frame["loss"].isna().all()


def test_a_study_without_the_file_has_an_empty_table_of_the_same_types(folder: StudyFolder) -> None:
    empty = read_epochs(folder)
    assert len(empty) == 0
    log = EpochLog(folder)
    assert not folder.epochs.exists()
    log.append(report(0, 1))
    assert read_epochs(folder).dtypes.drop("kept.stem").to_dict() == empty.dtypes.to_dict()


@given(cut_share=st.floats(0, 1), data=st.data())
def test_a_file_cut_off_anywhere_becomes_whole_again(cut_share: float, data: st.DataObject) -> None:
    """The trials go on from the last epoch that was told, and tell it again."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = StudyFolder(Path(scratch), CONFIG)
        log = EpochLog(folder)
        for each in REPORTS:
            log.append(each)
        whole, frame = folder.epochs.read_bytes(), read_epochs(folder)
        folder.epochs.write_bytes(whole[: round(cut_share * len(whole))])
        told = read_epochs(folder)
        log = EpochLog(folder)
        pd.testing.assert_frame_equal(read_epochs(folder), told)
        for run in data.draw(st.permutations([0, 1, Replicate(0, 1)])):
            n_told = int((told["run"] == str(run)).sum())
            for each in REPORTS:
                if each.run == run and each.epoch >= n_told:
                    log.append(each)
        assert len(lines(folder)) == len(set(lines(folder))) == len(REPORTS)
        by_run = ["run", "epoch"]
        pd.testing.assert_frame_equal(
            read_epochs(folder).sort_values(by_run, ignore_index=True), frame.sort_values(by_run, ignore_index=True)
        )


def test_a_trial_that_starts_again_replaces_what_it_had(folder: StudyFolder) -> None:
    log = EpochLog(folder)
    for each in REPORTS:
        log.append(each)
    log.append(report(1, 1, accuracy=0.75))
    for _ in range(2):
        frame = read_epochs(folder)
        assert frame.loc[frame["number"] == 1, "metric.accuracy"].tolist() == [0.75]
        assert (frame["number"] == 0).sum() == 2
        EpochLog(folder)
        assert lines(folder) == [("0", 1), ("0", 2), ("1", 1), ("0-seed1", 1)]


def test_a_report_that_comes_again_is_written_once_and_another_one_replaces_it(folder: StudyFolder) -> None:
    log = EpochLog(folder)
    log.append(report(0, 1))
    log.append(report(0, 1))
    EpochLog(folder).append(report(0, 1))
    assert lines(folder) == [("0", 1)]
    EpochLog(folder).append(replace(report(0, 1), train_time_s=3.0))
    assert read_epochs(folder)["train_time_s"].tolist() == [3.0]


def test_a_line_that_the_disk_has_no_room_for_leaves_nothing_behind(folder: StudyFolder) -> None:
    log = EpochLog(folder)
    log.append(report(0, 1))
    before = folder.epochs.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(UnwritableError, match=r"can't be written: File too large"):
            log.append(report(0, 2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert folder.epochs.read_bytes() == before
    log.append(report(0, 2))
    assert lines(folder) == [("0", 1), ("0", 2)]


KILLED = """
import os, signal, sys
from pathlib import Path
from autoprune.config import SearchConfig
from autoprune.engines.inline import run_in_process
from autoprune.search.run import run_search
from autoprune.study.epochs import EpochLog

space, n_writes, when = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
write, n_written = EpochLog._write, 0

def write_and_die(log, run, record):
    global n_written
    n_written += 1
    if n_written == n_writes and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    write(log, run, record)
    if n_written == n_writes:
        if when == "amid":
            os.truncate(log._path, os.stat(log._path).st_size - 20)
        os.kill(os.getpid(), signal.SIGKILL)

EpochLog._write = write_and_die
run_search(space, space.parent / "results", run_in_process)
"""


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("n_writes", "when"), [pytest.param(1, "after", marks=SLOW), pytest.param(2, "before", marks=SLOW), (4, "amid")]
)
def test_a_search_that_is_killed_at_a_write_keeps_every_epoch_once(
    trained_tiny: Path, tmp_path: Path, brief_latency: None, n_writes: int, when: str
) -> None:
    space = copy_study(trained_tiny, tmp_path, {"search": {"trials": 3}, "training": {"epochs": 3}})
    command = [sys.executable, "-c", KILLED, str(space), str(n_writes), when]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    outcome = run_search(space, tmp_path / "results", run_in_process)
    assert outcome.driver.frame()["error"].dropna().tolist() == []
    folder = StudyFolder(tmp_path / "results" / "tiny")
    trials = [line for line in lines(folder) if line[0] != "dense"]
    assert sorted(trials) == [(str(number), epoch) for number in range(3) for epoch in (1, 2, 3)]
    pd.testing.assert_frame_equal(pd.read_parquet(folder.epochs_table), read_epochs(folder))
