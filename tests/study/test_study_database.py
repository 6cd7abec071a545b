"""A database that `search.storage` names: variables put in, secrets kept, and each study bound to one folder."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from changes import OnChange
from optuna.exceptions import StorageInternalError
from tiny import copy_study, write_space

from autoprune.config import load_config
from autoprune.engines.inline import run_in_process
from autoprune.errors import ConfigError, StudyError
from autoprune.search.driver import Driver
from autoprune.search.prepare import PreparedStudy, reopen_study
from autoprune.search.run import run_search
from autoprune.study.database import Database
from autoprune.study.folder import StudyFolder

PASSWORD = "p@ss/w:rd %24${X}"


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PASSWORD", PASSWORD)
    return PASSWORD


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://me:${PASSWORD}@host:1/db", "postgresql://me:$PASSWORD@host:1/db"]
)
def test_a_password_needs_no_quoting(password: str, url: str) -> None:
    parsed = Database.named(url).url
    assert (parsed.username, parsed.password, parsed.host, parsed.port) == ("me", password, "host", 1)
    assert parsed.database == "db"


def test_variables_anywhere(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDER", "/some/where")
    assert Database.named("sqlite:///${FOLDER}/a.db").url.database == "/some/where/a.db"
    assert Database.named("postgresql://host/db?user=me&password=${PASSWORD}").url.query["password"] == password
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:secret@host/db")
    whole = Database.named("${DATABASE_URL}")
    assert (whole.name, whole.url.password) == ("${DATABASE_URL}", "secret")


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(StudyError, match=r"search\.storage: the environment variable NOWHERE is not set\. Set it"):
        Database.named("postgresql://me:${NOWHERE}@host/db")


@pytest.mark.parametrize("url", ["nonsense", "postgresql://me:${PASSWORD}@host:port/db"])
def test_what_is_no_url(password: str, url: str) -> None:
    with pytest.raises(StudyError, match=f"'{re.escape(url)}' can't be used: it is no URL. It looks like postgresql"):
        Database.named(url)


@pytest.mark.parametrize(
    ("url", "cause", "way_out"),
    [
        ("postgresql+psycopg://me:${PASSWORD}@127.0.0.1:1/db", "connection failed: .*", "Start the server, or mend"),
        ("postgresql+nothing://me@host/db", "Can't load plugin: .*", "Mend search.storage"),
        ("mssql+pymssql://me@host/db", "No module named 'pymssql'", "Install the driver that the URL names: pip"),
        ("sqlite:////no/such/folder/a.db", "there is no folder /no/such/folder", "Mend search.storage"),
    ],
)
def test_a_database_that_can_not_be_reached(password: str, url: str, cause: str, way_out: str) -> None:
    with pytest.raises(StudyError, match=f"^search.storage: '{re.escape(url)}' can't be used: {cause}. {way_out}"):
        Database.named(url).check()


def test_trying_writes_nothing(tmp_path: Path) -> None:
    Database.named(f"sqlite:///{tmp_path}/a.db").check()
    assert list(tmp_path.iterdir()) == []


def test_no_cause_shows_a_secret(password: str) -> None:
    for url in ("postgresql://me:${PASSWORD}@host/db", "postgresql://me@host/db?password=${PASSWORD}&passfile=x"):
        database = Database.named(url)
        whole = database.url.render_as_string(hide_password=False)
        for told in (f"at {password}, no", f"at {whole}", f"with {whole.partition('//')[2]}"):
            wrapped = StorageInternalError("outer")
            wrapped.__cause__ = ValueError(told)
            for error in (ValueError(told), wrapped):
                cause = database.cause_of(error)
                assert "***" in cause or url in cause
                assert "ss/w" not in cause
                assert "w%3Ard" not in cause


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@host/db",
        "postgresql://me:s/e@cret@host/db",
        "postgresql://me:${A}secret@host/db",
        "postgresql://me:$secret@host/db",
        "postgresql://host/db?user=me&password=secret",
        "postgresql://host/db?sslpassword=secret",
    ],
)
def test_a_password_in_the_space_file_is_refused_and_not_shown(tmp_path: Path, url: str) -> None:
    with pytest.raises(
        ConfigError, match=r"storage must not hold a password, .*: write \$\{NAME\} in its place"
    ) as caught:
        load_config(write_space(tmp_path, {"search": {"storage": url}}))
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me@host:5432/db",
        "postgresql://me:@host/db",
        "postgresql://me:${A}@host/db?sslmode=require&passfile=/some/where",
        "postgresql://host/db?password=${A}",
        "sqlite:///a:b@c.db",
        "${DATABASE_URL}",
    ],
)
def test_urls_without_a_password(tmp_path: Path, url: str) -> None:
    assert load_config(write_space(tmp_path, {"search": {"storage": url}})).search.storage == url


def test_a_study_belongs_to_the_folder_with_its_networks(
    tiny_study: Callable[..., PreparedStudy], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/shared.db"
    changes = {"search": {"storage": url, "trials": 2}}

    def opened(session: PreparedStudy) -> Driver:
        return Driver(session.folder, session.space, session.table, session.dense)

    first = opened(tiny_study(changes, "first"))
    assert first.suggest() is not None
    second = tiny_study(changes, "second")
    with pytest.raises(StudyError, match=r"shared.db: the study 'tiny' there belongs to another results folder than"):
        opened(second)
    assert [trial.state.name for trial in first.study.get_trials()] == ["RUNNING", "WAITING"]
    other = tiny_study({**changes, "study": "other"}, "third")
    assert opened(other).suggest() is not None
    assert len(optuna.get_all_study_names(url)) == 2
    moved = StudyFolder(Path(shutil.move(first.folder.root, tmp_path / "moved")))
    shutil.copy(tmp_path / "first" / "tiny_task.py", tmp_path)
    moved.write_json(moved.origin, {**moved.read_json(moved.origin), "base_dir": ".."})
    assert opened(reopen_study(moved)).suggest() is not None


def test_a_database_lost_amid_a_search_stops_it(trained_tiny: Path, tmp_path: Path, brief_latency: None) -> None:
    (tmp_path / "db").mkdir()
    url = f"sqlite:///{tmp_path}/db/a.db"
    space = copy_study(trained_tiny, tmp_path, {"search": {"storage": url}})

    def vanish(driver: Driver) -> None:
        if driver.n_told == 2:
            shutil.rmtree(tmp_path / "db", ignore_errors=True)

    expected = f"^{re.escape(url)}: the study can't be written: .*. Start the database again; then the same command"
    with pytest.raises(StudyError, match=expected):
        run_search(space, tmp_path / "results", run_in_process, callbacks=[OnChange(vanish)])
