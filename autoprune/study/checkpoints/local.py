"""Checkpoints that the study's folder itself keeps."""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from autoprune.study.checkpoints._base import ARCHITECTURE, RECORD, WEIGHTS, Checkpoints
from autoprune.trial import RunId


class LocalCheckpoints(Checkpoints):
    """Networks, records and training states where the workers write them, so that nothing is to be moved."""

    def open(self) -> None:
        """Do nothing: the folder is there."""

    def has_model(self, run: RunId) -> bool:
        return self.has_local_model(run)

    def save_model(self, run: RunId) -> None:
        """Do nothing: it was written to where it is kept."""

    def save_training(self, run: RunId) -> None:
        """Do nothing: it was written to where it is kept."""

    def fetch_model(self, run: RunId | None) -> None:
        """Do nothing: it is read where it is kept."""

    def fetch_record(self, run: RunId) -> None:
        """Do nothing: it is read where it is kept."""

    def fetch_training(self, run: RunId) -> None:
        """Do nothing: it is read where it is kept."""

    def copy_model(self, run: RunId, target: Path) -> bool:
        try:
            for name in (WEIGHTS, ARCHITECTURE, RECORD):
                _link(self._folder.model(run) / name, target / name)
        except FileNotFoundError:
            return False
        return True

    def refresh(self, run: RunId) -> None:
        """Do nothing: the folder is asked anew each time."""

    def delete(self, run: RunId) -> None:
        self._folder.record(run).unlink(missing_ok=True)
        shutil.rmtree(self._folder.model(run), ignore_errors=True)
        self.delete_training(run)

    def delete_training(self, run: RunId) -> None:
        self._folder.training_checkpoint(run).unlink(missing_ok=True)

    def delete_replicates(self, needed: Collection[RunId]) -> None:
        names = {str(run) for run in needed}
        for path in self._folder.certification.iterdir():
            if path.name.startswith(".") or (path.suffix != ".json" and path.stem not in names):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _link(origin: Path, target: Path) -> None:
    """Make a hard link, since no network's file is written to again; a copy where the file system knows none."""
    try:
        os.link(origin, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(origin, target)
