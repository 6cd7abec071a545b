"""`autoprune search`: run a study, or go on with one."""

from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoprune.errors import TaskError, describe_error, is_interrupt
from autoprune.search.signals import exit_code, handlers_restored, ignore_at_exit, raise_when_preempted

if TYPE_CHECKING:
    from rich.console import Console

    from autoprune.config import SpaceFile
    from autoprune.search.driver import Driver
    from autoprune.search.prepare import PreparedStudy
    from autoprune.search.run import Engine as Runner


class Engine(StrEnum):
    """Where trials run."""

    ray = "ray"
    inline = "inline"


def search(
    space: Annotated[Path, typer.Argument(help="The space file.", show_default=False)],
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials the study is to reach; the space file's number if left out.")
    ] = None,
    engine: Annotated[Engine, typer.Option(help="ray: trials in parallel; inline: in this process.")] = Engine.ray,
    address: Annotated[
        str | None, typer.Option(help="A running Ray to join, auto or HOST:PORT; one is started here if left out.")
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder that holds the studies.")] = Path("results"),
) -> None:
    """Search for the best pruned networks; go on where an earlier run stopped."""
    from autoprune.engines import load_engine, started_early
    from autoprune.report.console import make_console

    console = make_console()
    try:
        with handlers_restored():
            raise_when_preempted()
            runner = load_engine(engine, address)
            file = _read(space)
            with started_early(engine, address, file, results):
                _search(console, file or space, trials, runner, results)
    except KeyboardInterrupt as interrupt:
        if not is_interrupt(interrupt):
            raise TaskError(f"the user's code raised {describe_error(interrupt)}.") from interrupt
        console.print("interrupted; the same command goes on.")
        raise typer.Exit(exit_code(interrupt)) from None
    finally:
        ignore_at_exit()


def _read(space: Path) -> "SpaceFile | None":
    """Read the space file; ``None`` if it has mistakes, which the search tells together with those of its task."""
    from autoprune.config import read_space_file
    from autoprune.errors import ConfigError

    try:
        return read_space_file(space)
    except ConfigError:
        return None


def _search(console: "Console", space: "Path | SpaceFile", trials: int | None, engine: "Runner", results: Path) -> None:
    from autoprune.cli.progress import Progress
    from autoprune.errors import StudyError, TaskError
    from autoprune.report.console import make_console
    from autoprune.report.ending import certification_failures, failed_trials, nothing_finished
    from autoprune.search.run import run_search
    from autoprune.study.exit_note import exit_causes
    from autoprune.study.folder import StudyFolder
    from autoprune.study.reader import StudyReader

    if not isinstance(space, Path):
        for run, cause in exit_causes(StudyFolder(results / space.config.study).logs).items():
            console.print(f"the last process died ({run}): {cause}", soft_wrap=True)
    with Progress(console) as progress, _logged(space, results):
        outcome = run_search(
            space,
            results,
            engine,
            trials,
            [progress],
        )
    driver = outcome.driver
    status = StudyReader(driver.folder.root).status()
    if driver.front.members or not status.has_failed:
        _print_front(console, outcome.session, driver)
    done, extends = f"{driver.n_told} of {driver.n_trials} trials", "--trials N extends it."
    if driver.spec.search.epochs is not None:
        done += f" and {driver.n_epochs} of {driver.spec.search.epochs} epochs"
        extends = "A greater search.epochs extends it, or --trials N if the trials are at their end."
    if status.has_failed and outcome.interrupt is None:
        way_out = "the same command goes on" if driver.stopped_because else extends[0].lower() + extends[1:-1]
        make_console(stderr=True).print(
            f"{_shown(driver.folder.root)}: {nothing_finished(status)} Mend that; {way_out}.",
            style="bold red",
            soft_wrap=True,
        )
        raise typer.Exit(1)
    for told in filter(None, (failed_trials(status), certification_failures(status))):
        console.print(told, soft_wrap=True)
    if outcome.stopped_because is not None:
        raise StudyError(f"{driver.folder.root}: stopped after {done}: {outcome.stopped_because}")
    if outcome.interrupt is not None:
        console.print(f"interrupted after {done}; the same command goes on.")
        raise typer.Exit(exit_code(outcome.interrupt))
    if outcome.test_error is not None:
        raise TaskError(f"{driver.folder.root}: the front has no test figures: {outcome.test_error}")
    if driver.is_exhausted:
        console.print(f"the space holds no other candidate: {done}.", soft_wrap=True)
    elif outcome.was_complete:
        console.print(f"the study is complete: {done}. {extends}", soft_wrap=True)
    console.print(f"next: autoprune export {_shown(driver.folder.root)} --select knee", soft_wrap=True)


def _logged(space: "Path | SpaceFile", results: Path) -> AbstractContextManager[None]:
    """A context that keeps a log in the study's folder; a space file with mistakes names none."""
    from autoprune.cli.search_log import written_to
    from autoprune.study.folder import StudyFolder

    if isinstance(space, Path):
        return nullcontext()
    return written_to(StudyFolder(results / space.config.study).logs / "search.log")


def _print_front(console: "Console", session: "PreparedStudy", driver: "Driver") -> None:
    from autoprune.report.tables import certification_table, front_table, is_certified
    from autoprune.study.tables import DENSE, final_front, known_test_metric

    folder, frame = session.folder, driver.frame()
    front = final_front(folder, frame[frame["on_front"]], session.spec, session.dense)
    dense_test = known_test_metric(folder).get(DENSE)
    spec = session.spec
    console.print(front_table(front, session.dense, spec.objectives, spec.metric, dense_test=dense_test))
    if is_certified(front):
        console.print("", certification_table(front, spec.metric))
    console.print(f"\nhypervolume {driver.status().hypervolume:.4f}")
    for path, what in (
        (folder.front, "the front"),
        (folder.trials, "all trials"),
        (spec.search.storage or folder.database, "the Optuna study"),
        (folder.checkpoints, "the front's networks"),
    ):
        console.print(f"  {_shown(path) if isinstance(path, Path) else path}  {what}", soft_wrap=True)


def _shown(path: Path) -> str:
    """A path as the user would type it from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
