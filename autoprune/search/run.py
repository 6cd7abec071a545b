"""A whole search: check, prepare, run trials on an engine, and read the test split at the end."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from autoprune.config import SpaceFile
from autoprune.errors import TaskError, UnwritableError
from autoprune.files import remove_unfinished
from autoprune.search.callbacks import (
    Callback,
    Callbacks,
    EvaluateFront,
    ReplicateFront,
    RunTrials,
    TakeOverTrials,
)
from autoprune.search.driver import Driver
from autoprune.search.final_evaluation import evaluate_on_test
from autoprune.search.job_source import JobSource
from autoprune.search.log import SearchLog
from autoprune.search.prepare import PreparedStudy, begin_study, in_stage, prepare_study
from autoprune.search.replication.replication import Replication
from autoprune.search.resources import WorkerResources, find_worker_resources
from autoprune.search.signals import handlers_restored
from autoprune.search.study_data import check_same_data, check_study_data, keep_study_data
from autoprune.search.validate import (
    ValidatedSpace,
    check_prunable,
    check_same_study,
    in_file,
    read_space,
    validate_space,
)
from autoprune.search.warm_start import WHERE, check_same_network, find_source, take_over
from autoprune.study.checkpoints.remote_store import RemoteLocation
from autoprune.study.database import Database
from autoprune.study.folder import StudyFolder
from autoprune.study.logs import delete_old_worker_logs
from autoprune.study.optuna_storage import storage_error
from autoprune.study.records import config_of
from autoprune.tasks.working_folder import working_in
from autoprune.training.precision import Precision
from autoprune.worker.first_step import take_first_step

NOT_LOST = "No trial is lost; the same command goes on."

Engine = Callable[[JobSource, PreparedStudy, WorkerResources], None]
"""Runs trials, or replicates of them, until there are no more to give."""


@runtime_checkable
class RemoteEngine(Protocol):
    """An engine whose trials run in other processes: it can make a first step of training in one."""

    def __call__(self, source: JobSource, study: PreparedStudy, places: WorkerResources, /) -> None:
        """Run trials."""

    def check_worker(self, folder: StudyFolder, places: WorkerResources) -> None:
        """Make the step; raises TaskError if it fails."""

    def close(self) -> None:
        """End what was started for the step, if it runs still."""


@dataclass(frozen=True)
class Outcome:
    """How a search ended.

    Attributes:
        driver: The study as it stands; ``driver.stopped_because`` tells of too many failures.
        was_complete: The study had all its trials before.
        interrupt: What ended it, if a signal did.
        certification: How the front was certified, if it came to that.
        test_error: Why the front could not be evaluated on the test split, if so; it is written without.
    """

    session: PreparedStudy
    driver: Driver
    was_complete: bool
    interrupt: KeyboardInterrupt | None
    certification: Replication | None = None
    test_error: str | None = None

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended it."""
        return self.interrupt is not None

    @property
    def stopped_because(self) -> str | None:
        """Why the search or the certification gave up."""
        certification = self.certification
        return self.driver.stopped_because or (certification.stopped_because if certification else None)


def run_search(
    space: Path | SpaceFile,
    results: Path,
    engine: Engine,
    n_trials: int | None = None,
    callbacks: Sequence[Callback] = (),
) -> Outcome:
    """Run the study of a space file, or go on with it, until it has its trials or a signal comes.

    Then, if the space file says so, certify its front.

    Nothing is written before the space file and all that it names were tried.

    Args:
        space: The space file, read before or to be read.
        results: Folder that holds the studies.
        n_trials: Trials that the study is to reach; ``None`` takes the space file's.
        callbacks: Told of all that happens, in this order.

    Raises:
        AutopruneError: If the space file, the task, the study or the folder can't be used.
    """
    with handlers_restored():
        file = space if isinstance(space, SpaceFile) else read_space(space)
        callback = Callbacks([SearchLog(), *callbacks])
        outcome = _run_search(file, results, engine, n_trials, callback)
        callback.on_end(outcome)
    return outcome


def _run_search(
    file: SpaceFile,
    results: Path,
    engine: Engine,
    n_trials: int | None,
    callback: Callback,
) -> Outcome:
    spec = file.config
    folder = StudyFolder(results / spec.study, spec)
    folder.check_resumable()
    check_same_study(folder, file)
    with in_file(file.path):
        places = find_worker_resources(spec.resources)
        if spec.search.storage is not None:
            Database.named(spec.search.storage).check()
        source = find_source(spec, file.base_dir, folder)
    checked = validate_space(file, folder.plan, source.study.network_folder(None) if source else None)
    with in_file(file.path):
        check_prunable(checked)
        if source is not None:
            check_same_network(source, checked)
            check_same_data(source.study.root, checked, WHERE)
        report = check_study_data(checked, folder)
    if spec.search.checkpoints is not None:
        with in_file(file.path):
            RemoteLocation.named(spec.search.checkpoints).check()
    folder.create()
    with folder.lock(), _storage_errors(folder, spec.search.storage), ExitStack() as stack:
        remove_unfinished(folder.root)
        delete_old_worker_logs(folder.logs)
        keep_study_data(report, checked, folder, callback)
        _check_worker(engine, checked, folder, places, stack)
        session = prepare_study(checked, folder, places, callback)
        if source is not None:
            callback.on_stage(TakeOverTrials(len(source.trials), source.study.root))
            with in_file(file.path):
                take_over(source, session, places)
        driver = Driver(folder, session.space, session.table, session.dense, n_trials, [callback])
        was_complete = driver.is_complete
        certification, interrupt, test_error = None, None, None
        if not was_complete:
            callback.on_stage(RunTrials(driver))
            interrupt = _run_until_interrupt(engine, driver, session, places)
        driver.interrupt()
        if interrupt is None and driver.stopped_because is None:
            callback.on_stage(EvaluateFront())
            front = driver.frame()
            try:
                with in_stage("reading the test split", NOT_LOST), working_in(file.base_dir):
                    evaluate_on_test(
                        folder, session.task, front[front["on_front"]], places.device, Precision.of(spec.training)
                    )
            except TaskError as error:  # the front is there without it
                test_error = str(error) if NOT_LOST in str(error) else f"{error} {NOT_LOST}"
            for number in driver.front.members:
                folder.checkpoint_store.fetch_model(number)
            driver.write()
            if spec.certify is not None and test_error is None:
                certification = _replication(driver, spec.certify.seeds, callback)
                if not certification.is_complete:
                    callback.on_stage(ReplicateFront(certification))
                    interrupt = _run_until_interrupt(engine, certification, session, places)
                driver.write()
    return Outcome(session, driver, was_complete, interrupt, certification, test_error)


def _check_worker(
    engine: Engine, checked: ValidatedSpace, folder: StudyFolder, places: WorkerResources, stack: ExitStack
) -> None:
    """Make a first step of training where trials will run, unless the dense network has been trained before.

    Args:
        stack: Ends what the engine has started for it, if the engine does not come to that itself.
    """
    if folder.reference.exists():
        return
    begin_study(checked, folder)
    with in_file(checked.file.path):
        if isinstance(engine, RemoteEngine):
            stack.callback(engine.close)
            engine.check_worker(folder, places)
            return
        stage = in_stage("the first step of training", "Mend it: nothing has been trained yet.")
        with stage, working_in(checked.file.base_dir):
            take_first_step(checked.spec, checked.task, places.device)


@contextmanager
def _storage_errors(folder: StudyFolder, url: str | None) -> Iterator[None]:
    """Tell what keeps the study from being written."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError, OSError) as error:
        raise storage_error(folder, url, error) from error


def _run_until_interrupt(
    engine: Engine, source: JobSource, study: PreparedStudy, places: WorkerResources
) -> KeyboardInterrupt | None:
    """Let an engine run to its end; gives the interrupt that came before, if one did."""
    try:
        with source.interruptible():
            engine(source, study, places)
    except KeyboardInterrupt as interrupt:
        return interrupt.with_traceback(None)  # lets go of the run's frames
    except UnwritableError:
        source.interrupt()
        raise
    return None


def _replication(driver: Driver, n_seeds: int, callback: Callback) -> Replication:
    configs = ((trial.number, config_of(trial)) for trial in driver.study.get_trials(deepcopy=False))
    trials = {number: config for number, config in configs if config is not None}
    return Replication(driver.folder, driver.spec, driver.front.members, trials, n_seeds, [callback])
