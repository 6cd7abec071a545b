"""The search-quality benchmark: its measures against hand-worked values, and runs of a few epochs on digits."""

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from autoprune.search.samplers.cost_aware import CostAwareSettings
from autoprune.search.samplers.cost_aware.settings import (
    AcquisitionSettings,
    CandidateSettings,
    InitialDesignSettings,
)
from autoprune.trial import OptimizerConfig, PruningConfig, RunId, ScheduleConfig, SensitivityJob, TrialConfig
from benchmarks.search_quality import __main__ as command
from benchmarks.search_quality import measures, results
from benchmarks.search_quality.lab import CountingWorker, Lab
from benchmarks.search_quality.methods import METHODS, MethodUnavailableError
from benchmarks.search_quality.methods._base import coarse_to_fine, train_budgets, uniform_steps
from benchmarks.search_quality.methods.global_ranking import global_widths
from benchmarks.search_quality.settings import SETTINGS, prepared
from benchmarks.search_quality.table import print_tables

pytestmark = pytest.mark.usefixtures("brief_latency")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    prepared(SETTINGS["digits"], 0, folder)
    return folder


@pytest.fixture
def lab(work: Path, tmp_path: Path) -> Callable[..., Lab]:
    def make(budget: int) -> Lab:
        setting = replace(SETTINGS["digits"], budget=budget)
        return Lab(setting, 0, prepared(setting, 0, work), tmp_path / "run", {})

    return make


def config_of(run: RunId, epochs: int) -> TrialConfig:
    batch_size = ScheduleConfig("constant", {"size": 64})
    lr = ScheduleConfig("constant", {"lr": 0.1})
    return TrialConfig(run, 0, epochs, OptimizerConfig("sgd", {}), lr, batch_size, PruningConfig())


def test_hypervolume_is_what_is_worked_out_by_hand() -> None:
    accuracy, share = [0.9, 0.8, 0.4], [0.5, 0.1, 0.001]
    # Boxes below 0.9 from 0.5x to 1.0x and below 0.8 from 0.1x to 0.5x, both above 0.5; 0.4 adds nothing.
    assert measures.front_volume(accuracy, share, 0.5, log=False) == pytest.approx(0.4 * 0.5 + 0.3 * 0.4)
    at_half = 1 + math.log10(0.5) / 2
    assert measures.front_volume(accuracy, share, 0.5, log=True) == pytest.approx(
        0.4 * (1 - at_half) + 0.3 * (at_half - 0.5)
    )
    assert measures.cost_axis([0.0001, 0.01, 0.1, 1.0], log=True) == pytest.approx([0.0, 0.0, 0.5, 1.0])


def test_coarse_to_fine_visits_all_and_spreads_the_first() -> None:
    order = list(coarse_to_fine(list(range(12))))
    assert sorted(order) == list(range(12))
    assert order[:3] == [0, 8, 4]
    assert list(coarse_to_fine([7])) == [7]


@pytest.mark.benchmarks
def test_a_trial_is_shortened_to_what_is_left_and_chains_count_once(lab: Callable[..., Lab]) -> None:
    made = lab(budget=5)
    schedule = ScheduleConfig("constant", {"lr": 0.05})
    first = made.train({"stage2.conv2": 20}, epochs=2, lr_schedule=schedule)
    made.train({"stage2.conv2": 16}, epochs=4, lr_schedule=schedule, parent=first.number)
    rows = made.rows()
    assert rows["epochs"].tolist() == [2, 3]
    assert rows["epochs_spent"].tolist() == [2, 5]
    assert rows["parent"].isna().tolist() == [True, False]
    assert rows["macs_share"].is_monotonic_decreasing
    assert rows.loc[rows["on_front"], "accuracy_test"].between(0.5, 1.0).all()


@pytest.mark.benchmarks
def test_a_probe_costs_the_examples_it_reads(lab: Callable[..., Lab]) -> None:
    made = lab(budget=5)
    worker: CountingWorker = made.worker
    list(worker.run(config_of(SensitivityJob(0), epochs=0)))
    n_train = len(made.task.data.train)
    # Of few training images a quarter is judged, and an eighth recalibrates the batch norm.
    assert worker.spent == pytest.approx((n_train // 4 + n_train // 8) / n_train)
    assert worker.rows[0]["state"] == "probe"


@pytest.mark.benchmarks
@pytest.mark.parametrize(("method", "budget"), [("random_nearest", 6), ("ladder_inherited", 17)])
def test_a_run_spends_its_epochs_and_is_read_back(method: str, budget: int, work: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    setting = replace(SETTINGS["digits"], budget=budget)
    command.run_one(setting, method, 0, work, out)
    frame = results.read(out)
    assert results.has_run(frame, "digits", method, 0)
    assert not results.has_run(frame, "digits", method, 1)
    assert frame["epochs"].sum() == frame["epochs_spent"].max() == budget
    assert frame.loc[frame["on_front"], "accuracy_test"].notna().all()
    results.write_run(out, frame.iloc[:1])  # the same run again takes the place of the first
    assert len(results.read(out)) == 1
    results.write_run(out, frame.assign(seed=1))
    text = io.StringIO()
    print_tables(results.read(out), list(SETTINGS), Console(file=text, width=200))
    assert method in text.getvalue()
    assert max(map(len, text.getvalue().splitlines())) <= 80


@pytest.mark.benchmarks
def test_the_global_ranking_fills_the_budget_and_cuts_what_it_is_given(lab: Callable[..., Lab]) -> None:
    made = lab(budget=5)
    half = global_widths(made, 0.5, None)
    assert 0.45 < made.macs_share(half) <= 0.5
    uneven = {width / made.groups[group] for group, width in half.items()}
    assert len(uneven) > 1
    parent = made.train(half, epochs=1, lr_schedule=ScheduleConfig("constant", {"lr": 0.05}))
    fifth = global_widths(made, 0.2, parent.number)
    assert made.macs_share(fifth) <= 0.2
    assert all(fifth[group] <= half[group] for group in half)
    assert global_widths(made, 0.0001, None) == {group: made.space.width(group, 0.9) for group in made.groups}


@pytest.mark.benchmarks
def test_each_step_is_trained_from_the_one_before(lab: Callable[..., Lab]) -> None:
    made = lab(budget=5)
    steps = uniform_steps(made, 3)
    train_budgets(made, lambda share: 0.05, steps, lambda step, parent: step, epochs=5, inherit=True)
    rows = made.rows()
    assert rows["epochs"].tolist() == [2, 2, 1]
    assert rows["parent"].fillna(-1).tolist() == [-1, 0, 1]
    assert rows["macs_share"].tolist() == [pytest.approx(made.macs_share(step)) for step in steps]


@pytest.mark.benchmarks
def test_a_method_without_its_package_says_what_it_needs(
    lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AUTOPRUNE_MODELOPT_PYTHON", raising=False)
    with pytest.raises(MethodUnavailableError, match="AUTOPRUNE_MODELOPT_PYTHON"):
        METHODS["fastnas"].run(lab(budget=5))


def distillation_weights(out: Path) -> set[float]:
    trainings = [json.loads(text) for text in results.read(out)["schedules"]]
    return {training.get("distillation", {}).get("weight", 0.0) for training in trainings}


@pytest.mark.benchmarks
def test_a_distilled_ladder_follows_the_dense_network(work: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    command.run_one(replace(SETTINGS["digits"], budget=14), "ladder_distilled", 0, work, out)
    assert distillation_weights(out) == {0.7}


@pytest.mark.benchmarks
def test_a_distilled_tree_searches_whether_to_follow_the_dense_network(work: Path, tmp_path: Path) -> None:
    # Each trial draws its training anew and no model chooses: which weights come does not hang on an accuracy's digits.
    drawn = CostAwareSettings(
        initial_design=InitialDesignSettings(enabled=False),
        candidates=CandidateSettings(min_change_probability=1.0),
        acquisition=AcquisitionSettings(min_trials=10**9),
    )
    distilled = replace(METHODS["tree_distilled"], run=partial(Lab.search, sampler_settings=drawn))
    out = tmp_path / "out.parquet"
    short = replace(SETTINGS["digits"], budget=14, longest=2)
    command.run_one(short, "drawn", 0, work, out, {"drawn": distilled})
    assert distillation_weights(out) == {0.0, 0.7}


def test_every_method_name_fits_the_table() -> None:
    assert max(map(len, METHODS)) <= 20


def test_the_account_at_a_time_takes_no_later_trial() -> None:
    run = pd.DataFrame(
        {
            "state": ["finished", "probe", "finished"],
            "epochs_spent": [2.0, 2.5, 4.5],
            "accuracy": [0.8, float("nan"), 0.9],
            "macs_share": [0.5, float("nan"), 0.5],
        }
    )
    assert measures.volume_at(run, 4.0, 0.5, log=False) == pytest.approx(0.3 * 0.5)
    assert measures.volume_at(run, 4.5, 0.5, log=False) == pytest.approx(0.4 * 0.5)
    assert measures.epochs_until(run, 0.16, 0.5, log=False) == 4.5
    assert measures.epochs_until(run, 0.15, 0.5, log=False) == 2.0
    assert measures.epochs_until(run, 0.25, 0.5, log=False) == math.inf


@pytest.mark.benchmarks
def test_a_trial_that_is_stopped_counts_its_epochs(lab: Callable[..., Lab]) -> None:
    worker = lab(budget=5).worker
    for _ in worker.run(config_of(0, epochs=3)):
        break
    assert worker.spent == 1
    assert worker.rows[0]["state"] == "stopped"
