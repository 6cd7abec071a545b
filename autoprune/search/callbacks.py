"""What a search tells of itself while it runs: to the terminal, and to code of the user's own."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pandas as pd

from autoprune.config import SearchConfig
from autoprune.config.metric import MetricSpec
from autoprune.study.dense_reference import DenseReference
from autoprune.study.status import SearchProgress
from autoprune.trial import EpochReport, RunId, TrialConfig, TrialResult

if TYPE_CHECKING:
    from autoprune.search.run import Outcome

logger = logging.getLogger(__name__)


class RunningStudy(Protocol):
    """The study while its trials run, as a callback may look at it; a look costs nothing until it is taken."""

    spec: SearchConfig
    dense: DenseReference

    @property
    def n_ended(self) -> int:
        """Trials that have ended, infeasible ones among them."""

    @property
    def is_complete(self) -> bool:
        """Whether the study has its trials, or has spent its epochs."""

    def status(self) -> SearchProgress:
        """How the study stands now."""

    def frame(self) -> pd.DataFrame:
        """The trials that have ended, as in ``trials.parquet``."""


@dataclass(frozen=True)
class ReplicationStatus:
    """How a certification stands.

    Attributes:
        n_replicates: Replicates in all.
        n_lost: Replicates that can't be run, as an ancestor failed with their seed.
        running: Replicate -> its last epoch report, ``None`` before the first.
        time_left_s: Estimate from the pace since the first epoch of this command; ``None`` before the second.
    """

    n_replicates: int
    n_finished: int
    n_failed: int
    n_lost: int
    running: Mapping[RunId, EpochReport | None]
    time_left_s: float | None

    @property
    def n_ended(self) -> int:
        """Replicates of which nothing more is to come."""
        return self.n_finished + self.n_failed + self.n_lost


class RunningReplication(Protocol):
    """The replication of a front over seeds while it runs, as a callback may look at it."""

    spec: SearchConfig

    def status(self) -> ReplicationStatus:
        """How the replication stands now."""


@dataclass(frozen=True)
class Stage:
    """What a search does next; ``str(stage)`` says it in a few words. Every stage is a class of its own."""


@dataclass(frozen=True)
class TrainDense(Stage):
    """The dense network has been trained for one more epoch.

    Attributes:
        epoch: Epochs done, 1 after the first.
        n_epochs: Epochs in all.
        metric: The task's metric on the validation split.
        spec: The metric's name and direction.
    """

    epoch: int
    n_epochs: int
    metric: float
    spec: MetricSpec

    def __str__(self) -> str:
        figure = f"{self.spec.name} {self.spec.text(self.metric)}"
        return f"training the dense network: epoch {self.epoch} of {self.n_epochs}, {figure}"


@dataclass(frozen=True)
class MeasureDense(Stage):
    """The trained dense network is evaluated, saved and measured."""

    def __str__(self) -> str:
        return "measuring the dense network"


@dataclass(frozen=True)
class RankBlocks(Stage):
    """The blocks that the method ``layer`` may remove are ranked by importance."""

    def __str__(self) -> str:
        return "ranking the blocks"


@dataclass(frozen=True)
class TakeOverTrials(Stage):
    """Trials of the study that ``search.warm_start`` names are taken over.

    Attributes:
        n_trials: How many.
        source: That study's folder.
    """

    n_trials: int
    source: Path

    def __str__(self) -> str:
        return f"taking over {self.n_trials} trials of {self.source}"


@dataclass(frozen=True)
class RunTrials(Stage):
    """Trials run, after the jobs of the sensitivity map if the sampler wants one.

    Attributes:
        study: The study, to look at whenever a callback is told of something.
    """

    study: RunningStudy

    def __str__(self) -> str:
        return "starting the trials"


@dataclass(frozen=True)
class EvaluateFront(Stage):
    """The front's networks are evaluated on the test split."""

    def __str__(self) -> str:
        return "reading the test split for the front"


@dataclass(frozen=True)
class ReplicateFront(Stage):
    """The front's trials are trained again with other seeds.

    Attributes:
        replication: The replication, to look at whenever a callback is told of something.
    """

    replication: RunningReplication

    def __str__(self) -> str:
        return "certifying the front"


class Callback:
    """Hears what happens in a search. A subclass overrides what it wants to hear; the rest does nothing.

    The search calls it from its own process, between two messages of its workers: a slow callback slows the search
    down. Where trials run in this process too, the space file's folder is the current directory meanwhile. An exception
    in it is logged and ends nothing; KeyboardInterrupt and SystemExit end the search as ever. What an earlier command
    has told of the same study is not told again.

    Example:
        >>> class Metrics(Callback):
        ...     def __init__(self):
        ...         self.metrics = {}
        ...
        ...     def on_trial_end(self, config, result):
        ...         self.metrics[str(config.run)] = result.metric
        >>> heard = Metrics()

        ``run_search(space_file, results, engine, callbacks=[heard])`` then fills ``heard.metrics``.
    """

    def on_stage(self, stage: Stage) -> None:
        """Hear what the search does next."""

    def on_warning(self, message: str) -> None:
        """Hear of something that the search goes on with, but that the user should know, such as of the data."""

    def on_trial_start(self, config: TrialConfig) -> None:
        """Hear that a run is given to a worker: a trial, a sensitivity job or a replicate, as ``config.run`` says.

        A trial that goes on after an interrupt starts again.
        """

    def on_epoch(self, report: EpochReport) -> None:
        """Hear how a run stands after one more epoch.

        A run that goes on begins with the report of the epoch before it, which may have been heard already.
        """

    def on_trial_end(self, config: TrialConfig, result: TrialResult) -> None:
        """Hear how a run has ended; the study has it already.

        A candidate that is over a ceiling before it is trained ends as ``"infeasible"``, mostly without having started;
        one that an earlier trial has run ends as ``"repeated"``, without having started.
        """

    def on_front(self, front: Sequence[TrialResult]) -> None:
        """Hear that the front has changed.

        Args:
            front: The results of the trials on it, in no order.
        """

    def on_end(self, outcome: "Outcome") -> None:
        """Hear how the search has ended, unless by an error; everything is written."""


SILENT = Callback()
"""Hears everything and does nothing."""


class Callbacks(Callback):
    """Tells several callbacks of everything, in their order.

    Args:
        callbacks: An exception in one of them is logged, with its class and the traceback.
    """

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        self._callbacks = tuple(callbacks)

    def on_stage(self, stage: Stage) -> None:
        self._tell("on_stage", stage)

    def on_warning(self, message: str) -> None:
        self._tell("on_warning", message)

    def on_trial_start(self, config: TrialConfig) -> None:
        self._tell("on_trial_start", config)

    def on_epoch(self, report: EpochReport) -> None:
        self._tell("on_epoch", report)

    def on_trial_end(self, config: TrialConfig, result: TrialResult) -> None:
        self._tell("on_trial_end", config, result)

    def on_front(self, front: Sequence[TrialResult]) -> None:
        self._tell("on_front", front)

    def on_end(self, outcome: "Outcome") -> None:
        self._tell("on_end", outcome)

    def _tell(self, event: str, *told: object) -> None:
        for callback in self._callbacks:
            try:
                getattr(callback, event)(*told)
            except Exception:
                logger.exception("%s.%s failed; the search goes on.", type(callback).__name__, event)
