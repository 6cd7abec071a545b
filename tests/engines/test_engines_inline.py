"""The inline engine: the same space file gives the same study, bit for bit, however often it was cut off."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pandas as pd
import pytest
from changes import OnChange

from autoprune.engines import ENGINES, load_engine
from autoprune.engines.inline import run_inline
from autoprune.search.driver import Driver
from autoprune.search.prepare import PreparedStudy
from autoprune.worker import Worker

MEASURED = ["latency_ms", "train_time_s"]


def run(session: PreparedStudy, cut_at: int | None = None) -> pd.DataFrame:
    """Run the study, or a part of it: Ctrl-C comes after so many changes."""
    n_changes = 0

    def on_change(driver: Driver) -> None:
        nonlocal n_changes
        n_changes += 1
        if n_changes == cut_at:
            raise KeyboardInterrupt

    changes = OnChange(on_change)
    driver = Driver(session.folder, session.space, session.table, session.dense, callbacks=[changes])
    changes.driver = driver
    try:
        run_inline(driver, Worker(session.folder))
    except KeyboardInterrupt:
        driver.interrupt()
    driver.write()
    return pd.read_parquet(session.folder.trials)


@pytest.mark.parametrize(
    "changes",
    [
        {
            "search": {"sampler": "tpe", "trials": 12},
            "training": {"epochs": [1, 2], "gradual_pruning": [0, 0.5]},
            "pruning": [{"method": "neuron", "criterion": ["l2", "taylor"]}],
        },
        pytest.param(
            {"search": {"start": "nearest", "trials": 6}, "constraints": {"flops": "0.8x"}}, marks=pytest.mark.slow
        ),
    ],
    ids=["tpe", "nearest under a ceiling"],
)
def test_same_seed_same_study(tiny_study: Callable[..., PreparedStudy], changes: dict[str, Any]) -> None:
    whole = run(tiny_study(changes, "whole"))
    assert (whole["state"] != "infeasible").sum() == changes["search"]["trials"]
    again = run(tiny_study(changes, "again"))
    pd.testing.assert_frame_equal(again.drop(columns=MEASURED), whole.drop(columns=MEASURED), check_exact=True)
    for n_changes in (4, 9, 16):  # amid a trial, between two, while one is made
        run(tiny_study(changes, "cut"), n_changes)
    cut = run(tiny_study(changes, "cut"))
    pd.testing.assert_frame_equal(cut.drop(columns=MEASURED), whole.drop(columns=MEASURED), check_exact=True)


def test_a_trial_that_was_cut_off_goes_on_from_its_last_epoch(tiny_study: Callable[..., PreparedStudy]) -> None:
    session = tiny_study({"training": {"epochs": 4}, "search": {"trials": 1}})
    epochs: list[int] = []

    def on_change(driver: Driver) -> None:
        epochs.extend(report.epoch for report in driver.status().running.values() if report is not None)
        if epochs == [1, 2] and driver is cut:
            raise KeyboardInterrupt

    changes = OnChange(on_change)
    cut = Driver(session.folder, session.space, session.table, session.dense, callbacks=[changes])
    changes.driver = cut
    with pytest.raises(KeyboardInterrupt):
        run_inline(cut, Worker(session.folder))
    cut.interrupt()
    driver = Driver(session.folder, session.space, session.table, session.dense, callbacks=[changes])
    changes.driver = driver
    run_inline(driver, Worker(session.folder))
    assert epochs == [1, 2, 2, 3, 4], "an epoch that may not have been heard is told again, not trained again"
    assert driver.frame()["epochs"].tolist() == [4]


def test_every_engine_can_be_loaded_by_name() -> None:
    assert set(ENGINES) == {"inline", "ray"}
    for name, (module, function) in ENGINES.items():
        assert callable(load_engine(name))
        assert callable(getattr(import_module(module), function))
