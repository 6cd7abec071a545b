"""`search.log`: what a search did and what failed, without a word on stderr where it can't be written."""

import logging
import subprocess
from pathlib import Path

import pytest
from command_line import run_command, run_well
from tiny import copy_study

from autoprune.cli.search_log import written_to

logger = logging.getLogger("autoprune.search.driver")


@pytest.fixture(autouse=True)
def nothing_is_left() -> object:
    """No handler and no level is left behind."""
    package = logging.getLogger("autoprune")
    before = list(package.handlers), package.level
    yield
    assert (package.handlers, package.level) == before


def lines_of(path: Path) -> list[str]:
    """The records of a log without their times."""
    return [line.split(" ", 2)[2] for line in path.read_text().splitlines()]


def test_records_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "search.log"
    for level in (logging.WARNING, logging.DEBUG, logging.INFO):
        with written_to(path):
            logger.log(level, "level %d", level)
    logger.error("after it")
    assert lines_of(path) == ["WARNING autoprune.search.driver: level 30", "INFO autoprune.search.driver: level 20"]


def test_nothing_is_written_without_a_record_or_a_study(tmp_path: Path) -> None:
    with written_to(tmp_path / "logs" / "search.log"):
        pass
    with written_to(tmp_path / "none" / "logs" / "search.log"):
        logger.warning("lost")
    assert list(tmp_path.iterdir()) == []


def test_a_level_that_was_asked_for_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("autoprune"), "level", logging.DEBUG)
    logging.getLogger("autoprune").setLevel(logging.DEBUG)
    with written_to(tmp_path / "search.log"):
        logger.debug("asked for")
    assert lines_of(tmp_path / "search.log") == ["DEBUG autoprune.search.driver: asked for"]


def test_what_can_not_be_written_is_lost_without_a_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "search.log").symlink_to("/dev/full")
    with written_to(tmp_path / "search.log"):
        logger.warning("to a full disk")
    (tmp_path / "file").touch()
    with written_to(tmp_path / "file" / "logs" / "search.log"):
        logger.warning("into no folder")
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


@pytest.mark.usefixtures("brief_latency")
def test_a_search_tells_its_stages_and_what_failed(trained_tiny: Path, tmp_path: Path) -> None:
    space = copy_study(trained_tiny, tmp_path, {"search": {"trials": 2, "trial_timeout": 1e-6}})
    assert run_command("search", space, "--engine", "inline", cwd=tmp_path).code == 1
    lines = lines_of(tmp_path / "results" / "tiny" / "logs" / "search.log")
    assert lines[0] == "INFO autoprune.search.log: starting the trials"
    for number in (0, 1):
        assert f"WARNING autoprune.search.log: trial {number} failed: " in lines[1 + number]
    assert lines[-1] == "WARNING autoprune.search.log: ended after 2 of 2 trials, none of which finished"


@pytest.mark.usefixtures("brief_latency")
def test_a_folder_of_logs_that_can_not_be_written_ends_no_search(trained_tiny: Path, tmp_path: Path) -> None:
    space = copy_study(trained_tiny, tmp_path, {"search": {"trials": 1}})
    logs = tmp_path / "results" / "tiny" / "logs"
    logs.mkdir()
    if subprocess.run(["chattr", "+i", logs], capture_output=True, check=False).returncode != 0:
        pytest.skip("chattr +i is not allowed here")
    try:
        assert run_well("search", space, "--engine", "inline", cwd=tmp_path).err == ""
    finally:
        subprocess.run(["chattr", "-i", logs], check=True)
    assert list(logs.iterdir()) == []
