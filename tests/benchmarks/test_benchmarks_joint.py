"""The benchmark of joint search: short runs on digits, and who started from whom with which training."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from optuna.trial import FixedTrial

from autoprune.study.records import result_of
from autoprune.trial import ScheduleConfig
from benchmarks.search_quality import __main__ as command
from benchmarks.search_quality import results
from benchmarks.search_quality.lab import Lab
from benchmarks.search_quality.methods.joint import ORDERS, first_guess, ratio_space, training_space, uniform_at
from benchmarks.search_quality.settings import SETTINGS, prepared

pytestmark = [pytest.mark.benchmarks, pytest.mark.usefixtures("brief_latency")]

SMALL = replace(SETTINGS["digits"], budget=24, longest=4)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    prepared(SMALL, 0, folder)
    return folder


@pytest.fixture
def run(work: Path, tmp_path: Path) -> Callable[[str], pd.DataFrame]:
    def make(method: str) -> pd.DataFrame:
        out = tmp_path / "joint.parquet"
        command.run_one(SMALL, method, 0, work, out, ORDERS)
        return results.read(out)

    return make


def trainings(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [json.loads(schedules) for schedules in rows["schedules"]]


def spends_all(rows: pd.DataFrame) -> bool:
    return bool(SMALL.budget - 1 < rows["epochs"].sum() <= SMALL.budget)


def test_ratios_first_cuts_with_one_training_then_trains_on_with_many(run: Callable[[str], pd.DataFrame]) -> None:
    rows = run("ratios_first")
    assert spends_all(rows)
    trials = rows[rows["state"] == "finished"]
    assert trials["number"].tolist() == list(range(len(trials)))
    first = trials[trials["epochs_spent"] <= SMALL.budget / 2]
    rest = trials[trials["epochs_spent"] > SMALL.budget / 2]
    assert len(first) > 1
    assert len(rest) > 1
    # By hand: the middle of 0.003 to 0.2 and of 1e-5 to 1e-3 on a log axis, of 32, 64, 128, and a rate that settles.
    for training in [*trainings(first), trainings(rest)[0]]:
        assert training["lr_schedule"]["kind"] == "one_cycle"
        assert training["lr_schedule"]["params"]["lr"] == pytest.approx(0.0006**0.5)
        assert training["optimizer"]["params"]["weight_decay"] == pytest.approx(1e-4)
        assert training["batch_size_schedule"]["kind"] == "constant"
        assert training["batch_size_schedule"]["params"]["size"] == 64
    assert len(set(rest["schedules"])) > 1
    widths = dict(zip(trials["number"], trials["widths"], strict=True))
    assert all(row.widths == widths[row.parent] for row in rest.itertuples())


def test_schedules_first_tries_them_at_two_cuts_then_cuts_with_the_best(run: Callable[[str], pd.DataFrame]) -> None:
    rows = run("schedules_first")
    assert spends_all(rows)
    assert rows["state"].tolist()[:2] == ["finished", "finished"]
    tried, cut = rows.iloc[:2], rows.iloc[2:]
    assert tried["parent"].isna().all()
    assert tried["macs_share"].tolist() == [pytest.approx(0.5, rel=0.1), pytest.approx(0.1, rel=0.2)]
    cut = cut[cut["state"] == "finished"]
    assert set(cut["schedules"]) == set(tried["schedules"])
    assert cut["number"].tolist() == list(range(2, 2 + len(cut)))


def test_the_tree_may_start_from_what_was_trained_before(work: Path, tmp_path: Path) -> None:
    lab = Lab(SMALL, 0, prepared(SMALL, 0, work), tmp_path / "run", ORDERS["joint"].changes(SMALL))
    half = uniform_at(lab, 0.5)
    made = [lab.train(half, epochs=2, lr_schedule=ScheduleConfig("one_cycle", {"lr": 0.05})) for _ in range(2)]
    lab.search(lab.narrowed({"search": {"epochs": 10}}))
    assert 13 < lab.worker.spent <= 14
    study = optuna.load_study(study_name=lab.space.spec.study, storage=f"sqlite:///{lab.folder.database}")
    assert [trial.number for trial in study.trials[:2]] == [result.number for result in made]
    for trial, result in zip(study.trials, made, strict=False):
        assert result_of(trial) == result
        assert trial.values == [result.metric, result.cost.flops if result.cost else None]
    rows = lab.trials()
    assert rows.loc[rows["state"] == "finished", "number"].tolist() == list(range(len(study.trials)))
    best = rows[rows["on_front"]].iloc[-1]
    assert lab.result(int(best["number"])).metric == best["accuracy"]
    more = lab.train(half, epochs=1, lr_schedule=ScheduleConfig("one_cycle", {"lr": 0.05}))
    assert more.number == len(study.trials)


def test_only_the_training_or_only_the_ratios(work: Path, tmp_path: Path) -> None:
    lab = Lab(SMALL, 0, prepared(SMALL, 0, work), tmp_path / "run", ORDERS["joint"].changes(SMALL))
    training, everything = training_space(lab), {each.name for each in lab.space.dimensions()}
    schedules = {each.name for each in training.dimensions()}
    assert schedules == {name for name in everything if name.partition(".")[0] not in ("epochs", "neuron")}
    chosen = training.suggest(
        FixedTrial(first_guess(training) | {"lr_schedule": "step", "lr_schedule.step.lr": 0.1}), 0
    )
    ratios = ratio_space(lab, chosen, 7)
    assert {each.name for each in ratios.dimensions()} == everything - schedules
    assert ratios.spec.search.epochs == 7
    asked = ratios.suggest(FixedTrial({each.name: each.middle() for each in ratios.dimensions()}), 0)
    assert asked.lr_schedule == chosen.lr_schedule
    assert asked.optimizer == chosen.optimizer
    assert asked.batch_size_schedule == chosen.batch_size_schedule
