"""A study in a real PostgreSQL: searched, killed, gone on with and read by every command; no file has its password."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from engines_cli import Search, searching
from postgres_server import PASSWORD, Postgres, running_postgres

from autoprune.search.prepare import PreparedStudy
from autoprune.study.database import Database
from autoprune.study.optuna_storage import open_study
from autoprune.study.records import RESULT

pytestmark = pytest.mark.postgres
N_TRIALS = 6


def command(search: Search, *arguments: object, code: int = 0) -> str:
    """What one of the other commands prints."""
    done = subprocess.run(
        [sys.executable, "-m", "autoprune", *map(str, arguments)],
        cwd=search.root,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def assert_all_are_finished_once(search: Search) -> None:
    assert search.states() == ["COMPLETE"] * N_TRIALS
    frame = search.frame()
    assert frame["number"].tolist() == list(range(N_TRIALS))
    assert set(frame["state"]) == {"finished"}


def assert_the_password_is_nowhere(search: Search, *printed: str) -> None:
    forms = [PASSWORD, "w%3Ard", "w:rd"]
    texts = [path.read_bytes() for path in (search.root, search.scratch) for path in path.rglob("*") if path.is_file()]
    assert not [form for form in forms for text in texts if form.encode() in text]
    assert not [form for form in forms for text in printed if form in text]


@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_a_study_is_searched_killed_and_read(
    trained_tiny: Path, tmp_path: Path, postgres_url: str, engine: str
) -> None:
    url = Database.named(postgres_url).url.render_as_string(hide_password=False)
    changes = {"search": {"storage": postgres_url, "trials": N_TRIALS}}
    with searching(tmp_path, trained_tiny, changes, seconds=0.05, url=url) as search:
        search.start(engine)
        search.wait_until(lambda search: len(search.told()) >= 2)
        search.wait_until(Search.amid)
        told = {trial.number: trial.values for trial in search.trials() if trial.state.name == "COMPLETE"}
        search.kill()
        n_ended = sum(RESULT in trial.user_attrs for trial in search.trials())
        assert n_ended >= len(told), "more, if one ended between the look and the kill"
        printed = [command(search, "status", "results/tiny")]
        assert f"{n_ended} of {N_TRIALS} trials have ended" in printed[0]
        assert "running, or cut off by a crash" in printed[0]
        done = search.run(engine)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert f"{postgres_url}  the Optuna study" in done.stdout
        assert_all_are_finished_once(search)
        assert {trial.number: trial.values for trial in search.trials()}.items() >= told.items()
        assert not (search.results / "study.db").exists()
        front = json.loads(command(search, "pareto", "results/tiny", "--json"))
        number = front[0]["number"]
        printed += [done.stdout, done.stderr, command(search, "pareto", "results/tiny")]
        printed += [
            command(search, "show", "results/tiny", number),
            command(search, "status", "results/tiny", "--json"),
        ]
        assert json.loads(printed[-1])["counts"]["finished"] == N_TRIALS
        printed += [command(search, "export", "results/tiny", "--select", number)]
        assert (search.results / f"export-{number}" / "manifest.json").exists()
        assert_the_password_is_nowhere(search, *printed)


def test_a_server_that_ends_amid_the_search(
    trained_tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", PASSWORD)
    with running_postgres() as server:
        named = server.url("postgres", "${POSTGRES_PASSWORD}")
        changes = {"search": {"storage": named, "trials": N_TRIALS}}
        with searching(tmp_path, trained_tiny, changes, seconds=0.05, url=server.url("postgres")) as search:
            search.start("inline")
            search.wait_until(lambda search: len(search.told()) >= 2)
            server.stop()
            code, out, err = search.end()
            assert code == 2
            assert err.startswith(f"autoprune: {named}: the study can't be written: ")
            assert err.endswith("Start the database again; then the same command goes on.\n")
            assert len(err.splitlines()) == 1
            refused = command(search, "status", "results/tiny", code=2)
            assert re.search(r"can't be opened as a study: connection failed: .* Start the server, or mend", refused)
            before = sorted(search.root.rglob("*"))
            again = command(search, "search", "space.yaml", "--engine", "inline", code=2)
            assert re.search(r"space.yaml:\d+: search.storage: '.*' can't be used: connection failed: .*", again)
            assert sorted(search.root.rglob("*")) == before
            server.start()
            done = search.run("inline")
            assert (done.returncode, done.stderr) == (0, ""), done.stderr
            assert_all_are_finished_once(search)
            assert_the_password_is_nowhere(search, out, err, refused, again, done.stdout)


def test_a_server_that_is_started_anew_between_two_trials(
    postgres: Postgres, postgres_url: str, tiny_study: Callable[..., PreparedStudy]
) -> None:
    session = tiny_study({"search": {"storage": postgres_url}})
    study = open_study(session.folder, postgres_url, "tiny", ["accuracy", "flops"], ["maximize", "minimize"])
    study.ask()
    postgres.stop()
    postgres.start()
    study.ask()
    assert [trial.number for trial in study.get_trials()] == [0, 1]


def test_a_wrong_password_is_told_without_it(
    trained_tiny: Path, tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", "not w:rd")
    with searching(tmp_path, trained_tiny, {"search": {"storage": postgres_url}}) as search:
        told = command(search, "search", "space.yaml", code=2)
        assert "password authentication failed" in told
        assert_the_password_is_nowhere(search, told)
