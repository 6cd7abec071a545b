"""How a study stands: read from its storage, and told by the driver of a running search."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autoprune.config import SearchConfig
from autoprune.config.metric import MetricSpec
from autoprune.study.dense_reference import DenseReference
from autoprune.study.exit_note import exit_causes
from autoprune.study.folder import StudyFolder
from autoprune.study.optuna_private import StudyRecord, TrialRecord
from autoprune.study.records import curve_of, planned_epochs_of, result_of, source_of, target_of
from autoprune.study.replication import replicate_results
from autoprune.study.rungs import Rung, Rungs
from autoprune.trial import EpochReport, TrialResult, run_name


@dataclass(frozen=True)
class StudyStatus:
    """How a study stands.

    Attributes:
        metric: Name and direction of what networks are judged by.
        is_ready: Whether the dense network and the plan are done; before, there are no trials.
        n_trials: Trials asked for; infeasible and repeated ones do not count.
        n_ended: Trials that have ended and count.
        counts: State -> trials: how they ended, ``"running"`` (or cut off by a crash) and ``"waiting"``.
        failures: Number of a failed trial -> its cause.
        first_cause: Number of the first trial that failed and its cause; where none failed, of the first that was over
            a ceiling or stopped.
        epochs: Epochs of all trials, those of stopped and failed ones among them.
        epochs_dense: Epochs of the dense network.
        stop_early: Whether trials are stopped early.
        rungs: How far each epoch tells the end.
        warm_start: The study that trials were taken over from.
        n_taken_over: Trials taken over.
        deaths: Run that was cut off, such as ``"trial 3"`` or ``"dense network"`` -> how its process died.
        n_certified: Runs of the certification that have finished.
        failed_repeats: File of a failed run of the certification -> its cause.
    """

    study: str
    metric: MetricSpec
    is_ready: bool
    n_trials: int
    n_ended: int
    counts: Mapping[str, int]
    failures: Mapping[int, str | None]
    first_cause: tuple[int, str | None] | None
    epochs: int
    epochs_dense: int
    stop_early: bool
    rungs: tuple[Rung, ...]
    warm_start: str | None
    n_taken_over: int
    deaths: Mapping[str, str]
    n_certified: int
    failed_repeats: Mapping[str, str | None]

    @property
    def has_failed(self) -> bool:
        """Whether trials of its own have ended, none of them finished, and none runs any more."""
        has_ended = any(self.counts[state] for state in ("stopped", "failed", "infeasible"))
        return has_ended and not self.counts["finished"] and not self.counts["running"]


@dataclass(frozen=True)
class SearchProgress:
    """How a running search stands, for a progress display.

    Attributes:
        n_trials: Trials asked for; infeasible and repeated ones do not count.
        n_sensitivity_jobs_left: Points of the sensitivity map that are still to be measured.
        running: Trial number -> its last epoch report, ``None`` before the first.
        hypervolume: As :meth:`autoprune.study.front.Front.hypervolume` gives it.
        time_left_s: Estimate from the pace since this command started; ``None`` before the first trial ended.
    """

    n_trials: int
    n_finished: int
    n_stopped: int
    n_failed: int
    n_infeasible: int
    n_repeated: int
    n_waiting: int
    n_sensitivity_jobs_left: int
    running: Mapping[int, EpochReport | None]
    front: tuple[TrialResult, ...]
    hypervolume: float
    time_left_s: float | None


def status_of(folder: StudyFolder, spec: SearchConfig, record: StudyRecord | None) -> StudyStatus:
    """Count how a study stands.

    Args:
        record: Its trials with config, result, curve and source; ``None`` before the plan is done.
    """
    is_ready, study = record is not None, record or StudyRecord({}, ())
    trials = study.trials
    known = {trial.number: result for trial in trials if (result := result_of(trial)) is not None}
    own = [trial.number for trial in trials if source_of(trial) is None]
    results = [known[number] for number in own if number in known]
    counts = Counter(result.state for result in results)
    replicates = replicate_results(folder).values()
    still_open = Counter(trial.state.name.lower() for trial in trials if not trial.state.is_finished())
    return StudyStatus(
        study=spec.study,
        metric=spec.metric,
        is_ready=is_ready,
        n_trials=target_of(study, spec.search.trials),
        n_ended=len(results) - counts["infeasible"] - counts["repeated"],
        counts={name: counts[name] for name in ("finished", "stopped", "failed", "infeasible", "repeated")}
        | {name: still_open[name] for name in ("running", "waiting")},
        failures={result.number: result.error for result in results if result.state == "failed"},
        first_cause=_first_cause(results),
        epochs=sum(result.epochs for result in results),
        epochs_dense=DenseReference.read(folder).epochs if is_ready else 0,
        stop_early=spec.search.stop_early,
        rungs=tuple(_rungs(trials, known, spec.metric).reached()),
        warm_start=spec.search.warm_start,
        n_taken_over=len(trials) - len(own),
        deaths=_deaths(folder, trials),
        n_certified=sum(result.state == "finished" for result in replicates),
        failed_repeats={
            str(folder.replicate(result.run)): result.error for result in replicates if result.state != "finished"
        },
    )


def _deaths(folder: StudyFolder, trials: Iterable[TrialRecord]) -> dict[str, str]:
    ended = {run_name(trial.number) for trial in trials if trial.state.is_finished()}
    return {run: cause for run, cause in exit_causes(folder.logs).items() if run not in ended}


def _first_cause(results: Iterable[TrialResult]) -> tuple[int, str | None] | None:
    left = [result for result in results if result.state != "finished"]
    first = min(left, key=lambda result: (result.state != "failed", result.number), default=None)
    return None if first is None else (first.number, first.error)


def _rungs(trials: Iterable[TrialRecord], results: Mapping[int, TrialResult], metric: MetricSpec) -> Rungs:
    """What the trials' curves say, without their costs, which do not count here."""
    rungs = Rungs()
    for trial in trials:
        epochs, result, curve = planned_epochs_of(trial), results.get(trial.number), curve_of(trial)
        if epochs is None or not curve:
            continue
        rungs.record(trial.number, epochs, (), [metric.score(value) for value in curve])
        if result is not None and result.state == "finished" and result.metric is not None:
            rungs.record_end(trial.number, metric.score(result.metric))
    return rungs
