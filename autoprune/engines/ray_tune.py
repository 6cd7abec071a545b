"""Trials on Ray Tune, several at once, retried when a worker dies. Ray decides where they run, the driver what."""

import json
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autoprune.engines import ray_private, ray_start  # first: they set what Ray reads when it is imported

# isort: split
import ray
from ray import cloudpickle, tune
from ray.exceptions import RayError, RayTaskError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from autoprune.config import SearchConfig
from autoprune.engines.worker_exit import how_a_worker_died
from autoprune.engines.worker_output import WorkerOutput
from autoprune.errors import AutopruneError, StudyError, TaskError, UnwritableError, describe_error
from autoprune.search.job_source import JobSource
from autoprune.search.prepare import PreparedStudy
from autoprune.search.resources import WorkerResources, room
from autoprune.search.signals import Preempted, raise_when_preempted
from autoprune.study.exit_note import ExitNote, delete_exit_notes, exit_cause
from autoprune.study.folder import StudyFolder
from autoprune.trial import (
    RunId,
    TrialResult,
    config_from_dict,
    report_from_dict,
    result_from_dict,
    run_name,
    to_dict,
)

logger = logging.getLogger(__name__)

FIRST_STEP = "first step"
"""Name of the step that is made before the dense network is trained, as runs have names."""

GRACE_S = 10.0
"""How long after its timeout a trial that did not end by itself is killed with its process."""


def run_ray(driver: JobSource, study: PreparedStudy, places: WorkerResources, address: str | None = None) -> None:
    """Run trials until the driver has no more to give.

    Args:
        address: ``"auto"`` or ``"HOST:PORT"`` of a running Ray that this machine is a node of. All its nodes see the
            study's folder under the same path. ``None`` starts a Ray, and ends it after the trials.

    Raises:
        StudyError: If the Ray at the address can't be joined or has no room for a trial, or one that is started here
            lacks a custom resource.
    """
    scratch = tempfile.mkdtemp(prefix="autoprune-tune-", dir=None if address is None else study.folder.root)
    scheduler = _DriverScheduler(driver, study.folder.logs)
    try:
        if address is None:
            _check_custom(places)
            ray_start.start(places.workers)  # with one CPU for each worker, however many threads that has
            ray_private.use_the_processes_that_are_ready()
        workers = places.workers if address is None else _join(address, driver.spec, places)
        ray_private.leave_a_trial_to_the_worker_that_starts_for_it()
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(workers)  # else the processes start one after the other
        logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # the driver tells what failed, and why
        driver.hold_signals()  # Ray has put its own SIGTERM handler in place
        searcher = _DriverSearcher(driver, workers, scheduler)
        tuner = tune.Tuner(
            tune.with_resources(_TrialActor, places.per_trial if address else {**places.per_trial, "CPU": 1}),
            param_space={"folder": str(study.folder.root), "threads": places.threads},
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                storage_path=scratch,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=driver.spec.search.max_retries),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[_Watch(driver.spec.search.trial_timeout, scheduler.causes)],
            ),
        )
        tuner.fit()
        if not searcher.has_finished:  # Tune's own SIGUSR1 handler came first
            raise Preempted
    except _StudyLost as lost:
        raise lost.error from None
    except KeyboardInterrupt:
        driver.interrupt()  # at once: Ray takes a while to end, and a second Ctrl-C does not wait for it
        raise
    finally:
        ray.shutdown()
        delete_exit_notes(study.folder.logs)
        shutil.rmtree(scratch, ignore_errors=True)


def check_ray_worker(folder: StudyFolder, places: WorkerResources, address: str | None = None) -> None:
    """Start or join Ray, and make a first step of training in a process of it; Ray stays, for :func:`run_ray`.

    Args:
        folder: Of a study that has been begun.
        address: As :func:`run_ray` takes it.

    Raises:
        TaskError: If the step fails there, or the process dies.
        StudyError: As :func:`run_ray` raises it.
    """
    if address is None:
        _check_custom(places)
        ray_start.start(places.workers)
    else:
        _join(address, folder.config, places)
    raise_when_preempted()
    step = ray.remote(
        num_cpus=places.threads if address else 1,
        num_gpus=places.gpus_per_trial,
        resources=dict(places.custom),
        max_calls=1,  # trials get processes that have loaded nothing of the user's
        max_retries=0,
    )(_first_step)
    try:
        told = ray.get(step.remote(str(folder.root), places.threads))
    except RayError as error:
        died = how_a_worker_died(str(error), exit_cause(folder.logs, FIRST_STEP, is_gone=True))
        told = f"the worker process died: {died}"
    if told is not None:
        raise TaskError(
            told
            if told.startswith("task.")
            else f"the first step of training failed: {told.rstrip('.')}. Mend it: nothing has been trained yet."
        )


def _first_step(root: str, threads: int) -> str | None:
    import torch

    from autoprune.worker.first_step import try_first_step

    folder = StudyFolder(Path(root))
    note = ExitNote(folder.logs, take_traces=True)
    note.note_signals()
    WorkerOutput(folder.logs).begin(FIRST_STEP)
    note.begin(FIRST_STEP)
    torch.set_num_threads(threads)
    try:
        return try_first_step(folder, "cuda" if ray.get_gpu_ids() else "cpu")
    finally:
        note.end()


def _check_custom(places: WorkerResources) -> None:
    if places.custom:
        raise StudyError(
            f"resources.custom: {', '.join(places.custom)} must be resources of a Ray that is joined by --address, but "
            "this search starts a Ray of its own, which has none. Leave resources.custom out, or start Ray with "
            "`ray start --resources` and give --address."
        )


def _join(address: str, spec: SearchConfig, places: WorkerResources) -> int:
    """Join a running Ray, unless that is done; gives the number of trials that run at once on all of its nodes."""
    try:
        if not ray.is_initialized():
            if address != "auto":  # Ray ends the process where nobody listens
                host, _, port = address.rpartition(":")
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except SystemExit:  # Ray's own SIGTERM handler
        raise Preempted from None
    except (OSError, RuntimeError, ValueError) as error:
        raise StudyError(
            f"--address {address}: no Ray could be joined there: {describe_error(error)}. "
            "Start Ray on this machine with `ray start`, or leave --address out."
        ) from error
    workers, nodes = sum(rooms(places)), _nodes()
    if workers < 1:
        taken = {name: amount for name, amount in places.per_trial.items() if amount}
        told = "; ".join(_amounts({name: node.get(name, 0.0) for name in taken}) for node in nodes)
        raise StudyError(
            f"--address {address}: a trial needs {_amounts(taken)} on one node, the nodes have {told}. Start Ray with "
            "more, or lower `resources` in the space file."
        )
    asked = spec.resources.workers
    return workers if asked == "auto" else asked


def rooms(places: WorkerResources) -> list[int]:
    """How many trials each node of the Ray that is joined holds when it is empty."""
    return [room(node, places.per_trial) for node in _nodes()]


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _amounts(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {amount:g}" for name, amount in resources.items())


class _StudyLost(BaseException):
    """The driver can't go on. No Exception, so that Tune neither logs nor survives it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def _driver_acts() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _StudyLost(error) from error


class _DriverSearcher(Searcher):
    """Asks the driver for trials and tells it of results; knows nothing itself.

    Attributes:
        has_finished: The driver had no more to give.
    """

    def __init__(self, driver: JobSource, workers: int, scheduler: "_DriverScheduler") -> None:
        super().__init__(metric=None, mode=None)
        self._causes = scheduler.causes
        self._driver = driver
        self._workers = workers
        self.has_finished = False
        self._runs: dict[str, RunId] = {}

    def suggest(self, trial_id: str) -> Any:
        if len(self._runs) >= self._workers:
            return None
        with _driver_acts():
            self._driver.hold_signals()  # Tune has put its own SIGUSR1 handler in place
            config = self._driver.suggest()
        if config is None:
            self.has_finished = not self._runs
            return Searcher.FINISHED if self.has_finished else None
        self._runs[trial_id] = config.run
        return {"trial": json.dumps(to_dict(config))}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        run = self._runs.pop(trial_id)
        with _driver_acts():
            if result is not None and "trial_result" in result and not error:
                self._driver.complete(result_from_dict(json.loads(result["trial_result"])))
            elif result is not None and "epoch_report" in result and not error:
                self._driver.end_early(run)
            elif result is not None and "stop" in result:
                self._driver.stop(result["stop"])
                self._driver.release(run)
            else:
                self._driver.fail(run, self._causes.pop(trial_id, "the worker gave no result"))

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles the searcher into its own state, which nobody reads: the study is the truth."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the study is the truth."""


class _DriverScheduler(FIFOScheduler):
    """Tells the driver of every epoch and ends the trials that it stops; knows nothing itself.

    Attributes:
        causes: Trial id -> the cause of its failure, which Tune tells its scheduler but not its searcher.
    """

    def __init__(self, driver: JobSource, logs: Path) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._driver, self._logs = driver, logs
        self.causes: dict[str, str] = {}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if "epoch_report" in result:
            with _driver_acts():
                if not self._driver.report(report_from_dict(json.loads(result["epoch_report"]))):
                    return TrialScheduler.STOP
        return TrialScheduler.CONTINUE

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles the scheduler into its own state, which nobody reads: the study is the truth."""
        return {}

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        run = config_from_dict(json.loads(trial.config["trial"])).run
        cause = self._how_it_died(trial, run_name(run))
        delete_exit_notes(self._logs, run_name(run))  # else the next search would tell it as news
        self.causes.setdefault(trial.trial_id, cause)
        logger.warning("%s: %s", run_name(run), cause)

    def _how_it_died(self, trial: Trial, run: str) -> str:
        told = ""
        if trial.error_file is not None:  # of some errors Tune keeps the text alone; one text follows another
            told = Path(trial.error_file).read_text(errors="replace").rpartition("Failure # ")[2]
        if trial.pickled_error_file is not None:  # here at once; Tune's own way reads a copy that comes later
            error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
            if isinstance(error, RayTaskError) and str(error) in told:
                return f"the worker process raised {describe_error(error.cause)}"
        return f"the worker process died: {how_a_worker_died(told, exit_cause(self._logs, run, is_gone=True))}"


class _Watch(tune.Callback):
    """Kills the process of a trial that hangs where its own limit can't end it, and has it not tried again.

    Of a trial that has ended Tune keeps statistics of all that it reported, which nobody reads: they are let go.
    """

    def __init__(self, timeout_s: float | None, causes: dict[str, str]) -> None:
        self._timeout_s, self._causes = timeout_s, causes
        self._heard: dict[Trial, float] = {}
        self._ended: list[Trial] = []

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._heard[trial] = time.monotonic()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        self._heard[trial] = time.monotonic()

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._heard.pop(trial, None)
        self._ended.append(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._heard.pop(trial, None)
        self._ended.append(trial)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        for trial in self._ended:
            trial.run_metadata.metric_analysis.clear()
            trial.run_metadata.metric_n_steps.clear()
            trial.run_metadata.last_result = {}
        self._ended.clear()

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if self._timeout_s is None:
            return
        latest = time.monotonic() - self._timeout_s - GRACE_S
        for trial in [trial for trial, heard in self._heard.items() if heard < latest]:
            del self._heard[trial]
            self._causes[trial.trial_id] = (
                f"search.trial_timeout of {self._timeout_s:g} s is over, and its process, deaf to that, was killed"
            )
            trial.max_failures = 0
            if (actor := trial.temporary_state.ray_actor) is not None:
                ray.kill(actor)


class _TrialActor(tune.Trainable):
    """A worker process: one Worker for all the trials it is given.

    What keeps it from making ready, such as data that this machine lacks, is given back instead of a trial's events:
    trying again would not help, and no trial is to blame.
    """

    def setup(self, config: dict[str, Any]) -> None:
        import torch

        from autoprune.worker import Worker

        folder = StudyFolder(Path(config["folder"]))
        self._output = WorkerOutput(folder.logs)
        self._note = ExitNote(folder.logs, take_traces=True)
        self._note.note_signals()
        self._note.begin(run_name(config_from_dict(json.loads(config["trial"])).run))
        torch.set_num_threads(config["threads"])
        device = "cuda" if ray.get_gpu_ids() else "cpu"
        self._worker: Worker | None = None
        self._no_worker = ""
        try:
            self._worker = Worker(folder, device)
        except AutopruneError as error:
            self._no_worker = str(error)
        except Exception as error:
            self._no_worker = describe_error(error)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        if self._worker is None:
            self._note.end()
            return {"stop": f"a worker process could not make ready for trials: {self._no_worker}", "done": True}
        try:
            event = next(self._events)
        except UnwritableError as error:
            self._note.end()
            return {"stop": str(error), "done": True}
        if isinstance(event, TrialResult):
            self._note.end()
            return {"trial_result": json.dumps(to_dict(event)), "done": True}
        return {"epoch_report": json.dumps(to_dict(event))}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to save here: the trial itself writes a checkpoint after every epoch."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load here: the trial goes on from its own checkpoint."""

    def _begin(self, config: dict[str, Any]) -> None:
        if self._worker is not None:
            os.chdir(self._worker.folder.base_dir)  # Tune has gone to a folder of the trial's own
            trial = config_from_dict(json.loads(config["trial"]))
            self._note.begin(run_name(trial.run))
            self._output.begin(run_name(trial.run))
            self._events = self._worker.run(trial)
