"""The driver gives out trials, takes what became of them, and keeps counts, front and networks right."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from changes import OnChange

from autoprune.errors import StudyError
from autoprune.search import failure_limit
from autoprune.search.driver import Driver
from autoprune.search.final_evaluation import evaluate_on_test
from autoprune.search.prepare import PreparedStudy
from autoprune.study.pareto import non_dominated_mask
from autoprune.trial import Cost, EpochReport, TrialConfig, TrialResult

MakeDriver = Callable[..., Driver]


def open_driver(session: PreparedStudy, n_trials: int | None = None) -> Driver:
    return Driver(session.folder, session.space, session.table, session.dense, n_trials)


@pytest.fixture
def make_driver(tiny_study: Callable[..., PreparedStudy]) -> MakeDriver:
    """Opens a driver of a tiny study, made from changes to the space file."""

    def make(changes: dict[str, Any] | None = None, n_trials: int | None = None, name: str = "a") -> Driver:
        return open_driver(tiny_study(changes, name), n_trials)

    return make


def finish(driver: Driver, config: TrialConfig, accuracy: float, macs: int = 1000) -> TrialResult:
    """Tell the driver that a trial has finished, and leave a network as the worker would."""
    folder = driver.folder.model(config.number)
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"")
    driver.folder.training_checkpoint(config.number).write_bytes(b"")
    cost = Cost(params=macs, nonzero_params=macs, size_bytes=4 * macs, macs=macs, latency_ms=0.1)
    result = TrialResult(config.number, "finished", accuracy, 1.0, cost, epochs=2, epochs_lineage=2, seed=config.seed)
    driver.complete(result)
    return result


def next_trial(driver: Driver) -> TrialConfig:
    config = driver.suggest()
    assert config is not None
    return config


def fail(driver: Driver, error: str = "RuntimeError: no") -> int:
    number = next_trial(driver).number
    driver.fail(number, error)
    return number


def test_it_gives_out_the_asked_number_of_trials_and_counts_them(make_driver: MakeDriver) -> None:
    driver = make_driver(n_trials=3)
    first, second, third = (next_trial(driver) for _ in range(3))
    assert [each.number for each in (first, second, third)] == [0, 1, 2]
    assert driver.suggest() is None
    report = EpochReport(1, 1, 0.5, 1.0, 1.0, 0.1, 32, 0.01)
    driver.report(report)
    assert driver.status().running == {0: None, 1: report, 2: None}
    assert driver.status().time_left_s is None
    finish(driver, first, 0.5)
    driver.complete(TrialResult(1, "stopped", seed=second.seed))
    driver.fail(2, "RuntimeError: no")
    status = driver.status()
    assert (status.n_finished, status.n_stopped, status.n_failed, status.n_infeasible) == (1, 1, 1, 0)
    assert status.running == {}
    assert status.time_left_s == 0
    assert driver.n_told == driver.n_trials == 3
    assert driver.suggest() is None
    states = [trial.state.name for trial in driver.study.trials]
    assert states == ["COMPLETE", "PRUNED", "FAIL"]


def test_every_change_is_told_on(tiny_study: Callable[..., PreparedStudy]) -> None:
    session, seen = tiny_study(), []
    changes = OnChange(lambda told: seen.append(told.n_told))
    driver = changes.driver = Driver(session.folder, session.space, session.table, session.dense, 1, [changes])
    config = next_trial(driver)
    driver.report(EpochReport(0, 1, 0.5, 1.0, 1.0, 0.1, 32, 0.01))
    finish(driver, config, 0.5)
    assert seen == [0, 0, 1]


def test_the_front_is_that_of_brute_force_and_of_optuna(make_driver: MakeDriver) -> None:
    driver = make_driver({"search": {"max_failures": 9}}, n_trials=25)
    generator = torch.Generator().manual_seed(0)
    points: dict[int, tuple[float, int]] = {}
    for index in range(25):
        config = next_trial(driver)
        if index % 7 == 3:
            driver.fail(config.number, "RuntimeError: no")
            continue
        accuracy, macs = torch.randint(1, 12, (2,), generator=generator).tolist()  # small range: ties and equals occur
        points[config.number] = (accuracy / 12, macs)
        finish(driver, config, accuracy / 12, macs)
        dominated = {
            one
            for one, (a, m) in points.items()
            if any(
                b >= a and n <= m and ((b, n) != (a, m) or other < one)  # of equals the first stays
                for other, (b, n) in points.items()
            )
        }
        front = points.keys() - dominated
        assert driver.front.members.keys() == front
        by_values = {tuple(trial.values): trial.number for trial in reversed(driver.study.best_trials)}
        assert front == set(by_values.values())
        kept = {int(path.name) for path in driver.folder.checkpoints.iterdir()}
        assert kept == {trial.number for trial in driver.study.best_trials}, "a trial may start from any of equals"
    frame = driver.frame()
    assert set(frame["number"][frame["on_front"]]) == front
    values = frame[frame["state"] == "finished"][["metric.accuracy", "flops"]].to_numpy(dtype="float64")
    assert non_dominated_mask(np.unique(values, axis=0), ["maximize", "minimize"]).sum() == len(front)
    reopened = make_driver(n_trials=25)
    assert reopened.front.members == driver.front.members
    assert reopened.status().hypervolume == driver.status().hypervolume > 0


def test_an_objective_that_is_not_a_number_is_a_failure(make_driver: MakeDriver) -> None:
    driver = make_driver()
    finish(driver, next_trial(driver), float("nan"))
    assert driver.status().n_failed == 1
    assert driver.frame()["error"].tolist() == ["an objective is not a number"]
    assert not driver.front.members
    assert not driver.folder.checkpoint_store.has_model(0)


def test_a_candidate_over_a_ceiling_costs_no_training_and_is_replaced(make_driver: MakeDriver) -> None:
    driver = make_driver({"constraints": {"flops": "0.5x"}, "search": {"ladder": 0}}, n_trials=8)
    limit = 0.5 * driver.dense.cost.flops
    while (config := driver.suggest()) is not None:
        assert 2 * driver.table.cost(config.pruning.widths, config.pruning.removed_blocks).macs <= limit
        finish(driver, config, 0.5)
    status = driver.status()
    assert (status.n_finished, driver.n_told) == (8, 8)
    assert status.n_infeasible > 0
    trials = driver.study.get_trials()
    infeasible = [trial for trial in trials if trial.constraints == {"ceilings": 1.0}]
    assert len(infeasible) == status.n_infeasible
    assert len(trials) == 8 + status.n_infeasible
    assert all(trial.constraints == {"ceilings": 0.0} for trial in trials if trial not in infeasible)
    rows = driver.frame().set_index("number")
    over = rows.loc[infeasible[0].number]
    assert over["state"] == "infeasible"
    assert over["error"].startswith("flops ")
    assert f"over the ceiling {limit:,.0f}" in over["error"]
    # Optuna's own test of feasibility
    assert not {trial.number for trial in infeasible} & {trial.number for trial in driver.study.best_trials}
    assert make_driver(n_trials=8).status().n_infeasible == status.n_infeasible


def test_a_ceiling_that_no_candidate_can_hold_is_refused_at_once(make_driver: MakeDriver) -> None:
    with pytest.raises(StudyError, match=r"constraints: even for the smallest network .*, flops [\d,]+ is over"):
        make_driver({"constraints": {"flops": 10}})


def test_ceilings_that_only_the_worker_can_measure_end_the_search_too(
    make_driver: MakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failure_limit, "MAX_MEASURED", 5)
    driver = make_driver({"constraints": {"size_bytes": 10}})
    for _ in range(5):
        driver.complete(TrialResult(next_trial(driver).number, "infeasible", error="size_bytes 4,000 is over"))
    assert driver.suggest() is None
    assert driver.stopped_because is not None
    assert driver.stopped_because.startswith("5 candidates in a row were over a ceiling, the last one (trial 4): size")


def test_it_stops_when_too_many_trials_in_a_row_fail_and_says_why(make_driver: MakeDriver) -> None:
    driver = make_driver({"search": {"max_failures": 2}})
    fail(driver)
    finish(driver, next_trial(driver), 0.5)
    fail(driver)
    assert driver.stopped_because is None
    fail(driver, "ValueError: the last straw (user.py:3)")
    assert driver.suggest() is None
    assert driver.stopped_because == (
        "2 trials in a row failed, the last one (trial 3): ValueError: the last straw (user.py:3)"
    )
    again = make_driver()  # the cause may be gone now
    assert again.suggest() is not None


def test_the_ladder_comes_first_with_uniform_ratios_and_only_once(make_driver: MakeDriver) -> None:
    changes = {"pruning": [{"method": "neuron", "ratio": {"low": 0.0, "high": 0.8}}], "search": {"ladder": 4}}
    driver = make_driver(changes)
    for ratio in (0.2, 0.4, 0.6, 0.8):
        config = next_trial(driver)
        ratios = [value for name, value in config.params.items() if name.startswith("neuron.ratio.")]
        assert ratios == pytest.approx([ratio] * 3)
        assert set(config.pruning.widths.values()) == {round(8 * (1 - ratio))}
    driver.interrupt()
    driver = make_driver()
    again = [next_trial(driver) for _ in range(6)]
    assert [config.number for config in again] == list(range(6))
    assert len(driver.study.trials) == 6
    uniform = [len({*config.pruning.widths.values()}) == 1 for config in again]
    assert uniform[:4] == [True] * 4


def test_test_accuracy_is_read_once(make_driver: MakeDriver, tiny_study: Callable[..., PreparedStudy]) -> None:
    from autoprune.engines.inline import run_inline
    from autoprune.worker import Worker

    session = tiny_study({"training": {"epochs": 1}, "search": {"ladder": 0}})
    driver = open_driver(session, 2)
    worker = Worker(session.folder)
    run_inline(driver, worker)
    driver.write()
    for task in (session.task, worker.task):
        assert task.data.test.n_read == 0  # type: ignore[attr-defined]
    assert pd.read_parquet(session.folder.front)["metric.accuracy_test"].isna().all()
    front = driver.frame().query("on_front")
    accuracy = evaluate_on_test(session.folder, session.task, front, torch.device("cpu"))
    assert session.task.data.test.n_read == 150 * (1 + len(front))  # type: ignore[attr-defined]
    assert evaluate_on_test(session.folder, session.task, front, torch.device("cpu")) == accuracy
    assert session.task.data.test.n_read == 150 * (1 + len(front))  # type: ignore[attr-defined]
    driver.write()
    written = pd.read_parquet(session.folder.front)
    assert written["metric.accuracy_test"].tolist() == [accuracy[str(number)] for number in written["number"]]
    assert written["metric.accuracy"].is_monotonic_decreasing


def test_another_storage_may_be_named(make_driver: MakeDriver, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    driver = make_driver({"search": {"storage": url}})
    finish(driver, next_trial(driver), 0.5)
    assert not driver.folder.database.exists()
    assert len(optuna.load_study(study_name="tiny", storage=url).best_trials) == 1
    assert make_driver().n_told == 1
