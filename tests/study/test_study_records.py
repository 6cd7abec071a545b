"""The tables of a study have the columns and types that are promised, with rows or without."""

from collections.abc import Callable

import pandas as pd
import pytest

from autoprune.search.driver import Driver
from autoprune.search.prepare import PreparedStudy
from autoprune.trial import Cost, TrialResult

PROMISED = [
    *(
        "number",
        "state",
        "metric.accuracy",
        "metric.accuracy_se",
        "params",
        "nonzero_params",
        "size_bytes",
        "macs",
        "flops",
        "latency_ms",
    ),
    *("parent", "lineage", "epochs", "epochs_lineage", "optimizer", "lr_schedule", "batch_size_schedule"),
    *("distillation", "train_time_s", "seed", "error", "on_front", "source"),
]


@pytest.fixture
def driver(tiny_study: Callable[..., PreparedStudy]) -> Driver:
    session = tiny_study({"training": {"optimizer": {"nesterov": [False, True]}}})
    return Driver(session.folder, session.space, session.table, session.dense)


def test_columns_and_types_of_the_written_tables(driver: Driver) -> None:
    groups = ["stem", "block1.conv1", "block2.conv1"]
    searched = {dimension.name for dimension in driver.space.dimensions()}
    assert {"lr_schedule", "lr_schedule.constant.lr", "batch_size_schedule.constant.size"} <= searched
    for n_told in range(3):
        if n_told == 1:
            config = driver.suggest()
            assert config is not None
            cost = Cost(params=10, nonzero_params=9, size_bytes=80, macs=50, latency_ms=0.25)
            kept = {"stem": 8, "block1.conv1": 3, "block2.conv1": 0}
            driver.complete(
                TrialResult(
                    0, "finished", 0.75, 0.5, cost, kept, ("block2",), 2, 2, 1.5, seed=config.seed, metric_se=0.01
                )
            )
        elif n_told == 2:
            assert driver.suggest() is not None
            driver.fail(1, "RuntimeError: no")
        driver.write()
        trials, front = pd.read_parquet(driver.folder.trials), pd.read_parquet(driver.folder.front)
        assert list(trials.columns[: len(PROMISED)]) == PROMISED
        rest = list(trials.columns[len(PROMISED) :])
        assert rest == [f"param.{name}" for name in rest_names(rest)] + [f"kept.{group}" for group in groups]
        assert set(rest_names(rest)) == searched
        assert list(front.columns) == [*trials.columns, "excluded", "metric.accuracy_test"]
        assert len(trials) == n_told
        assert len(front) == min(n_told, 1)
        types = trials.dtypes.astype(str)
        assert set(types[["number", "seed"]]) == {"int64"}
        assert set(types[["params", "nonzero_params", "size_bytes", "macs", "flops", "parent"]]) == {"Int64"}
        assert set(types[["epochs", "epochs_lineage", "kept.stem"]]) == {"Int64"}
        assert set(types[["metric.accuracy", "metric.accuracy_se", "latency_ms", "train_time_s"]]) == {"float64"}
        texts = {
            "state",
            "error",
            "source",
            "lineage",
            "optimizer",
            "lr_schedule",
            "batch_size_schedule",
            "distillation",
        }
        assert set(types[sorted(texts)]) == {"str"}
        assert types["on_front"] == "bool"
        assert types["param.lr_schedule"] == "str"
        assert types["param.lr_schedule.cosine.lr"] == types["param.neuron.ratio.stem"] == "float64"
        assert types["param.batch_size_schedule.constant.size"] == "Int64"
        assert types["param.optimizer.sgd.nesterov"] == "boolean"
        assert str(front["metric.accuracy_test"].dtype) == "float64"
    finished, failed = trials.iloc[0], trials.iloc[1]
    assert finished[PROMISED[:10]].tolist() == [0, "finished", 0.75, 0.01, 10, 9, 80, 50, 100, 0.25]
    assert finished[["kept.stem", "kept.block1.conv1", "kept.block2.conv1"]].tolist() == [8, 3, 0]
    assert finished["on_front"]
    assert finished["param.lr_schedule"] == config.params["lr_schedule"]
    assert failed["state"] == "failed"
    assert failed["error"] == "RuntimeError: no"
    assert failed[["metric.accuracy", "params", "latency_ms", "kept.stem"]].isna().all()
    assert not failed["on_front"]


def rest_names(columns: list[str]) -> list[str]:
    return [column.removeprefix("param.") for column in columns if column.startswith("param.")]
