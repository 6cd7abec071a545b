"""The tables that a running study keeps on disk: trials.parquet and front.parquet."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from autoprune.config import SearchConfig
from autoprune.study.final import final_front
from autoprune.study.folder import StudyFolder
from autoprune.study.front import Front
from autoprune.study.records import TrialTable
from autoprune.trial import TrialConfig, TrialResult

WRITE_INTERVAL_S = 5.0
"""Least time between two writes while trials run."""

WRITE_SHARE = 0.05
"""Most of the driver's time that writing may take: a large table is written more seldom."""


class StudyTables:
    """A row a trial that has ended, and those of the front.

    Args:
        groups: As :class:`TrialTable` takes them, and ``params`` too.
        front: Kept up to date by the caller.
    """

    def __init__(
        self, folder: StudyFolder, spec: SearchConfig, groups: Sequence[str], params: Mapping[str, str], front: Front
    ) -> None:
        self._folder, self._spec, self._front = folder, spec, front
        self._ended = TrialTable(groups, params)
        self._next_write = time.monotonic() + WRITE_INTERVAL_S

    def add(self, config: TrialConfig | None, result: TrialResult, source: Mapping[str, Any] | None = None) -> None:
        """Take in a trial that has ended, as :meth:`TrialTable.add` does."""
        self._ended.add(config, result, source)

    def frame(self) -> pd.DataFrame:
        """The trials now."""
        return self._ended.frame(self._front.members)

    def write(self) -> None:
        """Write both."""
        began = time.monotonic()
        frame = self.frame()
        self._folder.write_frame(self._folder.trials, frame)
        front = frame[frame["on_front"]].sort_values("accuracy", ascending=False)
        self._folder.write_frame(self._folder.front, final_front(self._folder, front, self._spec))
        ended = time.monotonic()
        self._next_write = ended + max(WRITE_INTERVAL_S, (ended - began) / WRITE_SHARE)

    def write_now_and_then(self) -> None:
        """Write both, if the last time is long enough ago."""
        if time.monotonic() >= self._next_write:
            self.write()
