"""What a study keeps of its runs, and what can be done with it wherever it is kept."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from autoprune.trial import RunId

if TYPE_CHECKING:
    from autoprune.study.folder import StudyFolder

WEIGHTS, ARCHITECTURE, RECORD = "model.safetensors", "architecture.json", "trial.json"
"""The files of a network's folder. The record is written last and deleted first: where it is, the network is whole."""


class Checkpoints(ABC):
    """Networks, records and training states of a study's trials and replicates.

    A worker writes a run's files to the paths that the study's folder gives, and saves them. A reader fetches them and
    then finds them under the same paths. The dense network is always in the folder, so only :meth:`fetch_model` takes
    ``None`` for it.

    Raises:
        UnwritableError: From every method, if the place can't be reached, read or written.
    """

    def __init__(self, folder: "StudyFolder") -> None:
        self._folder = folder

    @abstractmethod
    def open(self) -> None:
        """Open the place, which is otherwise done at its first use; raises StudyError if that can't be done."""

    @abstractmethod
    def has_model(self, run: RunId) -> bool:
        """Whether a run's network and record are kept, and whole."""

    def has_local_model(self, run: RunId) -> bool:
        """Whether the study's own folder holds a run's network and record."""
        return (self._folder.model(run) / WEIGHTS).is_file() and self._folder.record(run).is_file()

    @abstractmethod
    def save_model(self, run: RunId) -> None:
        """Keep the network and the record that were written for a run."""

    @abstractmethod
    def save_training(self, run: RunId) -> None:
        """Keep the training state that was written for a run, in place of an earlier one."""

    @abstractmethod
    def fetch_model(self, run: RunId | None) -> None:
        """Have a run's network and record under the folder's paths, if they are kept."""

    @abstractmethod
    def fetch_record(self, run: RunId) -> None:
        """Have a run's record under the folder's path, if it is kept."""

    @abstractmethod
    def fetch_training(self, run: RunId) -> None:
        """Have a run's training state under the folder's path, if it is kept, and else none."""

    @abstractmethod
    def copy_model(self, run: RunId, target: Path) -> bool:
        """Copy the files of a run's network to an empty folder, its record among them.

        Another process may delete the network meanwhile.

        Returns:
            Whether all of the network's files are there. The folder holds anything otherwise.
        """

    @abstractmethod
    def refresh(self, run: RunId) -> None:
        """Take note of what another process has saved of a run."""

    @abstractmethod
    def delete(self, run: RunId) -> None:
        """Delete all that is kept of a run, if anything is."""

    @abstractmethod
    def delete_training(self, run: RunId) -> None:
        """Delete a run's training state, if there is one."""

    @abstractmethod
    def delete_replicates(self, needed: Collection[RunId]) -> None:
        """Delete the networks and training states of all replicates but these."""
