"""The benchmark of suggestions runs on small studies, and README says what its committed rows say."""

import math
from pathlib import Path

import optuna
import pandas as pd
import pytest
import torch

from autoprune.study.folder import StudyFolder
from autoprune.study.records import config_of, result_of
from benchmarks import suggest_time
from benchmarks.suggest_time_studies import Filling, Problem, origin_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem(9)


@pytest.fixture
def filled(problem: Problem, tmp_path: Path) -> StudyFolder:
    folder = StudyFolder(tmp_path / "filled")
    filling = Filling(problem, folder)
    filling.up_to(5)
    filling.up_to(30)
    return folder


def test_optuna_reads_the_filled_study(problem: Problem, filled: StudyFolder) -> None:
    trials = optuna.load_study(study_name="suggest_time", storage=f"sqlite:///{filled.database}").trials
    assert [trial.number for trial in trials] == list(range(30))
    for trial in trials:
        config, result = config_of(trial), result_of(trial)
        assert config is not None
        assert result is not None
        assert result.cost is not None
        assert trial.params == pytest.approx(dict(config.params))
        assert trial.values == [result.metric, result.cost.flops]
    assert len({trial.values[0] for trial in trials}) == 30


@pytest.mark.parametrize("sampler", ["cost_aware, tree", "random"])
def test_a_cell_is_measured(problem: Problem, filled: StudyFolder, sampler: str, tmp_path: Path) -> None:
    assert origin_of(29) == "mutate"  # the tree, too, is past its first trials
    n_threads = torch.get_num_threads()
    row = suggest_time.measure(problem, filled, sampler, 2, 60.0)
    assert torch.get_num_threads() == n_threads
    assert "over_limit_s" not in row
    assert min(row.values()) > 0
    key = {"sampler": sampler, "dimensions": 9, "trials": 30}
    for again in (key | row, key | row | {"trials": 40}, key | row):
        suggest_time.save(tmp_path / "rows.parquet", [again])
    assert len(pd.read_parquet(tmp_path / "rows.parquet")) == 2


def test_a_cell_over_the_limit_is_given_up(problem: Problem, filled: StudyFolder) -> None:
    row = suggest_time.measure(problem, filled, "random", 2, 1e-6)
    assert row["over_limit_s"] == 1e-6
    assert "suggest_cpu_ms" not in row


@pytest.mark.benchmarks
def test_the_committed_rows() -> None:
    rows = pd.read_parquet(ROOT / suggest_time.OUT)
    assert not rows.duplicated(["sampler", "dimensions", "trials"]).any()
    tree = rows[rows["sampler"] == "cost_aware, tree"].set_index(["trials", "dimensions"])["suggest_cpu_ms"]
    assert tree[300, 30] < 300
    assert tree[3_000, 60] < 1_000
    driver = rows[rows["sampler"] == "random"].set_index(["trials", "dimensions"])
    few, many = (driver.loc[place, ["suggest_cpu_ms", "told_cpu_ms"]].sum() for place in ((100, 15), (10_000, 15)))
    assert not math.isnan(many)
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"{tree[300, 30] / 1000:.2f} s of CPU time at 300 trials and 30 dimensions" in readme
    assert f"{tree[3_000, 60] / 1000:.2f} s at 3,000 and 60" in readme
    assert f"{few:.0f} ms at 100 trials and {many:.0f} ms at 10,000" in readme
