"""The benchmark of synthetic layers runs on a few of them."""

import optuna
import pytest

from benchmarks import synthetic_layers
from benchmarks.suggest_time_studies import Problem


@pytest.mark.benchmarks
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_every_method_runs_its_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    monkeypatch.setattr(synthetic_layers, "N_TRIALS", 12)
    monkeypatch.setattr(synthetic_layers, "MOMENTS", (6, 12))
    problem = Problem(9)
    methods = [method for method in synthetic_layers.METHODS if method != "cost_aware, BoTorch"]
    runs = {method: synthetic_layers.run(problem, method, 0) for method in methods}
    assert {len(trials) for trials in runs.values()} == {12}
    for other in ("raw ratios", "learned costs", "forest"):
        assert not runs["cost_aware"].equals(runs[f"cost_aware, {other}"])
    for trials in runs.values():
        found = synthetic_layers.volumes(trials)
        assert 0 < found["linear_6"] <= found["linear_12"] <= 0.5


def test_the_formula_loses_what_its_groups_lose_alone() -> None:
    problem = Problem(9)
    widths = problem.table.widths
    assert sum(problem.drop(group, 1) for group in widths) < 0.5
    assert {problem.drop(group, width) for group, width in widths.items()} == {0.0}
