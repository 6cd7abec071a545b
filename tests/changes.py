"""Callbacks that call a function at every change, as tests that interrupt a search or break something amid it need."""

from collections.abc import Callable
from typing import Any

from autoprune.search.callbacks import Callback, ReplicateFront, RunTrials, Stage


class OnChange(Callback):
    """Calls a function at every change while trials or replicates run.

    Args:
        on_trials: Called with the driver.
        on_replicates: Called with the replication.

    Attributes:
        driver, replication: What runs now; to be set where no search tells of its stages.
        stages: Every stage that was told, in words.
    """

    def __init__(
        self,
        on_trials: Callable[[Any], object] = lambda _: None,
        on_replicates: Callable[[Any], object] = lambda _: None,
    ) -> None:
        self._on_trials, self._on_replicates = on_trials, on_replicates
        self.stages: list[str] = []
        self.driver: Any = None
        self.replication: Any = None

    def on_stage(self, stage: Stage) -> None:
        self.stages.append(str(stage))
        self.driver = stage.study if isinstance(stage, RunTrials) else None
        self.replication = stage.replication if isinstance(stage, ReplicateFront) else None

    def on_trial_start(self, *_: object) -> None:
        self._changed()

    def on_epoch(self, *_: object) -> None:
        self._changed()

    def on_trial_end(self, *_: object) -> None:
        self._changed()

    def _changed(self) -> None:
        if self.driver is not None:
            self._on_trials(self.driver)
        if self.replication is not None:
            self._on_replicates(self.replication)
