"""One study, read from its folder: what was asked for, what came of it, and how it stands."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from autoprune.config import SearchConfig
from autoprune.pruning.plan import PruningPlan
from autoprune.study.dense_reference import DenseReference
from autoprune.study.epochs import read_epochs
from autoprune.study.exclusion import with_exclusions
from autoprune.study.folder import StudyFolder
from autoprune.study.lineage import lineage_steps
from autoprune.study.plan_file import read_plan_part
from autoprune.study.records import (
    CONFIG,
    CURVE,
    LADDER,
    LINEAGE_SIGN,
    ORIGIN,
    PARENT,
    RESULT,
    SOURCE,
    config_of,
    curve_of,
    result_of,
    source_of,
)
from autoprune.study.replication import replication_metrics
from autoprune.study.tables import DENSE, known_test_metric, with_test_metric
from autoprune.trial import TrialConfig, TrialResult

if TYPE_CHECKING:
    from autoprune.cost import CostTable
    from autoprune.study.optuna_private import StudyRecord
    from autoprune.study.status import StudyStatus

T = TypeVar("T")

KEYS = (CONFIG, RESULT, CURVE, SOURCE, PARENT, ORIGIN, LADDER)
"""User attributes of a trial that are read."""


@dataclass(frozen=True)
class StudyTrial:
    """One trial as the study's storage has it.

    Attributes:
        has_ended: Whether it is neither waiting nor running.
        user_attrs: Its record, by the names in :mod:`autoprune.study.records`.
    """

    number: int
    has_ended: bool
    user_attrs: Mapping[str, Any]

    @cached_property
    def config(self) -> TrialConfig | None:
        """What it was dispatched with; ``None`` if it never was."""
        return config_of(self)

    @cached_property
    def result(self) -> TrialResult | None:
        """How it ended; ``None`` if it has not."""
        return result_of(self)

    @property
    def curve(self) -> list[float]:
        """Metric after each of its epochs; empty where nothing was noted."""
        return curve_of(self)

    @property
    def source(self) -> Mapping[str, Any] | None:
        """The study and the trial that it was taken over from; ``None`` for a trial that this study ran."""
        return source_of(self)


class StudyReader:
    """Reads a study of ``results/``; each part when it is first asked for.

    Another process may be searching it. What came since is seen by a new reader.

    Args:
        root: The study's folder, ``results/NAME``.
        read_only: Whether a database that a crash left half written is refused instead of mended.

    Raises:
        StudyError: If there is no study, or a newer autoprune made it. Every method raises it where a file is missing
            or damaged.
    """

    def __init__(self, root: Path, *, read_only: bool = False) -> None:
        self._folder = StudyFolder.existing(root)
        self._folder.check_schema()
        self._read_only = read_only

    @property
    def root(self) -> Path:
        """The study's folder."""
        return self._folder.root

    @property
    def base_dir(self) -> Path:
        """The folder that the user's own modules are imported from."""
        return self._folder.base_dir

    @property
    def is_ready(self) -> bool:
        """Whether the dense network and the plan are done; before, there are no trials."""
        return self._folder.plan.exists()

    @property
    def config(self) -> SearchConfig:
        """The space file that the study was begun with; raises ConfigError if it can't be read."""
        return self._folder.config

    @cached_property
    def dense(self) -> DenseReference:
        """The dense network's figures."""
        return DenseReference.read(self._folder)

    @cached_property
    def plan(self) -> PruningPlan:
        """What of the network can be pruned."""
        return read_plan_part(self._folder.plan, "plan", PruningPlan.from_dict)

    @cached_property
    def cost_table(self) -> "CostTable":
        """The exact cost of every candidate; loads torch."""
        from autoprune.cost import CostTable

        return read_plan_part(self._folder.plan, "table", CostTable.from_dict)

    @cached_property
    def trials(self) -> tuple[StudyTrial, ...]:
        """All trials by number, those that wait or run among them."""
        return tuple(
            StudyTrial(trial.number, trial.state.is_finished(), trial.user_attrs) for trial in self._record.trials
        )

    @property
    def sensitivity(self) -> dict[int, float]:
        """Metric at each point of the sensitivity map that was measured so far."""
        path = self._folder.sensitivity
        return {int(index): value for index, value in self._folder.read_json(path).items()} if path.exists() else {}

    def frame(self) -> pd.DataFrame:
        """Read ``trials.parquet``, a row a trial that has ended, with the metric on the test split where it is known.

        Returns:
            Its columns, and ``metric.<name>_test``.
        """
        return with_test_metric(self._folder, self._table(self._folder.trials), self.config.metric)

    def front(self) -> pd.DataFrame:
        """Read ``front.parquet``: the non-dominated rows, with their test metric and what they hold over seeds.

        Returns:
            Its columns; ``excluded`` says why a point is passed over when one is chosen, and is missing where it isn't.
        """
        return with_exclusions(self._table(self._folder.front), self.dense, self.config)

    def front_lineages(self) -> dict[int, list[int]]:
        """Read what each trial of the front descends from: its number -> the trials' numbers, itself last."""
        front = self.front()
        lineages = (list(map(int, line.split(LINEAGE_SIGN))) for line in front["lineage"])
        return dict(zip(front["number"], lineages, strict=True))

    def test_metric(self, number: int | None) -> float | None:
        """Read a trial's metric on the test split, ``None`` where it was not measured.

        Args:
            number: ``None`` is the dense network.
        """
        return known_test_metric(self._folder).get(DENSE if number is None else str(number))

    def over_seeds(self, number: int) -> Mapping[str, Mapping[str, float]]:
        """Read what a trial of the front holds over seeds, as :func:`replication_metrics` gives it."""
        config = self.trials[number].config
        starts_at_dense = config is not None and config.parent is None
        return replication_metrics(self._folder, number, self.config.metric.name, starts_at_dense=starts_at_dense)

    def lineage(self, number: int) -> list[dict[str, Any]]:
        """Read every step that led to a trial's network, as :func:`lineage_steps` gives them."""
        return lineage_steps(self._folder, self.config, self.trials, number)

    def status(self) -> "StudyStatus":
        """Read how the study stands."""
        from autoprune.study.status import status_of

        return status_of(self._folder, self.config, self._record if self.is_ready else None)

    def has_network(self, number: int) -> bool:
        """Whether a trial's network is kept, in the folder or in the place that ``search.checkpoints`` names."""
        return self._folder.checkpoint_store.has_model(number)

    def has_local_network(self, number: int) -> bool:
        """Whether the folder itself holds a trial's network and record."""
        return self._folder.checkpoint_store.has_local_model(number)

    def network_folder(self, number: int | None) -> Path:
        """Return the folder of a trial's network, which is fetched if it is kept in another place.

        Args:
            number: ``None`` is the dense network.
        """
        if number is not None and not self.has_local_network(number):
            self._folder.checkpoint_store.fetch_model(number)
        return self._folder.model(number)

    def network_record(self, number: int) -> dict[str, Any]:
        """Read what lies beside a trial's network: its ``config`` and ``result``, and the ``source`` that it has."""
        self.network_folder(number)
        record: dict[str, Any] = self._folder.read_json(self._folder.record(number))
        return record

    def copy_network(self, number: int, target: Path) -> bool:
        """Copy a trial's network and its record to an empty folder.

        Returns:
            Whether it is there, whole. Another process may delete a network meanwhile.
        """
        return self._folder.checkpoint_store.copy_model(number, target)

    def epochs(self, run: int | str | None = None) -> pd.DataFrame:
        """Read what was kept of each epoch, as :func:`autoprune.study.epochs.read_epochs` gives it.

        Args:
            run: A trial's number, a replicate's name such as ``"3-seed0"``, or ``"dense"``; ``None`` reads all.
        """
        epochs = read_epochs(self._folder)
        return epochs if run is None else epochs[epochs["run"] == str(run)].reset_index(drop=True)

    def _table(self, path: Path) -> pd.DataFrame:
        """Read a table, with the columns of schema 1 as they are called now."""
        frame = self._folder.read_frame(path)
        if self._folder.schema == 1:
            frame.columns = frame.columns.str.replace(
                r"(^|\.)(accuracy(?:_test)?(?:_std)?)$", r"\1metric.\2", regex=True
            )
        return frame

    @cached_property
    def _record(self) -> "StudyRecord":
        from autoprune.study.optuna_storage import load_record

        search = self.config.search
        return load_record(self._folder, search.storage, self.config.study, KEYS, read_only=self._read_only)
