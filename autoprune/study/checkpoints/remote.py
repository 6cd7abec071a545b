"""Checkpoints in the place that ``search.checkpoints`` names; what the study's folder holds of them is scratch."""

from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from autoprune.study.checkpoints._base import Checkpoints
from autoprune.study.checkpoints.local import LocalCheckpoints
from autoprune.study.checkpoints.remote_store import RemoteLocation, RemoteStore
from autoprune.trial import RunId

if TYPE_CHECKING:
    from autoprune.study.folder import StudyFolder


class RemoteCheckpoints(Checkpoints):
    """Networks, records and training states in a remote store, with copies under the folder's paths.

    A copy that is missing or differs is fetched, so it may be deleted at any time. Deleting a run deletes its copy.

    Args:
        uri: ``search.checkpoints`` of the study's space file.
        study: The study's name. With the folder's identity it names the study's part of the place.
    """

    def __init__(self, folder: "StudyFolder", uri: str, study: str) -> None:
        super().__init__(folder)
        self._uri, self._study = uri, study
        self._copies = LocalCheckpoints(folder)

    @cached_property
    def _store(self) -> RemoteStore:
        return RemoteLocation.named(self._uri).open(f"{self._study}-{self._folder.identity()}")

    def open(self) -> None:
        _ = self._store

    def has_model(self, run: RunId) -> bool:
        return self._store.has_model(self._entry(run))

    def save_model(self, run: RunId) -> None:
        with self._folder.writing():
            self._store.save_model(self._entry(run), self._folder.model(run))

    def save_training(self, run: RunId) -> None:
        with self._folder.writing():
            self._store.save_training(self._entry(run), self._folder.training_checkpoint(run))

    def fetch_model(self, run: RunId | None) -> None:
        if run is not None:
            self.copy_model(run, self._folder.model(run))

    def fetch_record(self, run: RunId) -> None:
        if not self._folder.record(run).is_file():
            with self._folder.writing():
                self._store.fetch_record(self._entry(run), self._folder.record(run))

    def fetch_training(self, run: RunId) -> None:
        with self._folder.writing():
            self._store.fetch_training(self._entry(run), self._folder.training_checkpoint(run))

    def copy_model(self, run: RunId, target: Path) -> bool:
        with self._folder.writing():
            return self._store.fetch_model(self._entry(run), target)

    def refresh(self, run: RunId) -> None:
        self._store.refresh(self._entry(run))

    def delete(self, run: RunId) -> None:
        self._store.delete(self._entry(run))
        self._copies.delete(run)

    def delete_training(self, run: RunId) -> None:
        self._store.delete_training(self._entry(run))
        self._copies.delete_training(run)

    def delete_replicates(self, needed: Collection[RunId]) -> None:
        names = {str(run) for run in needed}
        for entry in self._store.entries():
            folder, _, name = entry.partition("/")
            if folder == self._folder.certification.name and name not in names:
                self._store.delete(entry)
        self._copies.delete_replicates(needed)

    def _entry(self, run: RunId) -> str:
        """The run's name in the store: the path of its network in the study's folder."""
        return self._folder.model(run).relative_to(self._folder.root).as_posix()
