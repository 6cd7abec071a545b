"""Live progress of a study: a table that is redrawn on a terminal, plain lines elsewhere."""

import time
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from autoprune.config.metric import MetricSpec
from autoprune.report.tables import front_table
from autoprune.search.callbacks import (
    Callback,
    ReplicateFront,
    ReplicationStatus,
    RunningReplication,
    RunningStudy,
    RunTrials,
    Stage,
)
from autoprune.study.exclusion import with_exclusions
from autoprune.study.status import SearchProgress
from autoprune.trial import EpochReport, TrialConfig, TrialResult

REDRAW_INTERVAL_S = 0.25
LINE_INTERVAL_S = 10.0


class Progress(Callback):
    """Shows how a study stands, as it changes.

    Args:
        console: Where to. If it is no terminal, a line is printed when a trial has ended, at most one in ten seconds.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._shown_at = 0.0
        self._shown_ended = 0
        self._stage: Stage | None = None

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def on_stage(self, stage: Stage) -> None:
        """Say what is being done before or after the trials."""
        before, self._stage = self._stage, stage
        self._shown_ended = 0
        if self._live:
            self._live.update(Text(f"{stage} ..."), refresh=True)
        elif type(stage) is not type(before) or time.monotonic() - self._shown_at >= LINE_INTERVAL_S:
            self._shown_at = time.monotonic()
            self._line(str(stage))

    def on_warning(self, message: str) -> None:
        """Print a warning, above what is redrawn."""
        self._line(f"warning: {message}")

    def on_trial_start(self, config: TrialConfig) -> None:
        self._update()

    def on_epoch(self, report: EpochReport) -> None:
        self._update()

    def on_trial_end(self, config: TrialConfig, result: TrialResult) -> None:
        self._update()

    def _update(self) -> None:
        """Show how the stage that runs jobs stands, if it is time."""
        if isinstance(self._stage, RunTrials):
            self._show_trials(self._stage.study)
        elif isinstance(self._stage, ReplicateFront):
            self._show_replicates(self._stage.replication)

    def _show_trials(self, study: RunningStudy) -> None:
        now = time.monotonic()
        if not self._is_time(now, study.n_ended, last=study.is_complete):
            return
        status = study.status()
        if self._live:
            self._live.update(_panel(study, status), refresh=True)
        else:
            self._line(_counts(status))

    def _show_replicates(self, replication: RunningReplication) -> None:
        now, status = time.monotonic(), replication.status()
        if not self._is_time(now, status.n_ended, last=status.n_ended == status.n_replicates):
            return
        if self._live:
            metric = replication.spec.metric
            running = [_run(f"trial {replicate}", report, metric) for replicate, report in status.running.items()]
            self._live.update(Group(Text(_replicates(status)), *running), refresh=True)
        else:
            self._line(_replicates(status))

    def _is_time(self, now: float, n_ended: int, *, last: bool) -> bool:
        """Whether to show a change; lines are printed only when something has ended."""
        if now - self._shown_at < (REDRAW_INTERVAL_S if self._live else LINE_INTERVAL_S) and not last:
            return False
        if not self._live and n_ended == self._shown_ended:
            return False
        self._shown_at, self._shown_ended = now, n_ended
        return True

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


def _panel(study: RunningStudy, status: SearchProgress) -> RenderableType:
    parts: list[RenderableType] = [Text(_counts(status))]
    for number, report in status.running.items():
        parts.append(_run(f"trial {number}", report, study.spec.metric))
    if status.front:
        frame = study.frame()
        front = with_exclusions(frame[frame["on_front"]], study.dense, study.spec)
        parts.append(front_table(front, study.dense, study.spec.objectives, study.spec.metric))
    return Group(*parts)


def _run(name: str, report: EpochReport | None, metric: MetricSpec) -> Text:
    if report is None:
        return Text(f"  {name}: starting")
    figure = f"{metric.name} {metric.text(report.metric)}"
    return Text(f"  {name}: epoch {report.epoch}, {figure}, lr {report.lr:.2g}, batch {report.batch_size}")


def _replicates(status: ReplicationStatus) -> str:
    text = f"certifying the front: {status.n_ended}/{status.n_replicates} runs, {len(status.running)} running"
    if status.n_failed:
        text += f", {status.n_failed} failed"
    if status.n_lost:
        text += f", {status.n_lost} given up with them"
    if status.time_left_s is not None and status.n_ended < status.n_replicates:
        text += f", {duration(status.time_left_s)} left"
    return text


def _counts(status: SearchProgress) -> str:
    if status.n_sensitivity_jobs_left:
        return f"measuring the sensitivity of the groups: {status.n_sensitivity_jobs_left} cuts left"
    done = status.n_finished + status.n_stopped + status.n_failed
    text = f"{done}/{status.n_trials} trials, {len(status.running)} running"
    if status.n_failed:
        text += f", {status.n_failed} failed"
    if status.n_infeasible:
        text += f", {status.n_infeasible} over a ceiling"
    if status.n_repeated:
        text += f", {status.n_repeated} repeated and not run"
    text += f", {len(status.front)} on the front, hypervolume {status.hypervolume:.4f}"
    if status.time_left_s is not None and done < status.n_trials:
        text += f", {duration(status.time_left_s)} left"
    return text


def duration(seconds: float) -> str:
    """A time in the two units that matter: ``45s``, ``3m 05s``, ``2h 10m``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
