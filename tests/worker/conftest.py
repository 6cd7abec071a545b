"""A worker on a study of the tiny network."""

from collections.abc import Callable
from typing import Any

import pytest
from tiny import TINY_TASK

from autoprune.search.prepare import PreparedStudy
from autoprune.worker import Worker

pytest.register_assert_rewrite("worker_trials")


@pytest.fixture
def make_worker(tiny_study: Callable[..., PreparedStudy]) -> Callable[..., Worker]:
    def make(changes: dict[str, Any] | None = None, name: str = "a", task: str = TINY_TASK) -> Worker:
        return Worker(tiny_study(changes, name, task).folder)

    return make


@pytest.fixture
def worker(make_worker: Callable[..., Worker]) -> Worker:
    return make_worker()
