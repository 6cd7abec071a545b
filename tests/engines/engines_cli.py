"""Runs ``autoprune search`` as a user does, in a process group of its own, and finds what it leaves behind."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from command_line import run_command
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from tiny import TINY_TASK, copy_study, merged

MARK = "AUTOPRUNE_TEST_RUN"

SLOW_TASK = (
    TINY_TASK
    + '''

def slow_loss(outputs, targets, seconds, log):
    """Cross-entropy that takes its time, and notes who asked for it."""
    import os
    import time

    with open(log, "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(seconds)
    return nn.functional.cross_entropy(outputs, targets)
'''
)


class Search:
    """A tiny study that is searched by the command line, again and again.

    Args:
        seconds: How long every call of the loss takes: 4 steps and 1 validation an epoch, 1 more at a trial's end.
        url: Of the database that the study is in, if that is not the file in its folder.
    """

    def __init__(
        self,
        root: Path,
        trained: Path,
        changes: dict[str, Any],
        seconds: float = 0.0,
        task: str = SLOW_TASK,
        url: str | None = None,
    ) -> None:
        self.root, self.url = root, url
        self.log = root / "loss.log"
        self.results = root / "results" / "tiny"
        loss = {"callable": "tiny_task:slow_loss", "args": {"seconds": seconds, "log": str(self.log)}}
        batches = {"kind": "constant", "size": 50}
        shared = {"task": {"loss": loss}, "training": {"batch_size_schedule": batches}}
        self.space = copy_study(trained, root, merged(shared, changes), task)
        self.scratch = Path(tempfile.mkdtemp(prefix="autoprune-test-"))
        self.mark = uuid.uuid4().hex
        self.process: subprocess.Popen[str] | None = None

    def start(self, engine: str, *options: str) -> "subprocess.Popen[str]":
        """Start the search; Ctrl-C reaches it as from a terminal if it is sent to its process group."""
        environment = {**os.environ, MARK: self.mark, "TMPDIR": str(self.scratch), "COLUMNS": "200"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "autoprune", "search", str(self.space), "--engine", engine, *options],
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self.process

    def run(self, engine: str) -> "subprocess.CompletedProcess[str]":
        """Run the search to its end."""
        process = self.start(engine)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def go_on(self, engine: str) -> None:
        """Run the search to its end as the same command does: the inline engine in this process, which is quicker."""
        if engine == "inline":
            code, _, err = run_command("search", self.space, "--engine", engine, cwd=self.root)
        else:
            done = self.run(engine)
            code, err = done.returncode, done.stderr
        assert (code, err) == (0, "")

    def ctrl_c(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> tuple[int, str, str]:
        """Wait for the search to end; gives its exit code and what it printed."""
        assert self.process is not None
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err

    def leftovers(self) -> list[int]:
        """Processes that belong to a search of this study and are still there."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"{MARK}={self.mark}".encode() in (path / "environ").read_bytes():
                    found.append(int(path.name))
        return found

    def kill(self) -> None:
        """``kill -9`` of all processes of the search at once."""
        for pid in self.leftovers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.communicate()

    def trials(self) -> list[FrozenTrial]:
        """The trials as another Optuna tool sees them."""
        storage = RDBStorage(self.url or f"sqlite:///{self.results / 'study.db'}")
        try:
            return optuna.load_study(study_name="tiny", storage=storage).get_trials()
        finally:
            storage.engine.dispose()

    def states(self) -> list[str]:
        return [trial.state.name for trial in self.trials()]

    def wait_until(self, condition: Callable[["Search"], Any], seconds: float = 120.0) -> None:
        """Wait for something to come about while the search runs."""
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while not condition(self):
            assert self.process.poll() is None, self.end()
            assert time.monotonic() < deadline, f"it did not come about in time; {self.told()} told, {self.amid()} amid"
            time.sleep(0.02)

    def wait_for_the_last_process(self, seconds: float = 20.0) -> None:
        """Wait until nothing of the search runs any more."""
        deadline = time.monotonic() + seconds
        while self.leftovers():
            assert time.monotonic() < deadline, [Path(f"/proc/{pid}/cmdline").read_text() for pid in self.leftovers()]
            time.sleep(0.1)

    def told(self) -> set[int]:
        """Trials told as finished so far, read without disturbing the search; none until there is a study."""
        if self.url is not None:
            with contextlib.suppress(KeyError):
                return {trial.number for trial in self.trials() if trial.state.name == "COMPLETE"}
            return set()
        try:
            with contextlib.closing(sqlite3.connect(f"file:{self.results / 'study.db'}?mode=ro", uri=True)) as database:
                return {row[0] for row in database.execute("select number from trials where state = 'COMPLETE'")}
        except sqlite3.OperationalError:
            return set()

    def frame(self) -> pd.DataFrame:
        return pd.read_parquet(self.results / "trials.parquet")

    def amid(self) -> set[int]:
        """Trials that have done an epoch and have not been told."""
        begun = {int(path.stem) for path in (self.results / "checkpoints").glob("*.training")}
        return begun - self.told()


@contextmanager
def searching(*args: Any, **kwargs: Any) -> Iterator[Search]:
    """A study to search; whatever of it still runs at the end is killed."""
    search = Search(*args, **kwargs)
    try:
        yield search
    finally:
        search.kill()
        shutil.rmtree(search.scratch, ignore_errors=True)
