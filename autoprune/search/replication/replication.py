"""Gives the replicates of a front out to an engine, as the driver does with trials, and keeps what became of them."""

import math
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from autoprune.config import SearchConfig
from autoprune.search.callbacks import Callback, Callbacks, ReplicationStatus
from autoprune.search.replication.replicates import replicates_of
from autoprune.search.signals import SignalGuard
from autoprune.study.epochs import EpochLog
from autoprune.study.folder import StudyFolder
from autoprune.study.records import ancestors
from autoprune.trial import EpochReport, RunId, TrialConfig, TrialResult, result_from_dict, to_dict


class Replication:
    """The replicates that certify a front.

    A replicate that has ended is a file of its own: nothing is lost or done twice, whenever the process ends. Its
    network is kept only while a replicate that starts from it is still to be run; where one is needed that is gone, as
    after more trials, its replicate runs again for the network alone.

    Args:
        front: Numbers of the front's trials, all of which have ended.
        trials: Configurations of these and of all their ancestors, by number.
        callbacks: Told of every replicate.

    Attributes:
        stopped_because: Why no more are given out: ``search.max_failures`` in a row failed. No single one is to
            blame then, and the next command tries them again.
    """

    def __init__(
        self,
        folder: StudyFolder,
        spec: SearchConfig,
        front: Collection[int],
        trials: Mapping[int, TrialConfig],
        n_seeds: int,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.folder, self.spec = folder, spec
        self.stopped_because: str | None = None
        self._callbacks = Callbacks(callbacks)
        self._replicates = replicates_of(front, trials, n_seeds, spec.search.seed)
        self._parents = {run: config.parent_run for run, config in self._replicates.items()}
        self._ended: dict[RunId, TrialResult] = {}
        self._running: dict[RunId, EpochReport | None] = {}
        self._broken: set[RunId] = set()
        self._failures: list[RunId] = []
        self._first_epoch_at: float | None = None
        self._n_epochs_since = 0
        self._critical = SignalGuard()
        self._epochs = EpochLog(folder)
        folder.certification.mkdir(exist_ok=True)
        self._recall()

    @property
    def is_complete(self) -> bool:
        """Whether no replicate is left that can be run."""
        return not self._open()

    def suggest(self) -> TrialConfig | None:
        """The next replicate to run, or ``None`` if there is none to start now."""
        if self.stopped_because is not None:
            return None
        wanted = self._wanted()
        for run, config in self._replicates.items():
            if run in wanted and run not in self._running and self._can_start(config):
                self._running[run] = None
                config = replace(config, with_test=config.with_test and run not in self._ended)
                self._callbacks.on_trial_start(config)
                return config
        return None

    def report(self, report: EpochReport) -> bool:
        """Take note of a running replicate's last epoch; every one goes on to its end."""
        with self._critical:
            self._epochs.append(report)
        self._running[report.run] = report
        if self._first_epoch_at is None:
            self._first_epoch_at = time.monotonic()
        else:
            self._n_epochs_since += 1
        self._callbacks.on_epoch(report)
        return True

    def end_early(self, run: RunId) -> None:
        """No replicate is ended early."""
        raise NotImplementedError("a replicate goes on to its last epoch")

    def complete(self, result: TrialResult) -> None:
        """Write down how a replicate ended."""
        run = result.run
        with self._critical:
            self._running.pop(run, None)
            self.folder.checkpoint_store.refresh(run)
            result = self._take(result)
            self._failures = [*self._failures, run] if result.state == "failed" else []
            if len(self._failures) >= self.spec.search.max_failures:
                self._give_up(result)
            needed = {self._parents[each] for each in self._wanted()}
            for each in {run, self._parents[run]} - needed:
                if each is not None:
                    self.folder.checkpoint_store.delete(each)
        self._callbacks.on_trial_end(self._replicates[run], result)

    def fail(self, run: RunId, error: str) -> None:
        """Write down that a replicate's worker ended without a result."""
        self.complete(TrialResult(run, "failed", seed=self._replicates[run].seed, error=error))

    def stop(self, reason: str) -> None:
        """Give out no more replicates, for a reason that is no replicate's fault."""
        self.stopped_because = self.stopped_because or reason

    def release(self, run: RunId) -> None:
        """Put a running replicate back, to go on from its last epoch next time."""
        self._running.pop(run)

    def interrupt(self) -> None:
        """Put all running replicates back."""
        self._running.clear()

    def interruptible(self) -> AbstractContextManager[None]:
        """A context in which a signal raises KeyboardInterrupt, but never while a result is written."""
        return self._critical.catching()

    def hold_signals(self) -> None:
        """Take Ctrl-C, SIGTERM and SIGUSR1 over again, after a library has put its own handlers in place."""
        self._critical.install()

    def status(self) -> ReplicationStatus:
        """How the certification stands now."""
        states = [result.state for result in self._ended.values()]
        left = self._open()
        n_epochs_left = sum(self._replicates[run].epochs for run in left)
        n_epochs_left -= sum(report.epoch for run, report in self._running.items() if report and run in left)
        pace = None
        if self._first_epoch_at is not None and self._n_epochs_since:
            pace = (time.monotonic() - self._first_epoch_at) / self._n_epochs_since
        return ReplicationStatus(
            n_replicates=len(self._replicates),
            n_finished=states.count("finished"),
            n_failed=states.count("failed"),
            n_lost=len(self._replicates) - len(states) - len(left),
            running=dict(self._running),
            time_left_s=None if pace is None else pace * n_epochs_left,
        )

    def _open(self) -> set[RunId]:
        """Replicates that have not ended and can."""
        return {
            run for run in self._replicates if run not in self._ended and self._broken.isdisjoint(self._ancestors(run))
        }

    def _ancestors(self, run: RunId) -> list[RunId]:
        """Replicates that one starts from, its parent first."""
        return ancestors(self._parents, run)[-2::-1]

    def _wanted(self) -> set[RunId]:
        """Open replicates, and ended ones whose network is gone and needed for an open one."""
        wanted = self._open()
        for run in list(wanted):
            for ancestor in self._ancestors(run):
                if ancestor not in self._ended or self._has_network(ancestor):
                    break
                wanted.add(ancestor)
        return wanted

    def _has_network(self, run: RunId) -> bool:
        return self.folder.checkpoint_store.has_model(run)

    def _can_start(self, config: TrialConfig) -> bool:
        parent = config.parent_run
        return parent is None or (parent not in self._running and self._has_network(parent))

    def _take(self, result: TrialResult) -> TrialResult:
        """Note and write down a result, as it counts; that of a replicate that ran again for its network is known."""
        run = result.run
        if result.metric is not None and math.isnan(result.metric):
            result = replace(result, state="failed", error=f"the {self.spec.metric.name} is not a number")
        if run not in self._ended:
            record = {"config": to_dict(self._replicates[run]), "result": to_dict(result)}
            self.folder.write_json(self.folder.replicate(run), record)
        self._note(self._ended.get(run, result), broken=result.state != "finished")
        self.folder.checkpoint_store.delete_training(run)
        return result

    def _note(self, result: TrialResult, *, broken: bool) -> None:
        self._ended[result.run] = result
        if broken:
            self._broken.add(result.run)

    def _give_up(self, last: TrialResult) -> None:
        self.stop(
            f"{len(self._failures)} runs in a row failed, the last one ({last.run}): {last.error}. "
            "The same command tries them again."
        )
        for run in self._failures:
            if self._ended[run].state == "failed":  # else it ran again for its network, and its result stands
                self.folder.replicate(run).unlink(missing_ok=True)

    def _recall(self) -> None:
        """Take up what an earlier process has written, and delete what is of no more use."""
        for run in self._replicates:
            if self.folder.replicate(run).exists():
                result = result_from_dict(self.folder.read_json(self.folder.replicate(run))["result"])
                self._note(result, broken=result.state != "finished")
            elif self._has_network(run):  # it died before the result was taken
                self.folder.checkpoint_store.fetch_record(run)
                self._take(result_from_dict(self.folder.read_json(self.folder.record(run))["result"]))
        wanted = self._wanted()
        needed = wanted | {self._parents[run] for run in wanted}
        self.folder.checkpoint_store.delete_replicates({run for run in needed if run is not None})
