"""A space file is parsed once; data are loaded once, twice for a new study; the network is built once to prepare it."""

from pathlib import Path

import pytest
from tiny import TINY_TASK, prepare_tiny, write_space

from autoprune.config import load
from autoprune.engines.inline import run_in_process
from autoprune.search.run import run_search
from autoprune.study.folder import StudyFolder

COUNTING = (
    TINY_TASK
    + """

import os

def _count(name):
    with open(os.environ["COUNTS"], "a") as file:
        file.write(name + " ")

_net, _data = net, data

def net():
    _count("net")
    return _net()

def data():
    _count("data")
    return _data()
"""
)


@pytest.fixture
def counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the user's functions note that they were called."""
    monkeypatch.setenv("COUNTS", str(tmp_path / "counts"))
    return tmp_path / "counts"


def test_a_search_parses_once_and_reads_data_once(
    counts: Path, tmp_path: Path, brief_latency: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []
    parse = load.parse_config
    monkeypatch.setattr(
        load, "parse_config", lambda text, name, **kwargs: parsed.append(name) or parse(text, name, **kwargs)
    )
    space = write_space(tmp_path, {"search": {"trials": 1, "ladder": 0}, "dense": {"epochs": 1}}, COUNTING)
    for n_trials, n_loads in ((1, 2), (2, 1)):  # the first time once more, to see that they are the same
        parsed.clear()
        counts.write_text("")
        run_search(space, tmp_path / "results", run_in_process, n_trials)
        assert len(parsed) == 1
        assert counts.read_text().split().count("data") == n_loads


def test_a_study_is_prepared_with_few_builds_of_the_network(counts: Path, tmp_path: Path) -> None:
    space, folder = (
        write_space(tmp_path, {"dense": {"epochs": 1}}, COUNTING),
        StudyFolder(tmp_path / "results" / "tiny"),
    )
    prepare_tiny(space, folder)
    # To train, to try whether a file holds all of it, and to read the trained weights into.
    assert counts.read_text().split().count("net") == 3
    counts.write_text("")
    prepare_tiny(space, folder)
    assert counts.read_text().split().count("net") == 1
