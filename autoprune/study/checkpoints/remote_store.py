"""Networks and training states of a study in any filesystem that pyarrow can name."""

import hashlib
import json
import posixpath
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from autoprune.errors import StudyError, UnwritableError
from autoprune.files import replacing
from autoprune.study.checkpoints._base import ARCHITECTURE, RECORD, WEIGHTS
from autoprune.study.urls import expand_url, hide

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

WHERE = "search.checkpoints"
TRAINING = ".training"
"""What follows an entry's name in the file with its training state."""

_PART = ".part"
_OBJECT_STORES = ("s3", "gcs", "abfs")
"""Filesystems without folders, where a file appears when it is whole."""

_MAX_CAUSE = 300


@dataclass(frozen=True)
class RemoteLocation:
    """The folder that ``search.checkpoints`` names.

    Attributes:
        name: As the space file has it, variables not put in: it holds no secret.
        uri: As pyarrow takes it.
    """

    name: str
    uri: str

    @classmethod
    def named(cls, name: str) -> "RemoteLocation":
        """Return the location that a space file names; raises StudyError if a variable is not set."""
        return cls(name, expand_url(WHERE, name))

    def open(self, folder: str = "") -> "RemoteStore":
        """Open a store in a folder of this place; raises StudyError if no filesystem has such a URI."""
        from pyarrow.fs import FileSystem

        try:
            filesystem, base = FileSystem.from_uri(self.uri)
        except Exception as error:  # those of fsspec raise what they like
            raise StudyError(f"{WHERE}: '{self.name}' can't be used: {self.cause_of(error)}. Mend the URI.") from None
        return RemoteStore(filesystem, posixpath.join(base, folder) if folder else base, self)

    def check(self) -> None:
        """Write a file there, read and remove it; raises StudyError if that can't be done."""
        store = self.open()
        try:
            store.probe()
        except UnwritableError as error:
            raise StudyError(str(error)) from None

    def cause_of(self, error: BaseException) -> str:
        """Return what the filesystem says of an error, on one line, without any key."""
        line = re.sub(r"\[[Ee]rrno \d+\] ", "", str(error).split("\n")[0])
        cause = " ".join(line.split()).rstrip(".") or type(error).__name__
        if len(cause) > _MAX_CAUSE:
            cause = f"{cause[:_MAX_CAUSE]}..."
        return hide(self._secrets(), cause.replace(self.uri, self.name))

    def _secrets(self) -> list[str]:
        login = re.search(r"://([^:/?]*):([^?]*)@", self.uri)
        settings = re.findall(r"[?&]\w*(?:pass|secret|token|key|sas)\w*=([^&]*)", self.uri, re.IGNORECASE)
        found = [*(login.groups() if login else ()), *settings]
        return [form for secret in found for form in (secret, unquote(secret))]


class RemoteStore:
    """What a study's trials have trained, by entry: ``checkpoints/12`` is trial 12.

    An entry is a folder with the network's files, of which ``trial.json`` comes last and goes first, so that the
    network is whole where that is; and beside it a file with the training state. Local copies are written whole or not
    at all.

    What is there is listed when it is first asked for; later changes by other processes are seen by
    :meth:`refresh`.

    Args:
        base: Folder in the filesystem that is this store's alone.
        location: What error messages call it.

    Raises:
        UnwritableError: From every method, if the filesystem can't be reached, read or written.
    """

    def __init__(self, filesystem: "FileSystem", base: str, location: RemoteLocation) -> None:
        self._filesystem, self._base, self._location = filesystem, filesystem.normalize_path(base), location
        kind = filesystem
        while hasattr(kind, "base_fs"):
            kind = kind.base_fs
        self._has_folders = kind.type_name not in _OBJECT_STORES
        self._listed: dict[str, set[str]] | None = None

    def probe(self) -> None:
        """Try the place: write a file, read and remove it."""
        path, content = self._path(f"probe-{uuid.uuid4().hex}"), b"autoprune"
        with self._reporting_errors():
            if self._has_folders and self._base:
                self._filesystem.create_dir(self._base, recursive=True)
            try:
                with self._filesystem.open_output_stream(path) as stream:
                    stream.write(content)
                with self._filesystem.open_input_stream(path) as stream:
                    if stream.read() != content:
                        raise OSError("a file that was written there reads otherwise")
                self._filesystem.delete_file(path)
            except Exception:
                if self._has_folders:
                    with suppress(Exception):
                        self._filesystem.delete_file(path)
                raise

    def save_model(self, entry: str, folder: Path) -> None:
        """Keep the network whose files a local folder holds."""
        self._delete(f"{entry}/{RECORD}")
        if self._has_folders:
            with self._reporting_errors():
                self._filesystem.create_dir(self._path(entry), recursive=True)
        for name in (WEIGHTS, ARCHITECTURE, RECORD):
            self._put(entry, f"/{name}", folder / name)

    def save_training(self, entry: str, file: Path) -> None:
        """Keep the training state that a local file holds, in place of an earlier one."""
        if self._has_folders:
            with self._reporting_errors():
                self._filesystem.create_dir(posixpath.dirname(self._path(entry)), recursive=True)
        self._put(entry, TRAINING, file)

    def fetch_model(self, entry: str, folder: Path) -> bool:
        """Make a local folder hold the network; what it holds already is not fetched again.

        Returns:
            Whether there is one. Without, the folder stays as it is.
        """
        texts = {name: self._get(f"{entry}/{name}") for name in (ARCHITECTURE, RECORD)}
        if any(text is None for text in texts.values()):
            return False
        if all(_content(folder / name) == text for name, text in texts.items()):
            weights = _content(folder / WEIGHTS)
            if weights is not None and hashlib.sha256(weights).hexdigest() == _weights_sha256(texts[ARCHITECTURE]):
                return True
        weights = self._get(f"{entry}/{WEIGHTS}")
        if weights is None:
            return False
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD).unlink(missing_ok=True)
        for name, content in {WEIGHTS: weights, **texts}.items():
            _write(folder / name, content)
        return True

    def fetch_record(self, entry: str, file: Path) -> None:
        """Make a local file hold what ``trial.json`` does, if there is one."""
        record = self._get(f"{entry}/{RECORD}")
        if record is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            _write(file, record)

    def fetch_training(self, entry: str, file: Path) -> None:
        """Make a local file hold the training state; without one, the file is deleted."""
        state = self._get(entry + TRAINING)
        if state is None:
            file.unlink(missing_ok=True)
        elif state != _content(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            _write(file, state)

    def has_model(self, entry: str) -> bool:
        """Whether an entry's network is there and whole."""
        return f"/{RECORD}" in self._files(entry)

    def entries(self) -> list[str]:
        """All entries, those among them of which only parts are there."""
        return list(self._list())

    def refresh(self, entry: str) -> None:
        """List an entry anew."""
        from pyarrow.fs import FileType

        found: dict[str, set[str]] = {}
        with self._reporting_errors():
            paths = [self._path(entry + ending) for ending in ("", TRAINING, TRAINING + _PART)]
            for info in self._filesystem.get_file_info(paths):
                if info.type != FileType.NotFound:
                    self._note(info.path, found)
            if "" in found.get(entry, ()):
                for info in self._filesystem.get_file_info(self._selector(entry)):
                    self._note(info.path, found)
        self._list().pop(entry, None)
        self._list().update(found)

    def delete(self, entry: str) -> None:
        """Delete an entry's network and training state."""
        files = self._files(entry)
        if f"/{RECORD}" in files:
            self._delete(f"{entry}/{RECORD}")
        if any(name == "" or name.startswith("/") for name in files):
            with self._reporting_errors(), suppress(FileNotFoundError):
                self._filesystem.delete_dir(self._path(entry))
        self.delete_training(entry)
        self._list().pop(entry, None)

    def delete_training(self, entry: str) -> None:
        """Delete an entry's training state."""
        for name in [name for name in self._files(entry) if name.startswith(".")]:
            self._delete(entry + name)
            self._files(entry).discard(name)

    def _put(self, entry: str, name: str, file: Path) -> None:
        path = self._path(entry + name)
        # An object store shows a file when it is whole; elsewhere it is moved to its name when it is.
        target = path + _PART if self._has_folders else path
        content = file.read_bytes()
        with self._reporting_errors():
            try:
                with self._filesystem.open_output_stream(target) as stream:
                    stream.write(content)  # in one piece: a signal in between would leave a part in an object store
                if target != path:
                    self._filesystem.move(target, path)
            except BaseException:
                if target != path:
                    with suppress(Exception):
                        self._filesystem.delete_file(target)
                raise
        if self._listed is not None:
            self._listed.setdefault(entry, set()).add(name)

    def _get(self, path: str) -> bytes | None:
        with self._reporting_errors():
            try:
                with self._filesystem.open_input_stream(self._path(path)) as stream:
                    content: bytes = stream.read()
                    return content
            except FileNotFoundError:
                return None

    def _delete(self, path: str) -> None:
        with self._reporting_errors(), suppress(FileNotFoundError):
            self._filesystem.delete_file(self._path(path))

    def _files(self, entry: str) -> set[str]:
        return self._list().get(entry, set())

    def _list(self) -> dict[str, set[str]]:
        if self._listed is None:
            listed: dict[str, set[str]] = {}
            with self._reporting_errors():
                for info in self._filesystem.get_file_info(self._selector("")):
                    self._note(info.path, listed)
            self._listed = listed
        return self._listed

    def _selector(self, folder: str) -> Any:
        from pyarrow.fs import FileSelector

        return FileSelector(self._path(folder) if folder else self._base, recursive=True, allow_not_found=True)

    def _note(self, path: str, listed: dict[str, set[str]]) -> None:
        """Note a path: entry -> what follows it, such as ``""``, ``"/trial.json"`` or ``".training"``."""
        inside = path.removeprefix(self._base).strip("/")
        if found := re.fullmatch(r"(\w+/[\w-]+)(.*)", inside):
            listed.setdefault(found[1], set()).add(found[2])

    def _path(self, inside: str) -> str:
        return posixpath.join(self._base, inside)

    @contextmanager
    def _reporting_errors(self) -> Iterator[None]:
        """Raise UnwritableError for whatever the filesystem raises, which is no trial's fault."""
        try:
            yield
        except (UnwritableError, MemoryError):
            raise
        except Exception as error:  # those of fsspec raise what they like
            raise UnwritableError(
                f"{WHERE}: '{self._location.name}' can't be used: {self._location.cause_of(error)}. "
                "Make it reachable and writable; the same command goes on."
            ) from None


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _write(file: Path, content: Any) -> None:
    with replacing(file) as handle:
        handle.write(content)


def _weights_sha256(architecture: bytes | None) -> str | None:
    try:
        record: Mapping[str, str] = json.loads(architecture or b"")
        return record["weights_sha256"]
    except (ValueError, LookupError, TypeError):
        return None
