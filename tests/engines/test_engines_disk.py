"""A full disk and a folder gone read-only: a clear stop, nothing half-written, and the search goes on after it."""

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pandas as pd
import pytest
from changes import OnChange
from engines_cli import searching
from tiny import copy_study

from autoprune.config import load_config
from autoprune.engines.inline import run_in_process
from autoprune.errors import UnwritableError
from autoprune.formats.saved_model import load_model
from autoprune.search.driver import Driver
from autoprune.search.run import run_search
from autoprune.study.folder import StudyFolder
from autoprune.tasks.build import build_task
from autoprune.training.checkpoint import load_checkpoint

N_TRIALS = 6


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 3 MB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("mounting a file system is not allowed here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def fill(disk: Path) -> None:
    """Leave no byte of the disk free."""
    with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))


def free(disk: Path) -> None:
    (disk / "ballast").unlink()


def chattr(flag: str, folders: list[Path]) -> bool:
    return subprocess.run(["chattr", flag, *folders], capture_output=True, check=False).returncode == 0


@pytest.fixture
def sealed() -> Iterator[Callable[[list[Path]], None]]:
    """Makes folders read-only, even for root, until they are unsealed."""
    found: list[Path] = []

    def seal(folders: list[Path]) -> None:
        found.extend(folders)
        if not chattr("+i", folders):
            pytest.skip("chattr +i is not allowed here")

    yield seal
    chattr("-i", found)


def assert_nothing_is_half_written(folder: StudyFolder) -> None:
    assert [path for path in folder.root.rglob(".*") if path.is_file()] == []
    task = build_task(load_config(folder.space).task, folder.base_dir)
    for path in folder.root.rglob("*.json"):
        json.loads(path.read_text())
    for path in folder.root.glob("*.parquet"):
        pd.read_parquet(path)
    for path in folder.checkpoints.glob("*.training"):
        assert load_checkpoint(path) is not None
    for path in folder.checkpoints.glob("*/trial.json"):
        load_model(path.parent, task.build_model)


def values(folder: StudyFolder) -> dict[int, list[float]]:
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{folder.database}")
    return {trial.number: trial.values for trial in study.get_trials() if trial.state.name == "COMPLETE"}


def assert_the_next_run_completes(space: Path, folder: StudyFolder, told: dict[int, list[float]]) -> None:
    outcome = run_search(space, folder.root.parent, run_in_process)
    assert outcome.driver.is_complete
    frame = pd.read_parquet(folder.trials)
    assert frame["number"].tolist() == list(range(N_TRIALS))
    assert set(frame["state"]) == {"finished"}
    now = values(folder)
    assert {number: now[number] for number in told} == told
    assert_nothing_is_half_written(folder)


@pytest.mark.usefixtures("brief_latency")
@pytest.mark.parametrize("n_changes", range(3, 15, 2))
def test_a_disk_that_is_full_at_any_time(trained_tiny: Path, small_disk: Path, n_changes: int) -> None:
    space = copy_study(trained_tiny, small_disk, {})
    folder = StudyFolder(small_disk / "results" / "tiny")
    seen = 0

    def on_change(driver: Driver) -> None:
        nonlocal seen
        seen += 1
        if seen == n_changes:
            fill(small_disk)

    with pytest.raises(UnwritableError, match=r"can't be written: .*(No space left|disk is full).*free space"):
        run_search(space, folder.root.parent, run_in_process, callbacks=[OnChange(on_change)])
    assert_nothing_is_half_written(folder)
    with pytest.raises(UnwritableError, match=r"can't be written: .*(No space left|disk is full)"):
        run_search(space, folder.root.parent, run_in_process)
    free(small_disk)
    assert_the_next_run_completes(space, folder, values(folder))


@pytest.mark.usefixtures("brief_latency")
def test_a_folder_that_turns_read_only(
    trained_tiny: Path, tmp_path: Path, sealed: Callable[[list[Path]], None]
) -> None:
    space = copy_study(trained_tiny, tmp_path, {})
    folder = StudyFolder(tmp_path / "results" / "tiny")
    folders = [folder.root, folder.checkpoints]

    def on_change(driver: Driver) -> None:
        if driver.n_told == 2 and driver.status().running:
            sealed(folders)

    with pytest.raises(UnwritableError, match=r"tiny: the study can't be written: .*make it writable"):
        run_search(space, folder.root.parent, run_in_process, callbacks=[OnChange(on_change)])
    assert_nothing_is_half_written(folder)
    assert chattr("-i", folders)
    told = values(folder)
    assert len(told) == 2
    assert_the_next_run_completes(space, folder, told)


@pytest.mark.slow
def test_a_full_disk_stops_ray_and_no_trial_has_failed(trained_tiny: Path, small_disk: Path) -> None:
    with searching(small_disk, trained_tiny, {"training": {"epochs": 4}}, seconds=0.03) as search:
        search.start("ray")
        search.wait_until(lambda search: search.told() and search.amid())
        fill(small_disk)
        code, out, err = search.end()
        assert code == 2, out + err
        assert "can't be written: " in err
        assert "free space; the same command goes on." in err
        assert "Traceback" not in out + err
        search.wait_for_the_last_process()
        folder = StudyFolder(search.results)
        assert_nothing_is_half_written(folder)
        free(small_disk)
        told = values(folder)
        assert told
        assert_the_next_run_completes(search.space, folder, told)
