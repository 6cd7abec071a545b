"""How a study stands, read back from its storage: counts, epochs spent, and the rank correlation of each rung."""

from collections.abc import Callable
from typing import Any

import pytest

from autoprune.search.driver import Driver
from autoprune.search.prepare import PreparedStudy
from autoprune.study.reader import StudyReader
from autoprune.study.rungs import Rung
from autoprune.trial import Cost, EpochReport, TrialResult

LONG: dict[str, Any] = {"training": {"epochs": 3}, "search": {"trials": 12, "ladder": 0}}
FIRST = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
SECOND = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
END = [0.2, 0.1, 0.4, 0.3, 0.6, 0.5, 0.8, 0.7, 0.9]


def spearman(one: list[float], other: list[float]) -> float:
    """In closed form, for columns without ties (Spearman 1904)."""
    ranks = [[sorted(column).index(value) for value in column] for column in (one, other)]
    n = len(one)
    squares = sum((a - b) ** 2 for a, b in zip(*ranks, strict=True))
    return 1 - 6 * squares / (n * (n**2 - 1))


def report(driver: Driver, number: int, epoch: int, accuracy: float) -> bool:
    return driver.report(EpochReport(number, epoch, accuracy, 1.0, 1.0, 0.1, 32, 0.01))


def test_the_rank_correlation_of_each_rung(tiny_study: Callable[..., PreparedStudy]) -> None:
    session = tiny_study(LONG, "rungs")
    driver = Driver(session.folder, session.space, session.table, session.dense)
    cost = Cost(params=9, nonzero_params=9, size_bytes=90, macs=50)
    for number, accuracies in enumerate(zip(FIRST, SECOND, END, strict=True)):
        assert driver.suggest() is not None
        for epoch, accuracy in enumerate(accuracies, start=1):
            report(driver, number, epoch, accuracy)
        result = TrialResult(number, "finished", accuracies[-1], 1.0, cost, epochs=3, epochs_lineage=3)
        driver.complete(result)
    assert driver.suggest() is not None
    report(driver, 9, 1, 0.55)
    driver.end_early(9)
    assert driver.suggest() is not None
    driver.complete(TrialResult(10, "failed", epochs=2, error="RuntimeError: no"))
    assert driver.suggest() is not None
    report(driver, 11, 1, 0.5)

    status = StudyReader(session.folder.root).status()
    assert status.rungs == (
        Rung(0.25, 11, 9, pytest.approx(spearman(FIRST, END))),  # of three epochs, the first
        Rung(0.5, 9, 9, pytest.approx(spearman(SECOND, END))),  # the second; three quarters are the third, the end
    )
    assert not status.stop_early
    ended = {"finished": 9, "stopped": 1, "failed": 1, "infeasible": 0, "repeated": 0}
    assert status.counts == ended | {"running": 1, "waiting": 0}
    assert (status.n_trials, status.n_ended) == (12, 11)
    assert status.failures == {10: "RuntimeError: no"}
    assert (status.epochs, status.epochs_dense) == (9 * 3 + 1 + 2, 8)


def test_before_the_first_trial(tiny_study: Callable[..., PreparedStudy]) -> None:
    session = tiny_study(LONG, "none")
    Driver(session.folder, session.space, session.table, session.dense)
    status = StudyReader(session.folder.root).status()
    assert (status.is_ready, status.n_ended, status.rungs, status.epochs) == (True, 0, (), 0)
    session.folder.plan.unlink()
    status = StudyReader(session.folder.root).status()
    assert (status.is_ready, status.n_trials, status.n_ended) == (False, 12, 0)
