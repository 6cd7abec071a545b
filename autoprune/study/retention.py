"""Which trials' networks a study keeps, those that a later trial may start from, and what their channels are worth."""

from collections.abc import Mapping, Sequence

from autoprune.study.folder import StudyFolder
from autoprune.trial import TrialConfig, TrialResult


class CheckpointRetention:
    """Deletes the networks that nobody needs any more.

    Needed are those of the front, and the parents of trials that have not ended, which may have to start again.

    Args:
        keep_all: Whether any finished trial's network may be a parent some time, as under ``start: nearest``.
    """

    def __init__(self, folder: StudyFolder, *, keep_all: bool) -> None:
        self._folder, self._keep_all = folder, keep_all
        self._parents: dict[int, int | None] = {}
        self._dominated: set[int] = set()

    def scores_of(self, number: int | None) -> Mapping[str, Sequence[float]]:
        """Scores of the channels of a trial's network, or of the dense one, as the worker kept them.

        There are none for a network taken over from a study that did not keep them.
        """
        if number is not None:
            self._folder.checkpoint_store.fetch_record(number)
        path = self._folder.plan if number is None else self._folder.record(number)
        scores: Mapping[str, Sequence[float]] = self._folder.read_json(path).get("scores", {})
        return scores

    def needed_by(self, config: TrialConfig) -> None:
        """Take note of where a trial that has not ended starts."""
        self._parents[config.number] = config.parent

    def after(self, result: TrialResult, dominated: list[int]) -> None:
        """Delete what is of no use after a trial has ended.

        Args:
            dominated: Numbers of the finished trials that have no place on the front any more.
        """
        self._folder.checkpoint_store.delete_training(result.number)
        self._parents.pop(result.number, None)
        if result.state != "finished":
            self._folder.checkpoint_store.delete(result.number)
        if self._keep_all:
            return
        self._dominated.update(dominated)
        for number in self._dominated - set(self._parents.values()):
            self._folder.checkpoint_store.delete(number)
            self._dominated.discard(number)
