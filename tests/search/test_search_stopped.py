"""A trial that was stopped leaves data: what it had reached, with which network, as if that had been asked for."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from autoprune.engines.inline import run_inline
from autoprune.formats.architecture import Architecture, apply_architecture
from autoprune.search.driver import Driver
from autoprune.search.prepare import PreparedStudy
from autoprune.study.records import TrainedTrial, trained_of
from autoprune.training.checkpoint import load_checkpoint
from autoprune.trial import EpochReport, TrialResult
from autoprune.worker import Worker

# Half of the trials hardly learn; all are cut alike, so the others beat these at no more cost.
STOPPING: dict[str, Any] = {
    "training": {"epochs": 3, "lr_schedule": {"kind": "constant", "lr": [0.04, 0.05, 0.06, 1e-6, 2e-6, 3e-6]}},
    "pruning": [{"method": "neuron", "ratio": 0.5}, {"method": "layer", "ratio": 0.5}],
    "search": {"trials": 8, "ladder": 0, "stop_early": True},
}
GRADUAL = STOPPING | {"training": STOPPING["training"] | {"gradual_pruning": 0.9}}


def driver_of(session: PreparedStudy) -> Driver:
    return Driver(session.folder, session.space, session.table, session.dense)


def trained(driver: Driver) -> list[TrainedTrial]:
    return [each for trial in driver.study.get_trials() if (each := trained_of(trial)) is not None]


def twin_reports(session: PreparedStudy, one: TrainedTrial) -> list[EpochReport]:
    """What the same trial would have reported in a study that stops nobody."""
    events = Worker(session.folder).run(one.config)
    return [event for event in events if isinstance(event, EpochReport)]


@pytest.mark.parametrize(
    "changes", [pytest.param(STOPPING, marks=pytest.mark.slow), GRADUAL], ids=["at once", "gradually"]
)
def test_a_stopped_trial_tells_of_the_network_that_it_had(
    tiny_study: Callable[..., PreparedStudy], changes: dict[str, Any]
) -> None:
    session = tiny_study(changes, "stopping")
    driver = driver_of(session)
    stopped_models: dict[int, torch.nn.Module] = {}
    end_early = driver.end_early

    def keep_the_network(number: int) -> None:
        checkpoint = load_checkpoint(session.folder.training_checkpoint(number))
        assert checkpoint is not None
        stopped_models[number] = apply_architecture(
            session.task.build_model(), Architecture.from_dict(checkpoint["architecture"])
        )
        end_early(number)

    driver.end_early = keep_the_network  # type: ignore[method-assign]
    run_inline(driver, Worker(session.folder))
    found = trained(driver)
    stopped = [each for each in found if each.result.state == "stopped"]
    assert len(found) == 8
    assert 0 < len(stopped) < 8
    free = tiny_study(changes | {"search": {"stop_early": False}}, "free")
    for one in stopped[:2]:
        result = one.result
        assert result.epochs == len(one.curve) == result.epochs_lineage < one.config.epochs == 3
        reports = twin_reports(free, one)
        assert one.curve == tuple(report.metric for report in reports[: result.epochs])
        last = reports[result.epochs - 1]
        assert (result.metric, result.loss, result.kept) == (last.metric, last.loss, last.kept)
        model = stopped_models[result.number]
        modules = dict(model.named_modules())
        assert result.kept["stem"] == modules["stem"].out_channels
        removed = result.removed_blocks
        assert len(removed) == 1
        assert result.kept[f"{removed[0]}.conv1"] == 0
        assert result.cost is not None
        assert result.cost.params == sum(parameter.numel() for parameter in model.parameters())
        assert 4 * result.cost.params < result.cost.size_bytes < session.dense.cost.size_bytes
        assert result.cost.latency_ms is None
    rows = driver.frame().set_index("number").loc[[one.result.number for one in stopped]]
    assert rows["params"].notna().all()
    assert not rows["on_front"].any()


def test_epochs_that_were_not_heard_are_in_the_curve_after_a_resume(tiny_study: Callable[..., PreparedStudy]) -> None:
    session = tiny_study(STOPPING, "cut")
    first = driver_of(session)
    config = first.suggest()
    assert config is not None
    events = Worker(session.folder).run(config)
    heard = next(events)
    assert isinstance(heard, EpochReport)
    first.report(heard)
    unheard = next(events)  # it is in the checkpoint, and the process dies
    assert isinstance(unheard, EpochReport)
    second = driver_of(session)
    again = second.suggest()
    assert again is not None
    for event in Worker(session.folder).run(again):
        if isinstance(event, TrialResult):
            second.complete(event)
        else:
            second.report(event)
    (one,) = trained(second)
    assert one.config == config
    assert one.curve[:2] == (heard.metric, unheard.metric)
    free = tiny_study(STOPPING | {"search": {"stop_early": False}}, "free")
    assert one.curve == tuple(report.metric for report in twin_reports(free, one))[: one.result.epochs]


def test_a_trial_that_was_to_be_stopped_when_the_process_died_is_stopped_after_the_resume(
    tiny_study: Callable[..., PreparedStudy],
) -> None:
    def until_first_stop(driver: Driver, die: bool) -> int:
        worker = Worker(driver.folder)
        while (config := driver.suggest()) is not None:
            for event in worker.run(config):
                if isinstance(event, TrialResult):
                    driver.complete(event)
                elif not driver.report(event):
                    if not die:
                        driver.end_early(event.number)
                    return event.epoch
        raise AssertionError("nobody was stopped")

    session = tiny_study(STOPPING, "died")
    epoch = until_first_stop(driver_of(session), die=True)
    driver = driver_of(session)
    assert until_first_stop(driver, die=False) == epoch
    (one,) = [each for each in trained(driver) if each.result.state == "stopped"]
    assert one.result.epochs == len(one.curve) == epoch


def test_trials_that_were_not_trained_are_none(tiny_study: Callable[..., PreparedStudy]) -> None:
    driver = driver_of(tiny_study(STOPPING, "failed"))
    assert driver.suggest() is not None
    assert trained(driver) == []
    driver.fail(0, "RuntimeError: no")
    assert trained(driver) == []


def test_curves_are_noted_where_nobody_is_stopped(tiny_study: Callable[..., PreparedStudy]) -> None:
    session = tiny_study({"search": {"trials": 1, "ladder": 0}, "training": {"epochs": 3}}, "noted")
    driver = driver_of(session)
    run_inline(driver, Worker(session.folder))
    for one in trained(driver):
        assert one.result.state == "finished"
        assert one.curve == tuple(report.metric for report in twin_reports(session, one))
