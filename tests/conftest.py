"""Studies of a tiny task, ready for trials, and databases for them; every test runs torch on one thread."""

import itertools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from command_line import run_well
from postgres_server import PASSWORD, Postgres, missing_programs, running_postgres
from shared_folders import build_once
from tiny import TINY_TASK, brief_latencies, copy_study, prepare_tiny, tiny_folder, train_tiny, write_space

from autoprune.search.prepare import PreparedStudy

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets its background processes ignore it
hypothesis.settings.register_profile("unhurried", deadline=None)  # the wall's time depends on what else runs
hypothesis.settings.load_profile("unhurried")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def trained_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny study whose dense and plan stages are done; not to be changed."""
    return tiny_folder(build_once(tmp_path_factory, "trained", train_tiny)).root


@pytest.fixture(scope="session")
def finished_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose tiny study of six trials has ended and its front been certified; not to be changed.

    It was searched by the command line, and the file ``printed`` is what that printed.
    """
    return build_once(tmp_path_factory, "finished", _finish_tiny)


def _finish_tiny(root: Path) -> None:
    with brief_latencies():
        ran = run_well("search", write_space(root, {"certify": {"seeds": 2}}), "--engine", "inline", cwd=root)
    (root / "printed").write_text(ran.out)


@pytest.fixture
def brief_latency() -> Iterator[None]:
    """In this process, a latency is the median of a few runs only, so that a trial takes milliseconds."""
    with brief_latencies():
        yield


@pytest.fixture
def tiny_study(tmp_path: Path, trained_tiny: Path, brief_latency: None) -> Callable[..., PreparedStudy]:
    """Makes a tiny study that is ready for trials, without training the dense network again.

    Arguments are changes to the space file, the folder it is made in, and the text of the user's module. A folder used
    before holds a study that is opened again.
    """

    def make(changes: dict[str, Any] | None = None, name: str = "a", task: str = TINY_TASK) -> PreparedStudy:
        root = tmp_path / name
        if not root.exists():
            copy_study(trained_tiny, root, changes or {}, task)
        return prepare_tiny(root / "space.yaml", tiny_folder(root))

    return make


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server."""
    if (missing := missing_programs()) is not None:
        pytest.skip(missing)
    with running_postgres() as server:
        yield server


_database_numbers = itertools.count()


@pytest.fixture
def postgres_url(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty database as a space file names it, its password in the environment variable POSTGRES_PASSWORD."""
    name = f"test{next(_database_numbers)}"
    postgres.add_database(name)
    monkeypatch.setenv("POSTGRES_PASSWORD", PASSWORD)
    return postgres.url(name, "${POSTGRES_PASSWORD}")
