"""Repeats through an engine: in order, through any death, past failures, and again when the study has grown."""

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from typing import Any

import pytest
from changes import OnChange
from replication_lineages import TRIALS, LoggingWorker, names, replication_of

from autoprune.engines.inline import run_inline
from autoprune.search.prepare import PreparedStudy
from autoprune.search.replication.replication import Replication
from autoprune.study.replication import replicate_results
from autoprune.trial import EpochReport, Replicate, TrialConfig, TrialResult
from autoprune.worker import Worker

N_TEST = 150
ALONG = {f"{number}-seed{index}" for number in (0, 1, 2, 3) for index in (0, 1)}
FROM_DENSE = {f"{number}-seed{index}-dense" for number in (2, 3) for index in (0, 1)}

MakeStudy = Callable[..., PreparedStudy]


def outcomes(session: PreparedStudy) -> dict[str, TrialResult]:
    return {
        str(replicate): replace(result, train_time_s=0)
        for replicate, result in replicate_results(session.folder).items()
    }


@pytest.fixture
def whole(tiny_study: MakeStudy) -> tuple[PreparedStudy, LoggingWorker]:
    """A study whose front was certified without a break, and the worker that did it."""
    session = tiny_study(name="whole")
    worker = LoggingWorker(Worker(session.folder))
    certification = replication_of(session)
    assert not certification.is_complete
    run_inline(certification, worker)  # type: ignore[arg-type]
    assert certification.is_complete
    return session, worker


def test_all_repeats_end_and_leave_results_only(whole: tuple[PreparedStudy, LoggingWorker]) -> None:
    session, worker = whole
    found = outcomes(session)
    assert set(found) == ALONG | FROM_DENSE
    assert {result.state for result in found.values()} == {"finished"}
    assert names(session) == {path.name.removesuffix(".json") for path in session.folder.certification.iterdir()}
    assert worker.n_test_examples_read == N_TEST * 8
    for name, result in found.items():
        # Epochs of the whole lineage, added up by hand.
        assert result.epochs_lineage == {"0": 1, "1": 2, "2": 3, "3": 3}[name[0]]
        assert result.kept["stem"] == {"0": 6, "1": 5, "2": 4, "3": 3}[name[0]]
        assert (result.metric_test is None) == (name[0] in "01")


def test_it_loses_and_repeats_nothing_whenever_the_process_dies(
    whole: tuple[PreparedStudy, LoggingWorker], tiny_study: MakeStudy
) -> None:
    session = tiny_study(name="cut")
    worker = LoggingWorker(Worker(session.folder))
    for limit in cycle([1, 2, 3]):  # events that a process lives for; the last one it gets, and tells nobody
        certification = replication_of(session)
        if certification.is_complete:
            break
        n_events = 0
        while n_events < limit and (config := certification.suggest()) is not None:
            for event in worker.run(config):
                n_events += 1
                if n_events == limit:
                    break
                if isinstance(event, TrialResult):
                    certification.complete(event)
                else:
                    certification.report(event)
    assert outcomes(session) == outcomes(whole[0])
    assert sorted(worker.epochs) == sorted(whole[1].epochs)
    assert len(worker.epochs) == len(set(worker.epochs))
    assert worker.n_test_examples_read == whole[1].n_test_examples_read
    assert names(session, "") == names(whole[0], "")


def test_a_repeat_waits_for_its_parents_and_comes_back_when_it_is_released(tiny_study: MakeStudy) -> None:
    session = tiny_study()
    worker, certification = Worker(session.folder), replication_of(session, n_seeds=1)
    given: list[TrialConfig] = []
    while (config := certification.suggest()) is not None:
        given.append(config)
    assert [str(config.run) for config in given] == ["0-seed0", "2-seed0-dense", "3-seed0-dense"]
    certification.release(given[1].run)
    assert certification.suggest() == given[1]
    *_, result = worker.run(given[0])
    assert isinstance(result, TrialResult)
    certification.complete(result)
    children = [certification.suggest(), certification.suggest()]
    assert {str(child.run) for child in children if child} == {"1-seed0", "2-seed0"}
    assert certification.suggest() is None


def test_a_failure_costs_only_what_starts_from_it(tiny_study: MakeStudy) -> None:
    session = tiny_study()
    worker = Worker(session.folder)

    class Failing(LoggingWorker):
        def run(self, config: TrialConfig) -> Any:
            if str(config.run) == "0-seed0":
                yield TrialResult(config.run, "failed", seed=config.seed, error="RuntimeError: no")
            elif str(config.run) == "2-seed0-dense":
                (*_, result) = super().run(config)
                yield replace(result, metric=float("nan"))
            else:
                yield from super().run(config)

    certification = replication_of(session)
    run_inline(certification, Failing(worker))  # type: ignore[arg-type]
    found = outcomes(session)
    assert set(found) == (ALONG | FROM_DENSE) - {"1-seed0", "2-seed0", "3-seed0"}
    failed = {name: result.error for name, result in found.items() if result.state != "finished"}
    assert failed == {"0-seed0": "RuntimeError: no", "2-seed0-dense": "the accuracy is not a number"}
    status = certification.status()
    assert (status.n_finished, status.n_failed, status.n_lost, status.n_ended) == (7, 2, 3, 12)
    assert replication_of(session).is_complete  # a failure is not tried again,
    session.folder.replicate(Replicate(0, 0)).unlink()  # unless its file is deleted
    again = replication_of(session)
    run_inline(again, worker)
    assert (again.status().n_finished, again.status().n_failed) == (11, 1)


def test_many_failures_in_a_row_stop_it_and_are_tried_again(tiny_study: MakeStudy) -> None:
    session = tiny_study({"search": {"max_failures": 3}})
    worker, certification = Worker(session.folder), replication_of(session)
    first = certification.suggest()
    assert first is not None
    *_, result = worker.run(first)
    assert isinstance(result, TrialResult)
    certification.complete(result)
    for _ in range(3):
        config = certification.suggest()
        assert config is not None
        certification.fail(config.run, "OSError: the disk is gone")
    assert certification.suggest() is None
    assert certification.stopped_because is not None
    assert certification.stopped_because.startswith("3 runs in a row failed, the last one (2-seed0-dense): OSError: ")
    assert names(session) == {"0-seed0"}
    again = replication_of(session)
    assert (again.status().n_failed, again.stopped_because) == (0, None)
    run_inline(again, worker)
    assert set(outcomes(session)) == ALONG | FROM_DENSE


def test_a_grown_study_is_certified_on_the_same_lineages(whole: tuple[PreparedStudy, LoggingWorker]) -> None:
    session, worker = whole
    before = {path.name: path.read_bytes() for path in session.folder.certification.iterdir()}
    n_epochs, n_read = len(worker.epochs), worker.n_test_examples_read
    run_inline(replication_of(session, front=(2, 4)), worker)  # type: ignore[arg-type]
    after = {path.name: path.read_bytes() for path in session.folder.certification.iterdir()}
    assert {name: after[name] for name in before} == before
    new = {name.removesuffix(".json") for name in set(after) - set(before)}
    assert new == {"4-seed0", "4-seed1", "4-seed0-dense", "4-seed1-dense"}
    # With both seeds: 4 and, for their networks alone, 0 (one epoch) and 2 (two); 4 from dense for four epochs.
    assert len(worker.epochs) - n_epochs == 2 * (1 + 1 + 2 + 4)
    assert worker.n_test_examples_read - n_read == N_TEST * 4


def test_what_nobody_needs_any_more_is_deleted(tiny_study: MakeStudy) -> None:
    session = tiny_study()
    folder, stale = session.folder, Replicate(2, 5)
    folder.model(stale).mkdir(parents=True)
    (folder.model(stale) / "model.safetensors").write_bytes(b"")
    folder.training_checkpoint(stale).write_bytes(b"")
    (folder.certification / ".2-seed0.json.abc").write_bytes(b"{")
    kept = [folder.training_checkpoint(Replicate(2, 1)), folder.replicate(stale)]
    for path in kept:
        path.write_bytes(b"")
    replication_of(session)
    assert set(folder.certification.iterdir()) == set(kept)


def test_it_tells_how_long_it_will_take(tiny_study: MakeStudy) -> None:
    seen: list[Any] = []
    session = tiny_study()
    heard = OnChange(on_replicates=lambda told: seen.append(told.status()))
    certification = heard.replication = Replication(session.folder, session.spec, [0], TRIALS, 1, [heard])
    config = certification.suggest()
    assert config is not None
    for event in Worker(session.folder).run(config):
        certification.report(event) if isinstance(event, EpochReport) else certification.complete(event)
    assert [(status.n_replicates, status.n_ended, list(status.running)) for status in seen] == [
        (1, 0, [Replicate(0, 0)]),
        (1, 0, [Replicate(0, 0)]),
        (1, 1, []),
    ]
    assert seen[1].running[Replicate(0, 0)].epoch == 1
    assert TRIALS[0].epochs == 1
