"""Where `search.checkpoints` keeps networks and epoch checkpoints, on pyarrow's own filesystems."""

import hashlib
import json
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow.fs import FileSelector, FileSystem, LocalFileSystem, SubTreeFileSystem, _MockFileSystem

from autoprune.errors import StudyError, UnwritableError
from autoprune.study.checkpoints.remote_store import RemoteLocation, RemoteStore

PLACE = RemoteLocation("x://place", "x://place")
ENTRY = "checkpoints/3"
SECRET = "se/cr+t:k@y"


def local(root: Path) -> tuple[FileSystem, str]:
    return LocalFileSystem(), f"{root}/base"


def subtree(root: Path) -> tuple[FileSystem, str]:
    return SubTreeFileSystem(str(root), LocalFileSystem()), "base"


def whole_subtree(root: Path) -> tuple[FileSystem, str]:
    return SubTreeFileSystem(str(root), LocalFileSystem()), ""


def mock(root: Path) -> tuple[FileSystem, str]:
    return _MockFileSystem(), "bucket/base"


class ObjectStore:
    """A filesystem without folders, in which nothing can be moved, as pyarrow's own for S3 behaves."""

    type_name = "s3"

    def __init__(self, filesystem: FileSystem) -> None:
        self._filesystem = filesystem

    def __getattr__(self, name: str) -> Any:
        assert name not in ("create_dir", "move")
        return getattr(self._filesystem, name)

    def open_output_stream(self, path: str) -> Any:
        self._filesystem.create_dir(posixpath.dirname(path), recursive=True)
        return self._filesystem.open_output_stream(path)


def object_store(root: Path) -> tuple[ObjectStore, str]:
    return ObjectStore(_MockFileSystem()), "bucket/base"


Opened = tuple[RemoteStore, FileSystem, str]


@pytest.fixture(params=[local, subtree, whole_subtree, mock, object_store])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    (tmp_path / "place").mkdir()
    filesystem, base = request.param(tmp_path / "place")
    return RemoteStore(filesystem, base, PLACE), filesystem, base


def again(opened: Opened) -> RemoteStore:
    """The store as another process sees it."""
    return RemoteStore(opened[1], opened[2], PLACE)


def files(opened: Opened) -> list[str]:
    _, filesystem, base = opened
    found = filesystem.get_file_info(FileSelector(base, recursive=True, allow_not_found=True))
    return sorted(info.path.removeprefix(base).strip("/") for info in found if info.is_file)


def network(folder: Path, weights: bytes = b"weights", **record: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "architecture.json").write_text(json.dumps({"weights_sha256": hashlib.sha256(weights).hexdigest()}))
    (folder / "trial.json").write_text(json.dumps(record))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_network_goes_and_comes(opened: Opened, tmp_path: Path) -> None:
    store, saved = opened[0], network(tmp_path / "3", number=3)
    assert not store.has_model(ENTRY)
    store.save_model(ENTRY, saved)
    assert store.has_model(ENTRY)
    assert again(opened).has_model(ENTRY)
    assert again(opened).fetch_model(ENTRY, tmp_path / "new/3")
    assert contents(tmp_path / "new/3") == contents(saved)
    again(opened).fetch_record(ENTRY, tmp_path / "record/trial.json")
    assert contents(tmp_path / "record") == {"trial.json": (saved / "trial.json").read_bytes()}
    assert files(opened) == [f"{ENTRY}/{name}" for name in ("architecture.json", "model.safetensors", "trial.json")]


@pytest.mark.parametrize("name", ["model.safetensors", "architecture.json", "trial.json"])
@pytest.mark.parametrize("damage", ["gone", "foreign", "truncated"])
def test_a_copy_that_differs_is_brought_anew(opened: Opened, tmp_path: Path, name: str, damage: str) -> None:
    store, copy = opened[0], network(tmp_path / "3", number=3)
    whole = contents(copy)
    store.save_model(ENTRY, copy)
    if damage == "gone":
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(b'{"weights_sha256": "0"}' if damage == "foreign" else whole[name][:-1])
    assert store.fetch_model(ENTRY, copy)
    assert contents(copy) == whole


def test_a_copy_that_is_right_is_not_written_again(opened: Opened, tmp_path: Path) -> None:
    copy = network(tmp_path / "3")
    opened[0].save_model(ENTRY, copy)
    before = {path: path.stat().st_ino for path in copy.iterdir()}
    assert opened[0].fetch_model(ENTRY, copy)
    assert {path: path.stat().st_ino for path in copy.iterdir()} == before


def test_what_is_not_there_is_not_brought(opened: Opened, tmp_path: Path) -> None:
    assert not opened[0].fetch_model(ENTRY, tmp_path / "3")
    opened[0].fetch_record(ENTRY, tmp_path / "3/trial.json")
    assert not (tmp_path / "3").exists()
    opened[0].delete(ENTRY)
    assert opened[0].entries() == []


def test_a_training_state_goes_and_comes(opened: Opened, tmp_path: Path) -> None:
    state = tmp_path / "3.training"
    for content in (b"first", b"second"):
        state.write_bytes(content)
        opened[0].save_training(ENTRY, state)
    assert files(opened) == [f"{ENTRY}.training"]
    for content in (None, b"truncat", b"second"):
        state.unlink(missing_ok=True) if content is None else state.write_bytes(content)
        again(opened).fetch_training(ENTRY, state)
        assert state.read_bytes() == b"second"
    opened[0].delete_training(ENTRY)
    again(opened).fetch_training(ENTRY, state)
    assert not state.exists()
    assert files(opened) == []


def test_other_entries_stay(opened: Opened, tmp_path: Path) -> None:
    store, saved = opened[0], network(tmp_path / "3")
    (tmp_path / "state").write_bytes(b"state")
    entries = [ENTRY, "checkpoints/30", "certification/3-seed0-dense"]
    for entry in entries:
        store.save_model(entry, saved)
        store.save_training(entry, tmp_path / "state")
    store = again(opened)
    assert sorted(store.entries()) == sorted(entries)
    store.delete(ENTRY)
    assert not store.has_model(ENTRY)
    for seen in (store, again(opened)):
        assert sorted(seen.entries()) == sorted(entries[1:])
    store.delete_training("checkpoints/30")
    assert store.has_model("checkpoints/30")
    assert "checkpoints/30.training" not in files(opened)
    assert "certification/3-seed0-dense.training" in files(opened)


def test_another_process_saves_and_dies(opened: Opened, tmp_path: Path) -> None:
    store = opened[0]
    assert store.entries() == []
    other, saved = again(opened), network(tmp_path / "3")
    (tmp_path / "state").write_bytes(b"state")
    other.save_model(ENTRY, saved)
    other.save_training(ENTRY, tmp_path / "state")
    assert not store.has_model(ENTRY)
    store.refresh(ENTRY)
    assert store.has_model(ENTRY)
    opened[1].delete_file(posixpath.join(opened[2], f"{ENTRY}/trial.json"))
    store.refresh(ENTRY)
    assert not store.has_model(ENTRY)
    assert not store.fetch_model(ENTRY, tmp_path / "new")
    store.delete(ENTRY)
    assert files(opened) == []
    store.refresh(ENTRY)
    assert store.entries() == []


def test_a_part_that_a_killed_process_left_goes_with_the_state(opened: Opened, tmp_path: Path) -> None:
    store, filesystem, base = opened
    (tmp_path / "state").write_bytes(b"state")
    assert store.entries() == []
    again(opened).save_training(ENTRY, tmp_path / "state")
    with filesystem.open_output_stream(posixpath.join(base, f"{ENTRY}.training.part")) as stream:
        stream.write(b"sta")
    store.refresh(ENTRY)
    store.delete_training(ENTRY)
    assert files(opened) == []


class Failing:
    """A filesystem whose n-th call of some method fails, in the middle of a file if it writes one."""

    def __init__(self, filesystem: FileSystem, method: str, countdown: int) -> None:
        self._filesystem, self._method, self._countdown = filesystem, method, countdown
        self.type_name = filesystem.type_name

    def __getattr__(self, name: str) -> Any:
        found: Callable[..., Any] = getattr(self._filesystem, name)
        if name != self._method:
            return found
        self._countdown -= 1
        if self._countdown:
            return found

        def fail(path: Any, *args: Any, **kwargs: Any) -> None:
            if name == "open_output_stream":
                with self._filesystem.open_output_stream(path) as stream:
                    stream.write(b"half")
            raise OSError("the net is down")

        return fail


@pytest.mark.parametrize("method", ["open_output_stream", "move"])
@pytest.mark.parametrize("countdown", [1, 2, 3])
def test_a_write_that_fails_leaves_no_network_and_no_part(tmp_path: Path, method: str, countdown: int) -> None:
    whole, saved = _MockFileSystem(), network(tmp_path / "3")
    store = RemoteStore(Failing(whole, method, countdown), "base", PLACE)
    with pytest.raises(UnwritableError, match=r"search.checkpoints: 'x://place' can't be used: the net is down\. Make"):
        store.save_model(ENTRY, saved)
    assert not any(name.endswith(".part") for name in files((store, whole, "base")))
    assert not RemoteStore(whole, "base", PLACE).has_model(ENTRY)
    store.save_model(ENTRY, saved)
    assert RemoteStore(whole, "base", PLACE).has_model(ENTRY)


@pytest.mark.parametrize("method", ["open_output_stream", "move"])
def test_a_state_that_can_not_be_replaced_stays(tmp_path: Path, method: str) -> None:
    whole, state = _MockFileSystem(), tmp_path / "3.training"
    store = RemoteStore(Failing(whole, method, 2), "base", PLACE)
    state.write_bytes(b"first")
    store.save_training(ENTRY, state)
    state.write_bytes(b"second")
    with pytest.raises(UnwritableError, match="the net is down"):
        store.save_training(ENTRY, state)
    store.fetch_training(ENTRY, state)
    assert state.read_bytes() == b"first"
    assert files((store, whole, "base")) == [f"{ENTRY}.training"]


@pytest.mark.parametrize("method", ["open_output_stream", "open_input_stream", "create_dir", "delete_file"])
def test_a_probe_that_fails_leaves_nothing(method: str) -> None:
    whole = _MockFileSystem()
    with pytest.raises(UnwritableError, match="the net is down"):
        RemoteStore(Failing(whole, method, 1), "base", PLACE).probe()
    assert files((RemoteStore(whole, "base", PLACE), whole, "base")) == []


# The place.


def test_trying_a_place_leaves_no_file(tmp_path: Path) -> None:
    RemoteLocation.named((tmp_path / "a/b").as_uri()).check()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_variables_are_put_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", str(tmp_path))
    for name in ("file://${PLACE}/a", "${WHOLE}/a"):
        monkeypatch.setenv("WHOLE", tmp_path.as_uri())
        assert RemoteLocation.named(name) == RemoteLocation(name, f"{tmp_path.as_uri()}/a")
    monkeypatch.delenv("PLACE")
    with pytest.raises(StudyError, match=r"^search\.checkpoints: the environment variable PLACE is not set\. Set it"):
        RemoteLocation.named("file://${PLACE}/a")


@pytest.mark.parametrize(
    ("uri", "cause"),
    [
        ("nonsense://a/b", "Unrecognized filesystem type in URI: nonsense://a/b"),
        ("file://a/b", "Unsupported hostname in non-Windows local URI: "),
        ("file:///proc/a/b", "Cannot create directory '/proc/a'. Detail: No such"),
    ],
)
def test_a_place_that_can_not_be_used(uri: str, cause: str) -> None:
    with pytest.raises(StudyError, match=f"^search.checkpoints: '{re.escape(uri)}' can't be used: {cause}"):
        RemoteLocation.named(uri).check()


@pytest.mark.slow
def test_a_server_that_nobody_runs_is_told_without_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    name = "s3://AKEY:${SECRET}@bucket/a?endpoint_override=127.0.0.1:1&scheme=http&region=us-east-1"
    with pytest.raises(StudyError, match=r"can't be used: .*connect") as caught:
        RemoteLocation.named(name).check()
    assert str(caught.value).startswith(f"search.checkpoints: '{name}' can't be used: ")
    assert "cr" not in str(caught.value).replace("${SECRET}", "")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("name", ["s3://${KEY}:${SECRET}@bucket/a", "s3://bucket/a?some_secret=${SECRET}&b=1"])
def test_no_cause_shows_a_key(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.setenv("KEY", "AK/EY")
    place = RemoteLocation.named(name)
    login = "AK%2FEY:se%2Fcr%2Bt%3Ak%40y"
    for told in (f"at {place.uri}, no", f"with {SECRET}", "with se%2Fcr%2Bt%3Ak%40y", f"not {login}"):
        cause = place.cause_of(ValueError(told))
        assert "***" in cause or name in cause
        assert "cr" not in cause.replace("${SECRET}", "").replace("some_secret", "")
    if "KEY" in name:
        assert "EY" not in place.cause_of(ValueError("AK/EY, AK%2FEY"))


def test_a_cause_is_one_short_line() -> None:
    assert PLACE.cause_of(OSError("first\nsecond")) == "first"
    assert len(PLACE.cause_of(OSError("long " * 1000))) < 320
    assert PLACE.cause_of(OSError()) == "OSError"
