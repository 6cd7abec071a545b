"""Checkpoints in the study's folder and in a remote place: one contract, on real file systems."""

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from tiny import write_space

from autoprune.errors import StudyError, UnwritableError
from autoprune.study.checkpoints import Checkpoints, LocalCheckpoints, RemoteCheckpoints
from autoprune.study.folder import StudyFolder
from autoprune.trial import Replicate, RunId

REPLICATE = Replicate(3, 1)
Open = Callable[[], Checkpoints]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "place"


@pytest.fixture(params=["local", "remote"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, place: Path) -> StudyFolder:
    """The folder of a study that keeps its checkpoints there, or in another place."""
    found = StudyFolder(tmp_path / "results/tiny")
    found.create()
    found.certification.mkdir()
    found.write_json(found.origin, {"base_dir": ".."})
    changes = {"search": {"checkpoints": place.as_uri()}} if request.param == "remote" else {}
    shutil.copy(write_space(tmp_path / "project", changes), found.space)
    assert isinstance(found.checkpoint_store, LocalCheckpoints if request.param == "local" else RemoteCheckpoints)
    return found


@pytest.fixture
def opened(folder: StudyFolder) -> Open:
    """Opens the checkpoints as another process does, which on another machine finds none of the folder's copies."""

    def again() -> Checkpoints:
        if isinstance(folder.checkpoint_store, RemoteCheckpoints):
            for path in (folder.checkpoints, folder.certification):
                shutil.rmtree(path)
                path.mkdir()
        return StudyFolder(folder.root).checkpoint_store

    return again


def write_model(folder: StudyFolder, run: RunId, weights: bytes = b"weights") -> dict[str, bytes]:
    """Write a network and its record as a worker does; returns the files' contents."""
    path = folder.model(run)
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.safetensors").write_bytes(weights)
    (path / "architecture.json").write_text(json.dumps({"weights_sha256": sha256(weights).hexdigest()}))
    folder.write_json(folder.record(run), {"run": str(run)})
    return contents(path)


def write_training(folder: StudyFolder, run: RunId, state: bytes = b"state") -> None:
    path = folder.training_checkpoint(run)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(state)


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.mark.parametrize("run", [3, REPLICATE])
def test_a_saved_network_is_found_again(folder: StudyFolder, opened: Open, run: RunId) -> None:
    store = folder.checkpoint_store
    store.open()
    assert not store.has_model(run)
    written = write_model(folder, run)
    store.save_model(run)
    assert store.has_model(run)
    assert store.has_local_model(run)
    other = opened()
    assert other.has_model(run)
    other.fetch_record(run)
    assert folder.read_json(folder.record(run)) == {"run": str(run)}
    other.fetch_model(run)
    assert contents(folder.model(run)) == written
    assert other.has_local_model(run)


def test_a_network_without_its_record_is_none(folder: StudyFolder) -> None:
    write_model(folder, 3)
    folder.record(3).unlink()
    assert not folder.checkpoint_store.has_model(3)
    assert not folder.checkpoint_store.has_local_model(3)


def test_a_network_that_is_saved_again_replaces_the_earlier_one(folder: StudyFolder, opened: Open) -> None:
    for weights in (b"first", b"second"):
        written = write_model(folder, 3, weights)
        folder.checkpoint_store.save_model(3)
    opened().fetch_model(3)
    assert contents(folder.model(3)) == written


def test_a_training_state_is_found_again_and_deleted_alone(folder: StudyFolder, opened: Open) -> None:
    write_model(folder, 3)
    folder.checkpoint_store.save_model(3)
    for state in (b"first", b"second"):
        write_training(folder, 3, state)
        folder.checkpoint_store.save_training(3)
    store = opened()
    store.fetch_training(3)
    assert folder.training_checkpoint(3).read_bytes() == b"second"
    store.delete_training(3)
    store.delete_training(3)
    assert not folder.training_checkpoint(3).exists()
    store = opened()
    store.fetch_training(3)
    assert not folder.training_checkpoint(3).exists()
    assert store.has_model(3)


def test_what_is_not_kept_is_not_fetched(folder: StudyFolder, tmp_path: Path) -> None:
    store = folder.checkpoint_store
    store.fetch_model(None)
    store.fetch_model(3)
    store.fetch_record(3)
    store.fetch_training(3)
    assert not store.copy_model(3, tmp_path / "copy")
    store.delete(3)
    assert list(folder.checkpoints.iterdir()) == []


def test_a_network_is_copied_to_another_folder(folder: StudyFolder, opened: Open, tmp_path: Path) -> None:
    written = write_model(folder, 3)
    folder.checkpoint_store.save_model(3)
    (tmp_path / "copy").mkdir()
    store = opened()
    assert store.copy_model(3, tmp_path / "copy")
    copied = contents(tmp_path / "copy")
    assert copied.keys() >= {"model.safetensors", "architecture.json"}
    assert copied.items() <= written.items()
    store.delete(3)
    assert contents(tmp_path / "copy") == copied


def test_what_another_process_saves_is_seen_after_a_refresh(folder: StudyFolder) -> None:
    store = folder.checkpoint_store
    assert not store.has_model(3)
    write_model(folder, 3)
    StudyFolder(folder.root).checkpoint_store.save_model(3)
    store.refresh(3)
    assert store.has_model(3)
    store.delete(3)
    assert not StudyFolder(folder.root).checkpoint_store.has_model(3)


def test_a_deleted_run_leaves_nothing_and_the_others_stay(folder: StudyFolder, place: Path, opened: Open) -> None:
    store = folder.checkpoint_store
    for run in (3, 30):
        write_model(folder, run)
        write_training(folder, run)
        store.save_model(run)
        store.save_training(run)
    store.delete(3)
    assert {path.name for path in folder.checkpoints.iterdir()} == {"30", "30.training"}
    assert {path.name for path in place.glob("*/checkpoints/*")} <= {"30", "30.training"}
    for seen in (store, opened()):
        assert not seen.has_model(3)
        assert seen.has_model(30)


def test_replicates_that_nobody_needs_are_deleted(folder: StudyFolder, place: Path) -> None:
    store = folder.checkpoint_store
    needed, stale = Replicate(3, 1), Replicate(3, 2, from_dense=True)
    for run in (needed, stale, 3):
        write_model(folder, run)
        write_training(folder, run)
        store.save_model(run)
        store.save_training(run)
    folder.write_json(folder.replicate(stale), {})
    (folder.certification / ".3-seed0.json.abc").write_bytes(b"{")
    store.delete_replicates({needed})
    left = {"3-seed1", "3-seed1.training"}
    assert {path.name for path in folder.certification.iterdir()} == {*left, "3-seed2-dense.json"}
    assert {path.name for path in place.glob("*/certification/*")} <= left
    assert store.has_model(needed)
    assert store.has_model(3)
    assert not store.has_model(stale)


# The remote place alone.


def remote(folder: StudyFolder, uri: str) -> Checkpoints:
    return RemoteCheckpoints(folder, uri, "tiny")


@pytest.mark.parametrize("folder", ["remote"], indirect=True)
def test_a_place_is_opened_when_it_is_needed(folder: StudyFolder) -> None:
    write_model(folder, 3)
    for call in (lambda store: store.open(), lambda store: store.has_model(3)):
        store = remote(folder, "file://${NOT_SET}/a")
        assert store.has_local_model(3)
        store.fetch_model(None)
        with pytest.raises(StudyError, match="NOT_SET is not set"):
            call(store)


@pytest.mark.parametrize("folder", ["remote"], indirect=True)
def test_a_copy_that_can_not_be_written_is_told(folder: StudyFolder, opened: Open) -> None:
    write_model(folder, 3)
    folder.checkpoint_store.save_model(3)
    store = opened()
    folder.model(3).write_bytes(b"in the way")
    with pytest.raises(UnwritableError, match=r"results/tiny: the study can't be written: .*the same command goes on"):
        store.fetch_model(3)
