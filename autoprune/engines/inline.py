"""Trials one after another in this process: no Ray, a debugger works, and a seed gives the same study bit for bit."""

from autoprune.search.job_source import JobSource
from autoprune.search.prepare import PreparedStudy
from autoprune.search.resources import WorkerResources
from autoprune.study.exit_note import ExitNote
from autoprune.tasks.working_folder import working_in
from autoprune.trial import TrialResult, run_name
from autoprune.worker import Worker


def run_in_process(driver: JobSource, study: PreparedStudy, places: WorkerResources) -> None:
    """Run trials until the driver has no more to give; the space file's folder is the current directory meanwhile."""
    with working_in(study.folder.base_dir):
        run_inline(driver, Worker(study.folder, places.device, config=study.spec, task=study.task))


def run_inline(driver: JobSource, worker: Worker) -> None:
    """Run trials on a worker that is there already, until the driver has no more to give."""
    note = ExitNote(worker.folder.logs)
    while (config := driver.suggest()) is not None:
        with note.around(run_name(config.run)):
            for event in worker.run(config):
                if isinstance(event, TrialResult):
                    driver.complete(event)
                elif not driver.report(event):
                    driver.end_early(event.run)
                    break
