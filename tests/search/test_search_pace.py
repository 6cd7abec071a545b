"""What the driver does for a trial does not grow with the number of dimensions or of trials."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import sqlalchemy
from tiny import dense_reference

from autoprune.config.metric import MetricSpec
from autoprune.search.driver import Driver
from autoprune.search.prepare import PreparedStudy
from autoprune.search.samplers.cost_aware.history import History, TrainedModel, trial_key
from autoprune.study import tables
from autoprune.trial import Cost, TrialConfig, TrialResult

FEW: dict[str, Any] = {"pruning": [{"method": "neuron", "ratio": {"low": 0.0, "high": 0.8}, "layers": {"*": "skip"}}]}
SEARCH = {"search": {"ladder": 0, "trials": 50}}


def driver_of(session: PreparedStudy) -> Driver:
    return Driver(session.folder, session.space, session.table, session.dense)


def tell(driver: Driver, config: TrialConfig, accuracy: float = 0.5, macs: int = 1000) -> None:
    folder = driver.folder.model(config.number)
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"")
    cost = Cost(params=macs, nonzero_params=macs, size_bytes=4 * macs, macs=macs)
    driver.complete(TrialResult(config.number, "finished", accuracy, 1.0, cost, epochs=2, seed=config.seed))


def next_trial(driver: Driver) -> TrialConfig:
    config = driver.suggest()
    assert config is not None
    return config


def test_a_suggestion_takes_as_many_transactions_in_any_number_of_dimensions(
    tiny_study: Callable[..., PreparedStudy],
) -> None:
    counts, dimensions = [], []
    for name, changes in {"few": {**SEARCH, **FEW}, "all": SEARCH}.items():
        driver = driver_of(tiny_study(changes, name))
        tell(driver, next_trial(driver))  # the first one of a process compares each value with the database
        commits: list[object] = []
        note = commits.append
        sqlalchemy.event.listen(sqlalchemy.Engine, "commit", note)
        config = next_trial(driver)
        sqlalchemy.event.remove(sqlalchemy.Engine, "commit", note)
        counts.append(len(commits))
        dimensions.append(len(config.params))
        seen = optuna.load_study(study_name="tiny", storage=f"sqlite:///{driver.folder.database}").trials[-1]
        assert seen.params == config.params
        assert driver.study.get_trials(deepcopy=False)[-1].params == config.params
    assert dimensions[0] + 5 < dimensions[1]
    assert counts[0] == counts[1] > 0


def test_the_table_that_grew_is_that_of_a_study_opened_again(tiny_study: Callable[..., PreparedStudy]) -> None:
    session = tiny_study(SEARCH)
    driver = driver_of(session)
    first, second, third = (next_trial(driver) for _ in range(3))
    tell(driver, third, 0.4)
    driver.write()
    tell(driver, first, 0.5)
    driver.fail(second.number, "RuntimeError: no")
    driver.write()
    grown = driver.frame()
    assert grown["number"].tolist() == [0, 1, 2]
    assert grown["on_front"].tolist() == [True, False, False]
    pd.testing.assert_frame_equal(grown, driver_of(session).frame())
    pd.testing.assert_frame_equal(grown, pd.read_parquet(session.folder.trials))


def test_tables_that_take_long_are_written_more_seldom(
    tiny_study: Callable[..., PreparedStudy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "WRITE_INTERVAL_S", 0.0)
    session = tiny_study(SEARCH)
    driver = driver_of(session)
    tell(driver, next_trial(driver))
    assert len(pd.read_parquet(session.folder.trials)) == 1
    monkeypatch.setattr(tables, "WRITE_SHARE", 1e-9)
    driver.write()
    tell(driver, next_trial(driver))
    assert len(pd.read_parquet(session.folder.trials)) == 1
    driver.write()
    assert len(pd.read_parquet(session.folder.trials)) == 2


@pytest.mark.parametrize("n_costs", [1, 2])
def test_the_front_of_a_history_that_grows_is_that_of_all_its_networks(n_costs: int) -> None:
    rng = np.random.default_rng(0)
    history = History({"a": 8}, dense_reference(0.9, Cost(1, 1, 1, 1)), MetricSpec())
    names = ["params", "macs"][:n_costs]
    points: dict[int, tuple[float, ...]] = {}
    for number in range(60):
        points[number] = tuple((rng.integers(1, 9, size=1 + n_costs) / 10).tolist())  # ties and equals occur
        costs = dict(zip(names, points[number][1:], strict=True))
        history.trained[number] = TrainedModel(number, np.array([4]), points[number][0], costs, {}, (), None, 2, 2, "")
        if number % 7 == 3:
            front = history.front(lambda models: np.array([[model.costs[name] for name in names] for model in models]))
            dominated = {
                one
                for one, other in itertools.permutations(points, 2)
                if points[other] != points[one]
                and points[other][0] >= points[one][0]
                and all(a <= b for a, b in zip(points[other][1:], points[one][1:], strict=True))
            }
            latest = {points[one]: one for one in points if one not in dominated}
            assert {node.number for node in front} == set(latest.values())


def test_a_trial_is_known_by_its_parent_and_its_values_in_any_order() -> None:
    assert trial_key(3, {"a": 1, "b": 0.5}) == trial_key(3, {"b": 0.5, "a": 1})
    assert len({trial_key(*key) for key in ((3, {"a": 1}), (4, {"a": 1}), (None, {"a": 1}), (3, {"a": 2}))}) == 4
