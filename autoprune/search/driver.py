"""The driver: it alone owns the study. Engines ask it for trials and tell it what became of them."""

import bisect
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from autoprune.cost.table import CostTable
from autoprune.search.callbacks import Callback, Callbacks
from autoprune.search.candidates import Candidates
from autoprune.search.constraints import CostConstraints
from autoprune.search.failure_limit import FailureLimit
from autoprune.search.samplers.cost_aware import CostAwareSettings, SearchKnowledge
from autoprune.search.samplers.registry import (
    ladder_steps,
    wants_sensitivity,
)
from autoprune.search.sensitivity_jobs import SensitivityJobs
from autoprune.search.signals import SignalGuard
from autoprune.search.space import SearchSpace
from autoprune.search.stopping import should_stop
from autoprune.study.dense_reference import DenseReference
from autoprune.study.epochs import EpochLog
from autoprune.study.exit_note import delete_exit_notes, exit_cause
from autoprune.study.folder import StudyFolder
from autoprune.study.front import Front
from autoprune.study.optuna_private import read_trial, requeue, set_user_attr
from autoprune.study.optuna_storage import open_study
from autoprune.study.records import (
    CONSTRAINT,
    CURVE,
    LADDER,
    RESULT,
    RETRIES,
    TARGET,
    config_of,
    curve_of,
    result_of,
    source_of,
    target_of,
)
from autoprune.study.retention import CheckpointRetention
from autoprune.study.rungs import Rungs
from autoprune.study.status import SearchProgress
from autoprune.study.tables import StudyTables
from autoprune.trial import (
    EpochReport,
    RunId,
    SensitivityJob,
    TrialConfig,
    TrialResult,
    run_name,
    to_dict,
    trial_number,
)

logger = logging.getLogger(__name__)

_OPTUNA_STATE = {
    "finished": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "infeasible": TrialState.PRUNED,
    "repeated": TrialState.FAIL,  # no sampler learns from these
}


class Driver:
    """Suggests trials, takes their reports, and writes every change to the study before anyone acts on it.

    Args:
        folder: The study's folder, with its dense and plan stages done.
        n_trials: Trials that the study is to reach, from now on; ``None`` leaves it at what was said last, at first the
            space file's number.
        callbacks: Told of every trial and of the front.
        sampler_settings: What the sampler ``cost_aware`` is tuned by, in place of its own numbers.

    Raises:
        StudyError: If the storage can't be opened or is no study of ours.
    """

    def __init__(
        self,
        folder: StudyFolder,
        space: SearchSpace,
        table: CostTable,
        dense: DenseReference,
        n_trials: int | None = None,
        callbacks: Sequence[Callback] = (),
        sampler_settings: CostAwareSettings | None = None,
    ) -> None:
        self.folder, self.space, self.spec = folder, space, space.spec
        self.table, self.dense = table, dense
        self.stopped_because: str | None = None
        self._callbacks = Callbacks(callbacks)
        self._ceilings = CostConstraints(self.spec, table, dense)
        self._started = time.monotonic()
        self._n_told_now = 0
        self._failure_limit = FailureLimit(self.spec.search.max_failures)
        self._running: dict[int, optuna.Trial] = {}
        self._reports: dict[int, EpochReport | None] = {}
        self._configs: dict[RunId, TrialConfig] = {}
        self._epochs = EpochLog(folder)
        self._rungs = Rungs()
        self._critical = SignalGuard()
        self._candidates = Candidates(folder, space, self._ceilings)
        self._networks = CheckpointRetention(folder, keep_all=self._candidates.start == "nearest")
        self._sampler_settings = sampler_settings or CostAwareSettings()
        self._metric = self.spec.metric
        self.front = Front(self.spec.objectives, self._metric)
        self._tables = StudyTables(
            folder,
            self.spec,
            dense,
            [group.name for group in space.plan.groups],
            {dimension.name: dimension.column_type for dimension in space.dimensions()},
            self.front,
        )
        self._waiting: list[int] = []
        self._n_created = 0
        self._counts = dict.fromkeys(_OPTUNA_STATE, 0)
        self.n_epochs, self._max_epochs = 0, self.spec.search.epochs or math.inf
        self._n_taken_over = 0
        self._ceilings.check_reachable(space)
        self.study = open_study(
            folder, self.spec.search.storage, self.spec.study, self.spec.objectives, self.spec.directions
        )
        self.n_trials = target_of(self.study, self.spec.search.trials)
        if n_trials is not None and n_trials != self.n_trials:
            self.study.set_user_attr(TARGET, n_trials)
            self.n_trials = n_trials
        self._sensitivity_jobs = SensitivityJobs(folder, space, wanted=wants_sensitivity(self.spec, space.plan))
        self._reconcile()

    def suggest(self) -> TrialConfig | None:
        """The next trial to run, or ``None`` if there is none to start now.

        Before the first of them come the jobs of the sensitivity map, where the sampler wants one. Interrupted trials
        come next, under their old number. A candidate over a ceiling is told as infeasible, one that an earlier trial
        ran as repeated, and the sampler is asked again.
        """
        if self._sensitivity_jobs.n_left:
            job = None if self.stopped_because else self._sensitivity_jobs.next()
            if job is not None:
                self._configs[job.run] = job
                self._callbacks.on_trial_start(job)
            return job
        while self.stopped_because is None and self._wants_another:
            with self._critical:
                self.study.sampler = self._candidates.sampler_for(self._next_number(), self._knowledge)
                trial = self.study.ask()
                self._note_asked(trial.number)
                self._running[trial.number], self._reports[trial.number] = trial, None
                config = self._configure(trial)
                passed_over = self._candidates.passed_over(config)
                if passed_over is None:
                    self._candidates.began(config)
                else:
                    self._tell(passed_over, measured=False)
            if passed_over is None:
                self._callbacks.on_trial_start(config)
                return config
            self._callbacks.on_trial_end(config, passed_over)
        return None

    def report(self, report: EpochReport) -> bool:
        """Take note of a running trial's last epoch.

        Returns:
            Whether the trial is to go on; otherwise the engine ends it and calls :meth:`end_early`.
        """
        number = report.number
        self._reports[number] = report
        config = self._configs[number]
        curve = [*self._rungs.curve(number)[: report.epoch - 1], self._metric.score(report.metric)]
        with self._critical:
            self._epochs.append(report)
            self._running[number].set_user_attr(CURVE, [self._metric.value(score) for score in curve])
        self._rungs.record(number, config.epochs, self._ceilings.known_values(config.pruning), curve)
        goes_on = not (self.spec.search.stop_early and should_stop(self._rungs, number))
        self._callbacks.on_epoch(report)
        return goes_on

    def end_early(self, run: RunId) -> None:
        """Tell the study that a trial was stopped after its last reported epoch."""
        number = trial_number(run)
        report, config = self._reports[number], self._configs[number]
        assert report is not None
        parent = None if config.parent is None else result_of(read_trial(self.study, config.parent))
        self.complete(
            TrialResult(
                number,
                "stopped",
                metric=report.metric,
                loss=report.loss,
                cost=report.cost,
                kept=report.kept,
                removed_blocks=report.removed_blocks,
                epochs=report.epoch,
                epochs_lineage=report.epoch + (parent.epochs_lineage if parent else 0),
                train_time_s=report.train_time_s,
                seed=config.seed,
                error=f"stopped after epoch {report.epoch}: others were as good by then, at no more cost",
                device_batch=report.device_batch,
            )
        )

    def complete(self, result: TrialResult) -> None:
        """Tell the study how a trial ended, or take note of a sensitivity job."""
        if isinstance(result.run, SensitivityJob):
            with self._critical:
                self._sensitivity_jobs.take(result)
            self._callbacks.on_trial_end(self._configs.pop(result.run), result)
            return
        config, front = self._configs[result.number], set(self.front.members)
        with self._critical:
            result = self._tell(result, measured=True)
            self._tables.write_now_and_then()
        self._callbacks.on_trial_end(config, result)
        if front != self.front.members.keys():
            self._callbacks.on_front(tuple(self.front.members.values()))

    def fail(self, run: RunId, error: str) -> None:
        """Tell the study that a trial's worker ended without a result."""
        config, report = (self._configs.get(run), self._reports.get(run)) if isinstance(run, int) else (None, None)
        self.complete(
            TrialResult(
                run,
                "failed",
                epochs=report.epoch if report else 0,
                train_time_s=report.train_time_s if report else 0.0,
                seed=config.seed if config else 0,
                error=error,
                device_batch=report.device_batch if report else None,
            )
        )

    def stop(self, reason: str) -> None:
        """Give out no more trials, for a reason that is no trial's fault; running trials stay as they are."""
        self.stopped_because = self.stopped_because or reason

    def release(self, run: RunId) -> None:
        """Put a running trial back in the queue, to go on from its last epoch next time."""
        if isinstance(run, SensitivityJob):
            self._sensitivity_jobs.release(run)
            self._configs.pop(run, None)
            return
        number = trial_number(run)
        with self._critical:
            del self._running[number]
            requeue(self.study, number)
            bisect.insort(self._waiting, number)
            self._reports.pop(number)

    def interrupt(self) -> None:
        """Put the running trials back in the queue, to go on from their last epoch next time, and write the tables."""
        with self._critical:
            for number in list(self._running):
                self.release(number)
            self.write()

    def write(self) -> None:
        """Write trials.parquet and front.parquet."""
        self._tables.write()

    def frame(self) -> pd.DataFrame:
        """The study as a table, one row a trial that has ended."""
        return self._tables.frame()

    def interruptible(self) -> AbstractContextManager[None]:
        """A context in which Ctrl-C raises KeyboardInterrupt, but never in the middle of a change to the study.

        SIGTERM and SIGUSR1 raise its child Preempted. A second one ends the process at once.
        """
        return self._critical.catching()

    def hold_signals(self) -> None:
        """Take Ctrl-C, SIGTERM and SIGUSR1 over again, after a library has put its own handlers in place."""
        self._critical.install()

    @cached_property
    def _knowledge(self) -> SearchKnowledge:
        """What the sampler is told; complete when the sensitivity map is."""
        return SearchKnowledge(
            space=self.space,
            table=self.table,
            dense=self.dense,
            start=self._candidates.start,
            has_model=self.folder.checkpoint_store.has_model,
            budget_epochs=min(self._max_epochs, self.n_trials * math.sqrt(math.prod(self.space.epochs_range))),
            drop=self._sensitivity_jobs.drop(self._metric.unit(self.dense.metric)),
            scores_of=self._networks.scores_of,
            allowed=self._ceilings.allowed,
            n_taken_over=self._n_taken_over,
            settings=self._sampler_settings,
        )

    @property
    def n_told(self) -> int:
        """Trials that have ended and count towards ``n_trials``."""
        return self.n_ended - self._counts["infeasible"] - self._counts["repeated"]

    @property
    def is_complete(self) -> bool:
        """Whether the study has its trials, has spent its epochs, or has tried all that its space holds."""
        return self.n_told >= self.n_trials or self.n_epochs >= self._max_epochs or self.is_exhausted

    @property
    def is_exhausted(self) -> bool:
        """Whether the space seems to hold no candidate that was not run."""
        return self._candidates.exhausted and not self._running and not self._waiting

    @property
    def _wants_another(self) -> bool:
        if self._candidates.exhausted and not self._waiting:
            return False
        planned = self.n_epochs + sum(self._configs[number].epochs for number in self._running)
        return self.n_told + len(self._running) < self.n_trials and planned < self._max_epochs

    @property
    def n_ended(self) -> int:
        """Trials that have ended, infeasible and repeated ones among them."""
        return sum(self._counts.values())

    def status(self) -> SearchProgress:
        """How the study stands now."""
        left = self.n_trials - self.n_told
        pace = (time.monotonic() - self._started) / self._n_told_now if self._n_told_now else None
        return SearchProgress(
            n_trials=self.n_trials,
            n_finished=self._counts["finished"],
            n_stopped=self._counts["stopped"],
            n_failed=self._counts["failed"],
            n_infeasible=self._counts["infeasible"],
            n_repeated=self._counts["repeated"],
            n_waiting=len(self._waiting),
            n_sensitivity_jobs_left=self._sensitivity_jobs.n_left,
            running=dict(self._reports),
            front=tuple(sorted(self.front.members.values(), key=lambda each: -self._metric.score(each.metric or 0.0))),
            hypervolume=self.front.hypervolume(self.dense),
            time_left_s=None if pace is None else pace * left,
        )

    def _next_number(self) -> int:
        """The number that the next trial will have: the first in the queue, or a new one."""
        return self._waiting[0] if self._waiting else self._n_created

    def _note_asked(self, number: int) -> None:
        """Take a trial that runs now out of the queue."""
        self._waiting = [other for other in self._waiting if other != number]
        self._n_created = max(self._n_created, number + 1)

    def _configure(self, trial: optuna.Trial) -> TrialConfig:
        """The trial's configuration: the recorded one if it was dispatched before, else a new one, recorded now."""
        recorded = config_of(trial)
        if recorded is not None:
            logger.info("%s is given out again, to go on from its last epoch", run_name(trial.number))
        config = recorded or self._candidates.new(trial)
        self._configs[trial.number] = config
        self._networks.needed_by(config)
        return config

    def _tell(self, result: TrialResult, *, measured: bool) -> TrialResult:
        """Write down how a trial ended; gives the result as it counts."""
        number = result.number
        if result.state == "finished" and any(v != v for v in self.front.values(result)):
            result = TrialResult(number, "failed", seed=result.seed, error="an objective is not a number")
        trial = self._running[number]
        if self.spec.constraints.ceilings and CONSTRAINT not in read_trial(self.study, number).constraints:
            trial.set_constraint(CONSTRAINT, 1.0 if result.state == "infeasible" else 0.0)
        trial.set_user_attr(RESULT, json.dumps(to_dict(result)))
        self._tell_optuna(result)
        del self._running[number]
        self._reports.pop(number, None)
        if measured:
            self.folder.checkpoint_store.refresh(number)
        self._n_told_now += result.state not in ("infeasible", "repeated")
        self.stopped_because = self._failure_limit.after(result, measured=measured) or self.stopped_because
        self._take_in(self._configs.pop(number), result)
        return result

    def _tell_optuna(self, result: TrialResult) -> None:
        values = self.front.values(result) if result.state == "finished" else None
        self.study.tell(result.number, values, state=_OPTUNA_STATE[result.state])

    def _take_in(
        self, config: TrialConfig | None, result: TrialResult, source: Mapping[str, Any] | None = None
    ) -> None:
        """Count an ended trial, put it on the front if it belongs there, and drop the networks nobody needs.

        Args:
            source: Where it was taken over from, if it was: it then counts towards nothing, and is on the front only if
                its network is allowed here and kept.
        """
        if source is None:
            self._counts[result.state] += 1
            self.n_epochs += result.epochs
        else:
            self._n_taken_over += 1
        if config is not None:
            self._candidates.ended(config, result)
        self._epochs.end(str(result.number))
        self._tables.add(config, result, source)
        dominated = []
        if result.state == "finished" and result.metric is not None:
            self._rungs.record_end(result.number, self._metric.score(result.metric))
            if source is None or (source["allowed"] and self.folder.checkpoint_store.has_model(result.number)):
                dominated = self.front.add(result)
        self._networks.after(result, dominated)

    def _reconcile(self) -> None:
        """Bring a study that may have died anywhere back to a sound state: nothing lost, nothing left running."""
        trials = self.study.get_trials(deepcopy=False)
        configs = {trial.number: config_of(trial) for trial in trials}
        for trial in trials:
            config = configs[trial.number]
            if config is not None:
                self._recall(trial, config)
        for trial in trials:
            result = result_of(trial)
            config = configs[trial.number]
            has_run = result is None or result.state not in ("infeasible", "repeated")
            is_here = source_of(trial) is None or self.folder.checkpoint_store.has_model(trial.number)
            if config is not None and has_run and is_here:
                self._candidates.began(config)
            if trial.state.is_finished():
                if result is not None:
                    self._take_in(configs[trial.number], result, source_of(trial))
            elif result is not None:  # died between the record and the telling
                self._tell_optuna(result)
                self._take_in(configs[trial.number], result)
            elif trial.state == TrialState.RUNNING:
                self._retry(trial)
        present = {trial.user_attrs[LADDER] for trial in trials if LADDER in trial.user_attrs}
        for ratio, params in self.space.ladder(ladder_steps(self.spec, self.space.plan)).items():
            if ratio not in present:
                self.study.enqueue_trial(params, user_attrs={LADDER: ratio})
        delete_exit_notes(self.folder.logs)
        trials = self.study.get_trials(deepcopy=False)
        self._waiting = [trial.number for trial in trials if trial.state == TrialState.WAITING]
        self._n_created = len(trials)

    def _recall(self, trial: FrozenTrial, config: TrialConfig) -> None:
        """Take up what an earlier process knew of a trial: where it starts, and how it stood after each epoch."""
        if not trial.state.is_finished():
            self._networks.needed_by(config)
        curve = [self._metric.score(value) for value in curve_of(trial)]
        if curve:
            self._rungs.record(trial.number, config.epochs, self._ceilings.known_values(config.pruning), curve)

    def _retry(self, trial: FrozenTrial) -> None:
        cause = exit_cause(self.folder.logs, run_name(trial.number))
        how = "" if cause is None else f", the last time by {cause}"
        retries = int(trial.user_attrs.get(RETRIES, 0)) + 1
        set_user_attr(self.study, trial.number, RETRIES, retries)
        if retries <= self.spec.search.max_retries:
            requeue(self.study, trial.number)
            told = run_name(trial.number), "" if cause is None else f" by {cause}", retries
            logger.info("%s ran when the last process died%s: it waits for retry %d", *told)
            return
        config = config_of(trial)
        error = f"the process died {retries} time{'s' if retries > 1 else ''} while this trial ran{how}"
        result = TrialResult(trial.number, "failed", seed=config.seed if config else 0, error=error)
        set_user_attr(self.study, trial.number, RESULT, json.dumps(to_dict(result)))
        self._tell_optuna(result)
        logger.warning("%s failed: %s", run_name(trial.number), error)
        self._take_in(config, result)
