"""The tables of a study, trials.parquet and front.parquet, and what is added to the front after the search."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from autoprune.config import SearchConfig
from autoprune.config.metric import MetricSpec
from autoprune.study.dense_reference import DenseReference
from autoprune.study.epochs import EpochTable
from autoprune.study.exclusion import with_exclusions
from autoprune.study.folder import StudyFolder
from autoprune.study.front import Front
from autoprune.study.records import TrialTable
from autoprune.study.replication import with_replication
from autoprune.trial import TrialConfig, TrialResult

WRITE_INTERVAL_S = 5.0
"""Least time between two writes while trials run."""

WRITE_SHARE = 0.05
"""Most of the driver's time that writing may take: a large table is written more seldom."""

DENSE = "dense"
"""Key of the dense network's metric on the test split."""


class StudyTables:
    """A row a trial that has ended, those of the front, and a row an epoch.

    Args:
        groups: As :class:`TrialTable` takes them, and ``params`` too.
        front: Kept up to date by the caller.
    """

    def __init__(
        self,
        folder: StudyFolder,
        spec: SearchConfig,
        dense: DenseReference,
        groups: Sequence[str],
        params: Mapping[str, str],
        front: Front,
    ) -> None:
        self._folder, self._spec, self._dense, self._front = folder, spec, dense, front
        self._ended = TrialTable(groups, params, spec.metric)
        self._epochs = EpochTable(folder)
        self._next_write = time.monotonic() + WRITE_INTERVAL_S

    def add(self, config: TrialConfig | None, result: TrialResult, source: Mapping[str, Any] | None = None) -> None:
        """Take in a trial that has ended, as :meth:`TrialTable.add` does."""
        self._ended.add(config, result, source)

    def frame(self) -> pd.DataFrame:
        """The trials now."""
        return self._ended.frame(self._front.members)

    def write(self) -> None:
        """Write all three."""
        began = time.monotonic()
        frame = self.frame()
        self._folder.write_frame(self._folder.trials, frame)
        front = best_first(frame[frame["on_front"]], self._spec.metric)
        self._folder.write_frame(self._folder.front, final_front(self._folder, front, self._spec, self._dense))
        self._epochs.write()
        ended = time.monotonic()
        self._next_write = ended + max(WRITE_INTERVAL_S, (ended - began) / WRITE_SHARE)

    def write_now_and_then(self) -> None:
        """Write all three, if the last time is long enough ago."""
        if time.monotonic() >= self._next_write:
            self.write()


def best_first(frame: pd.DataFrame, metric: MetricSpec) -> pd.DataFrame:
    """Sort rows of ``trials.parquet`` by the metric."""
    return frame.sort_values(metric.column, ascending=metric.is_minimized)


def known_test_metric(folder: StudyFolder) -> dict[str, float]:
    """What was read of the test split so far: ``"dense"`` or trial number, as text -> metric."""
    known: dict[str, float] = folder.read_json(folder.test) if folder.test.exists() else {}
    return known


def final_front(folder: StudyFolder, front: pd.DataFrame, spec: SearchConfig, dense: DenseReference) -> pd.DataFrame:
    """The front's rows of ``trials.parquet``, with what is passed over, and what came in after the search.

    That is the metric on the test split and what the points hold over seeds, as far as they are known.
    """
    front = with_exclusions(front, dense, spec)
    return with_replication(folder, with_test_metric(folder, front, spec.metric), spec.objectives, spec.metric)


def with_test_metric(folder: StudyFolder, front: pd.DataFrame, metric: MetricSpec) -> pd.DataFrame:
    """The front with the column ``metric.<name>_test``, missing where the test split has not been read yet."""
    known = known_test_metric(folder)
    column = pd.Series([known.get(str(number)) for number in front["number"]], index=front.index, dtype="float64")
    return front.assign(**{metric.test_column: column})
