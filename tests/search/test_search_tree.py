"""The tree: trials that start from trained networks, after a sensitivity map, by the sampler cost_aware."""

from collections.abc import Callable
from typing import Any

from autoprune.engines.inline import run_inline
from autoprune.search.driver import Driver
from autoprune.search.prepare import PreparedStudy
from autoprune.search.samplers.cost_aware import CostAwareSettings
from autoprune.study.records import ORIGIN, config_of, result_of
from autoprune.trial import SensitivityJob, TrialConfig, TrialResult
from autoprune.worker import Worker

TREE: dict[str, Any] = {
    "training": {"epochs": [1, 2], "lr_schedule": {"kind": "cosine", "lr": {"low": 0.01, "high": 0.1, "log": True}}},
    "pruning": [{"method": "neuron", "criterion": ["l1", "l2"]}],
    "search": {"sampler": "cost_aware", "trials": 14, "ladder": 1, "stop_early": True, "sensitivity": True},
}


def driver_of(session: PreparedStudy, n_trials: int | None = None) -> Driver:
    return Driver(session.folder, session.space, session.table, session.dense, n_trials)


def run_probes(driver: Driver, worker: Worker, limit: int = 1000) -> int:
    done = 0
    while driver.status().n_sensitivity_jobs_left and done < limit:
        config = driver.suggest()
        assert config is not None
        assert isinstance(config.run, SensitivityJob)
        (result,) = worker.run(config)
        assert isinstance(result, TrialResult)
        driver.complete(result)
        done += 1
    return done


def test_the_tree_of_a_whole_study(tiny_study: Callable[..., PreparedStudy]) -> None:
    session = tiny_study(TREE)
    driver = driver_of(session)
    run_inline(driver, Worker(session.folder))
    trials = driver.study.get_trials(deepcopy=False)
    assert len(trials) == 14

    inherited = 0
    for trial in trials:
        config, result = config_of(trial), result_of(trial)
        assert config is not None
        assert result is not None
        assert result.state in ("finished", "stopped"), result.error
        if config.parent is not None:
            parent = result_of(trials[config.parent])
            assert parent is not None
            assert all(result.kept[group] <= width for group, width in parent.kept.items())
            assert result.epochs_lineage == result.epochs + parent.epochs_lineage
            inherited += 1
    assert inherited >= 5

    origins = [trial.user_attrs.get(ORIGIN) for trial in trials]
    assert origins[0] is None  # the uniform ladder
    assert origins[1].startswith("rate")
    assert any(str(origin).startswith("descent") for origin in origins)

    kept = {int(path.name) for path in session.folder.checkpoints.iterdir() if path.is_dir()}
    assert kept == set(driver.front.members)


def test_probes_go_on_where_they_were_cut_off(tiny_study: Callable[..., PreparedStudy]) -> None:
    session = tiny_study(TREE, "probes")
    worker = Worker(session.folder)
    first = driver_of(session)
    n_points = first.status().n_sensitivity_jobs_left
    assert run_probes(first, worker, 3) == 3
    cut_off = first.suggest()
    assert cut_off is not None
    second = driver_of(session)
    assert second.status().n_sensitivity_jobs_left == n_points - 3
    run_probes(second, worker)
    trial = second.suggest()
    assert trial is not None
    assert trial.number == 0


def test_workers_wait_for_the_last_probes(tiny_study: Callable[..., PreparedStudy]) -> None:
    session = tiny_study(TREE, "waiting")
    driver = driver_of(session)
    given: list[TrialConfig] = []
    while (config := driver.suggest()) is not None:
        given.append(config)
    assert all(isinstance(config.run, SensitivityJob) for config in given)
    assert len({config.run for config in given}) == driver.status().n_sensitivity_jobs_left == len(given)
    driver.release(given[0].run)
    again = driver.suggest()
    assert again is not None
    assert again.run == given[0].run


def test_a_resumed_study_suggests_what_an_uninterrupted_one_does(tiny_study: Callable[..., PreparedStudy]) -> None:
    def params(name: str, lengths: list[int]) -> list[Any]:
        session = tiny_study(TREE, name)
        worker = Worker(session.folder)
        for length in lengths:
            driver = driver_of(session)
            run_probes(driver, worker)
            for _ in range(length):
                config = driver.suggest()
                assert config is not None
                *_, result = worker.run(config)
                assert isinstance(result, TrialResult)
                driver.complete(result)
        trials = driver.study.get_trials(deepcopy=False)
        return [(trial.params, config_of(trial)) for trial in trials]

    assert params("cut", [4, 5, 2]) == params("whole", [11])


def test_first_trials_begin_below_a_ceiling(tiny_study: Callable[..., PreparedStudy]) -> None:
    session = tiny_study(TREE | {"constraints": {"flops": "0.4x"}}, "ceiling")
    driver, worker = driver_of(session), Worker(session.folder)
    run_probes(driver, worker)
    origins = []
    lr_positions = CostAwareSettings().initial_design.lr_positions
    for _ in range(1 + len(lr_positions) + 1):  # a ladder's, at most all learning rates, and a step of the descent
        config = driver.suggest()
        assert config is not None
        assert driver.table.cost(config.pruning.widths).macs <= 0.4 * driver.table.cost({}).macs
        origins.append(driver.study.get_trials(deepcopy=False)[config.number].user_attrs.get(ORIGIN))
        *_, result = worker.run(config)
        assert isinstance(result, TrialResult)
        driver.complete(result)
    assert any(str(origin).startswith("rate") for origin in origins)
    assert any(str(origin).startswith("descent") for origin in origins)
