"""Callbacks hear of everything in order, and one that fails ends nothing."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny import write_space

from autoprune.engines.inline import run_in_process
from autoprune.search.callbacks import Callback, Callbacks, RankBlocks, Stage
from autoprune.search.driver import Driver
from autoprune.search.prepare import PreparedStudy
from autoprune.search.run import Outcome, run_search
from autoprune.trial import EpochReport, SensitivityJob, TrialConfig, TrialResult


class Heard(Callback):
    """Notes all that it hears, each with a name."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.outcomes: list[Outcome] = []

    def on_stage(self, stage: Stage) -> None:
        self.events.append(("stage", type(stage).__name__))

    def on_trial_start(self, config: TrialConfig) -> None:
        self.events.append(("start", str(config.run)))

    def on_epoch(self, report: EpochReport) -> None:
        self.events.append(("epoch", (str(report.run), report.epoch)))

    def on_trial_end(self, config: TrialConfig, result: TrialResult) -> None:
        assert config.run == result.run
        self.events.append(("end", (str(result.run), result.state)))

    def on_front(self, front: Sequence[TrialResult]) -> None:
        self.events.append(("front", sorted(result.number for result in front)))

    def on_end(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


class Failing(Callback):
    def on_epoch(self, report: EpochReport) -> None:
        raise ValueError(f"epoch {report.epoch}")


def test_everything_is_told_in_order(tmp_path: Path, brief_latency: None) -> None:
    heard = Heard()
    space = write_space(tmp_path, {"dense": {"epochs": 2}, "search": {"trials": 1}, "certify": {"seeds": 1}})
    outcome = run_search(space, tmp_path / "results", run_in_process, callbacks=[heard])
    assert heard.outcomes == [outcome]
    trial = [("epoch", ("0", 1)), ("epoch", ("0", 2)), ("end", ("0", "finished")), ("front", [0])]
    replicate = [("epoch", ("0-seed0", 1)), ("epoch", ("0-seed0", 2)), ("end", ("0-seed0", "finished"))]
    assert heard.events == [
        *(("stage", name) for name in ("TrainDense", "TrainDense", "MeasureDense", "RankBlocks", "RunTrials")),
        ("start", "0"),
        *trial,
        *(("stage", name) for name in ("EvaluateFront", "ReplicateFront")),
        ("start", "0-seed0"),
        *replicate,
    ]


def test_a_sensitivity_job_is_told_too(tiny_study: Callable[..., PreparedStudy]) -> None:
    heard = Heard()
    session = tiny_study({"search": {"sampler": "cost_aware", "sensitivity": True}})
    driver = Driver(session.folder, session.space, session.table, session.dense, callbacks=[heard])
    config = driver.suggest()
    assert config is not None
    driver.complete(TrialResult(config.run, "finished", metric=0.5))
    assert config.run == SensitivityJob(0)
    assert heard.events == [("start", str(config.run)), ("end", (str(config.run), "finished"))]


def test_a_candidate_over_a_ceiling_ends_without_a_start(tiny_study: Callable[..., PreparedStudy]) -> None:
    heard = Heard()
    session = tiny_study({"search": {"trials": 30, "ladder": 0}, "constraints": {"flops": "0.5x"}})
    driver = Driver(session.folder, session.space, session.table, session.dense, callbacks=[heard])
    driver.suggest()
    over = driver.status().n_infeasible
    assert heard.events == [*(("end", (str(number), "infeasible")) for number in range(over)), ("start", str(over))]


def test_an_error_is_logged_with_its_traceback_and_ends_nothing(
    tmp_path: Path, brief_latency: None, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()
    space = write_space(tmp_path, {"dense": {"epochs": 1}, "search": {"trials": 1}})
    outcome = run_search(space, tmp_path / "results", run_in_process, callbacks=[Failing(), heard])
    assert outcome.driver.is_complete
    assert ("epoch", ("0", 2)) in heard.events
    first, _ = [record for record in caplog.records if record.name == "autoprune.search.callbacks"]
    assert first.getMessage() == "Failing.on_epoch failed; the search goes on."
    assert first.levelno == logging.ERROR
    assert first.exc_info is not None
    assert "ValueError: epoch 1" in caplog.text
    assert "ValueError: epoch 2" in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_to_end_the_process_passes(error: type[BaseException]) -> None:
    class Ending(Callback):
        def on_stage(self, stage: Stage) -> None:
            raise error

    with pytest.raises(error):
        Callbacks([Ending()]).on_stage(RankBlocks())
