"""Paths of a space file."""

from pathlib import Path

import pytest

from autoprune.config.paths import expand
from autoprune.errors import TaskError


def test_variables_and_home_are_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMEWHERE", "/data")
    monkeypatch.setenv("HOME", "/home/me")
    assert expand("${SOMEWHERE}/a.parquet") == Path("/data/a.parquet")
    assert expand("$SOMEWHERE/a.parquet") == Path("/data/a.parquet")
    assert expand("~/a.parquet") == Path("/home/me/a.parquet")


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(TaskError, match="the environment variable NOWHERE is not set"):
        expand("${NOWHERE}/a.parquet")
