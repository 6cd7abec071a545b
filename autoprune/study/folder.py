"""results/<study>/: where everything lies, and how it is read and written."""

import fcntl
import json
import os
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from autoprune.config import SearchConfig, load_config
from autoprune.errors import StudyError, UnwritableError
from autoprune.files import replacing
from autoprune.study.checkpoints import Checkpoints, make_checkpoints
from autoprune.trial import Replicate, RunId

SCHEMA = 2
"""Number of the format that a study's files have; in study.json, where a study without one has the first.

In the first, the metric was always called accuracy and maximised. Such a study can be read, and not gone on with.
"""


class StudyFolder:
    """The paths of one study, and how its files are read and written.

    Args:
        root: ``results/<study>``; it need not exist yet.
        config: The study's, where its space file has been read before.
    """

    def __init__(self, root: Path, config: SearchConfig | None = None) -> None:
        self._config = config
        self.root = root.absolute()
        self.space = self.root / "space.yaml"
        self.database = self.root / "study.db"
        self.origin = self.root / "study.json"
        self.plan = self.root / "plan.json"
        self.data = self.root / "data.json"
        self.sensitivity = self.root / "sensitivity.json"
        self.dense = self.root / "dense"
        self.reference = self.dense / "reference.json"
        self.checkpoints = self.root / "checkpoints"
        self.certification = self.root / "certification"
        self.logs = self.root / "logs"
        self.trials = self.root / "trials.parquet"
        self.epochs = self.root / "epochs.jsonl"
        self.epochs_table = self.root / "epochs.parquet"
        self.front = self.root / "front.parquet"
        self.test = self.root / "test.json"
        self.warm_start = self.root / "warm_start.json"

    @classmethod
    def existing(cls, root: Path) -> "StudyFolder":
        """The folder of a study that was started before; raises StudyError if there is none."""
        folder = cls(root)
        if not folder.space.is_file():
            raise StudyError(f"{root}: not a study (it holds no space.yaml). `autoprune search space.yaml` starts one.")
        return folder

    def create(self) -> None:
        """Make the folder; raises StudyError if that can't be done."""
        try:
            for folder in (self.root, self.dense, self.checkpoints):
                folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise StudyError(
                f"{self.root}: can't be written: {error.strerror}. Name another folder with --results."
            ) from None

    @cached_property
    def config(self) -> SearchConfig:
        """The study's configuration, read from its space file once; raises ConfigError if that can't be read."""
        if self._config is not None:
            return self._config
        return load_config(self.space, schema_1=self.schema == 1)

    @cached_property
    def checkpoint_store(self) -> Checkpoints:
        """Networks and training states of the study's runs, kept where its space file says.

        Raises:
            ConfigError: If the space file can't be read.
        """
        return make_checkpoints(self, self.config.search.checkpoints, self.config.study)

    @property
    def base_dir(self) -> Path:
        """The folder that the user's own modules are imported from."""
        return (self.root / str(self.read_json(self.origin)["base_dir"])).resolve()

    @cached_property
    def schema(self) -> Any:
        """The format that the study was begun in."""
        return self.read_json(self.origin).get("schema", 1) if self.origin.exists() else SCHEMA

    def check_resumable(self) -> None:
        """Raise StudyError if another autoprune began the study, in a format that this one does not write."""
        self.check_schema()
        if self.schema < SCHEMA:
            raise StudyError(
                f"{self.root}: begun by an earlier autoprune (schema {self.schema}, now {SCHEMA}): it can be read and "
                "exported from, but not gone on with. Give the study another name; with search.warm_start it begins "
                "with these trials."
            )

    def check_schema(self) -> None:
        """Raise StudyError if a newer autoprune began the study, in a format that this one does not know."""
        schema = self.schema
        if not isinstance(schema, int) or schema > SCHEMA:
            raise StudyError(
                f"{self.origin}: made by a newer autoprune: schema {schema}, of which this one knows 1 to {SCHEMA}. "
                "Upgrade autoprune."
            )

    def identity(self) -> str:
        """What tells this study from one of the same name in another folder, and stays when its folder is moved."""
        origin = self.read_json(self.origin)
        if "id" not in origin:
            origin["id"] = uuid.uuid4().hex
            self.write_json(self.origin, origin)
        return str(origin["id"])

    def model(self, run: RunId | None) -> Path:
        """Folder of the trained network of a trial or a replicate; ``None`` is the dense one."""
        return self.dense if run is None else self._named(run)

    def training_checkpoint(self, run: RunId) -> Path:
        """File with a running trial's training state after its last epoch."""
        return self._named(run, ".training")

    def replicate(self, run: RunId) -> Path:
        """File with the configuration and the result of a replicate that has ended."""
        return self._named(run, ".json")

    def _named(self, run: RunId, ending: str = "") -> Path:
        folder = self.certification if isinstance(run, Replicate) else self.checkpoints
        return folder / f"{run}{ending}"

    def record(self, run: RunId) -> Path:
        """File beside a trial's network with its configuration and its result."""
        return self.model(run) / "trial.json"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Tell a write that fails with its cause and the way out; raises UnwritableError."""
        try:
            yield
        except OSError as error:
            raise unwritable(self.root, error.strerror or str(error)) from error

    def write_json(self, path: Path, value: Any) -> None:
        """Write plain JSON values; raises UnwritableError if that can't be done."""
        with self.writing(), replacing(path) as handle:
            handle.write(json.dumps(value, indent=1).encode())

    @staticmethod
    def read_json(path: Path) -> Any:
        """Read what :meth:`write_json` wrote; raises StudyError if it is missing or damaged."""
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise StudyError(f"{path}: can't be read: {error}. Restore it, or start the study anew.") from None

    def write_frame(self, path: Path, frame: pd.DataFrame) -> None:
        """Write a Parquet file; raises UnwritableError if that can't be done."""
        with self.writing(), replacing(path) as handle:
            frame.to_parquet(handle, index=False)

    def read_frame(self, path: Path) -> pd.DataFrame:
        """Read a Parquet file of the study; raises StudyError if it is missing or damaged."""
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise StudyError(
                f"{path}: can't be read: {error}. `autoprune search` on its space file writes it."
            ) from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the study for this process.

        The kernel drops the lock when its owner dies, so none is ever left behind, not by what the owner has forked
        either. Another machine's lock is seen where the folder's file system shares locks, as NFS does on Linux.

        Raises:
            StudyError: If a living process holds it, or the folder's file system knows no locks.
            UnwritableError: If the lock can't be written.
        """
        with self.writing():
            file = (self.root / "lock").open("ab+", buffering=0)
        with file as handle:
            os.register_at_fork(after_in_child=handle.close)  # else a child would hold it when this process is dead
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.seek(0)
                owner = handle.read().decode().strip() or "unknown"
                raise StudyError(
                    f"{self.root} is being searched by process {owner}. Wait for it to end, or stop it."
                ) from None
            except OSError as error:
                raise StudyError(
                    f"{self.root} can't be locked: {error.strerror}. "
                    "Name a folder on another file system with --results."
                ) from None
            with self.writing():
                handle.truncate(0)
                handle.write(f"{os.getpid()} on {socket.gethostname()}".encode())
            yield


def unwritable(place: object, cause: str) -> UnwritableError:
    """The error for a place of a study that can't be written for some cause, with the way out."""
    return UnwritableError(
        f"{place}: the study can't be written: {cause}. "
        "Put the folder back, make it writable or free space; the same command goes on."
    )
