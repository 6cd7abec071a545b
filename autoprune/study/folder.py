"""results/<study>/: where everything lies, and how it is read and written."""

import fcntl
import json
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from autoprune.errors import StudyError, UnwritableError
from autoprune.files import replacing
from autoprune.study.checkpoints import CheckpointPlace, CheckpointStore
from autoprune.trial import Replicate, RunId


class StudyFolder:
    """The paths of one study, and how its files are read and written.

    Args:
        root: ``results/<study>``; it need not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.space = self.root / "space.yaml"
        self.database = self.root / "study.db"
        self.origin = self.root / "study.json"
        self.plan = self.root / "plan.json"
        self.sensitivity = self.root / "sensitivity.json"
        self.dense = self.root / "dense"
        self.reference = self.dense / "reference.json"
        self.checkpoints = self.root / "checkpoints"
        self.certification = self.root / "certification"
        self.trials = self.root / "trials.parquet"
        self.epochs = self.root / "epochs.jsonl"
        self.epochs_table = self.root / "epochs.parquet"
        self.front = self.root / "front.parquet"
        self.test = self.root / "test.json"
        self.warm_start = self.root / "warm_start.json"
        self._elsewhere: tuple[str | None, str] = (None, "")
        self._opened: CheckpointStore | None = None

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

    def keep_elsewhere(self, uri: str | None, study: str) -> None:
        """Keep networks and checkpoints of trials and replicates in the place that ``search.checkpoints`` names.

        What this folder holds of them is then a copy, that :meth:`bring` and its like make.

        Args:
            uri: ``None`` keeps them in this folder.
            study: The study's name.
        """
        if (uri, study) != self._elsewhere:
            self._elsewhere, self._opened = (uri, study), None

    @property
    def elsewhere(self) -> CheckpointStore | None:
        """This study's part of that place, opened when it is first asked for; ``None`` without one.

        Raises:
            StudyError: If it can't be opened.
        """
        uri, study = self._elsewhere
        if uri is not None and self._opened is None:
            self._opened = CheckpointPlace.named(uri).open(f"{study}-{self.identity()}")
        return self._opened

    @property
    def base_dir(self) -> Path:
        """The folder that the user's own modules are imported from."""
        return (self.root / str(self.read_json(self.origin)["base_dir"])).resolve()

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

    def has_model(self, run: RunId) -> bool:
        """Whether the trial's network is kept."""
        if self.elsewhere is not None:
            return self.elsewhere.has_model(self._entry(run))
        return (self.model(run) / "model.safetensors").is_file()

    def has_copy(self, run: RunId) -> bool:
        """Whether this folder itself holds the trial's network and record."""
        return (self.model(run) / "model.safetensors").is_file() and self.record(run).is_file()

    def keep_model(self, run: RunId) -> None:
        """Take a trial's network and record, which are in this folder, to where they are kept."""
        if self.elsewhere is not None:
            with self.writing():
                self.elsewhere.save_model(self._entry(run), self.model(run))

    def keep_training(self, run: RunId) -> None:
        """Take a trial's training state, which is in this folder, to where it is kept."""
        if self.elsewhere is not None:
            with self.writing():
                self.elsewhere.save_training(self._entry(run), self.training_checkpoint(run))

    def bring(self, run: RunId | None, target: Path | None = None) -> None:
        """Have a trial's network and record in this folder, if they are kept; the dense network always is.

        Args:
            target: The folder to have them in, if that is not :meth:`model`.
        """
        if self.elsewhere is not None and run is not None:
            with self.writing():
                self.elsewhere.fetch_model(self._entry(run), target or self.model(run))

    def bring_record(self, run: RunId) -> None:
        """Have a trial's record in this folder, if it is kept; it is not asked for where there is one."""
        if self.elsewhere is not None and not self.record(run).is_file():
            with self.writing():
                self.elsewhere.fetch_record(self._entry(run), self.record(run))

    def bring_training(self, run: RunId) -> None:
        """Have a trial's training state in this folder, if it is kept, and else none."""
        if self.elsewhere is not None:
            with self.writing():
                self.elsewhere.fetch_training(self._entry(run), self.training_checkpoint(run))

    def look_again(self, run: RunId) -> None:
        """Take note of what another process has kept of a trial."""
        if self.elsewhere is not None:
            self.elsewhere.look_again(self._entry(run))

    def forget_model(self, run: RunId) -> None:
        """Delete a trial's network and training state."""
        if self.elsewhere is not None:
            self.elsewhere.forget(self._entry(run))
        shutil.rmtree(self.model(run), ignore_errors=True)
        self.training_checkpoint(run).unlink(missing_ok=True)

    def forget_training(self, run: RunId) -> None:
        """Delete a trial's training state."""
        if self.elsewhere is not None:
            self.elsewhere.forget_training(self._entry(run))
        self.training_checkpoint(run).unlink(missing_ok=True)

    def delete_replicates(self, needed: Collection[str]) -> None:
        """Delete the networks and training states of all replicates but these, each named by ``str(Replicate)``."""
        if (elsewhere := self.elsewhere) is not None:
            for entry in elsewhere.entries():
                folder, _, name = entry.partition("/")
                if folder == self.certification.name and name not in needed:
                    elsewhere.forget(entry)
        for path in self.certification.iterdir():
            if path.name.startswith(".") or (path.suffix != ".json" and path.stem not in needed):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _entry(self, run: RunId) -> str:
        return self.model(run).relative_to(self.root).as_posix()

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
