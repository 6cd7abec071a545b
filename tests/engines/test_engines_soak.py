"""The search killed at 20 random moments, on both engines: no told trial is lost, none counts twice."""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest
import yaml
from engines_cli import Search, searching

N_KILLS = 20
ENGINES = ("inline", "inline", "inline", "ray")
"""In turn: Ray takes seconds to start, so that a soak on it alone would take many minutes."""


def told(search: Search) -> dict[int, list[float]]:
    """Told trials and their values; none until there is a study.

    Not looked for read-only first: a kill amid a transaction leaves a journal that only a writer can roll back.
    """
    with contextlib.suppress(KeyError):
        return {trial.number: trial.values for trial in search.trials() if trial.state.name == "COMPLETE"}
    return {}


def set_trials(search: Search, n_trials: int) -> None:
    space = yaml.safe_load(search.space.read_text())
    space["search"]["trials"] = n_trials
    search.space.write_text(yaml.safe_dump(space, sort_keys=False))


def kill_at(search: Search, engine: str, moment: random.Random) -> None:
    """Start the search and kill it with all its process group: half the times while it starts, half amid its trials."""
    process = search.start(engine)
    if moment.random() < 0.5:
        n_calls = len(search.log.read_text()) if search.log.exists() else 0
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (search.log.exists() and len(search.log.read_text()) > n_calls + 20):
            assert process.poll() is None, search.end()
            time.sleep(0.01)
        time.sleep(moment.uniform(0, 1.5))
    else:
        time.sleep(moment.uniform(0, {"inline": 5, "ray": 12}[engine]))
    assert process.poll() is None, search.end()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_20_kills_lose_nothing(trained_tiny: Path, tmp_path: Path) -> None:
    moment = random.Random(0)
    changes = {
        "search": {"trials": 100_000, "sampler": "tpe", "max_retries": N_KILLS},
        "training": {"epochs": 2},
        "resources": {"workers": 2},
    }
    with searching(tmp_path, trained_tiny, changes, seconds=0.005) as search:
        before: dict[int, list[float]] = {}
        grew = 0
        for index in range(N_KILLS):
            kill_at(search, ENGINES[index % len(ENGINES)], moment)
            if not (search.results / "study.db").exists():
                continue
            now = told(search)
            assert {number: now.get(number) for number in before} == before, f"kill {index} lost a trial"
            grew += len(now) > len(before)
            before = now
        assert grew >= 5, "else the kills came too early to say anything"
        target = len(before) + 5
        set_trials(search, target)
        done = search.run("ray")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        after = told(search)
        assert {number: after[number] for number in before} == before
        assert search.states() == ["COMPLETE"] * target
        frame = search.frame()
        assert frame["number"].tolist() == list(range(target))
        assert set(frame["state"]) == {"finished"}
        assert set(frame["epochs"]) == {2}
        assert [path.name for path in (search.results / "checkpoints").glob("*.training")] == []
        assert [path.name for path in search.results.rglob(".*") if path.is_file()] == []
        search.wait_for_the_last_process()
