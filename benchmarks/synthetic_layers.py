"""Samplers on thirty layers, two hundred trials, a formula for training: the form of a cut, and the model of accuracy.

The network, the space and the samplers are real; a trial's accuracy comes from the formula of
``benchmarks.suggest_time``, by which layers differ in how much a cut hurts, and noise. ``cost_aware`` is given the
sensitivity map that follows from the formula. Its cuts are budgets, the map followed more or less strongly, with
deviations of single layers; ``raw ratios`` is the same sampler whose cuts are a ratio of each layer's own, ``learned
costs`` the same that learns what a network costs from the trials, ``forest`` and ``BoTorch`` the same with other models
of accuracy (``pip install botorch``; left out where it is not there). All trials start from dense. Hypervolume over
accuracy 0.5 at 1.0x MACs, on a linear axis and on a log axis from 0.01x.

    python -m benchmarks.synthetic_layers
"""

import argparse
import importlib.util
import json
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from rich.console import Console
from rich.table import Table

from autoprune.search.samplers.cost_aware import CostAwareSampler, CostAwareSettings, SearchKnowledge
from autoprune.search.samplers.cost_aware.settings import Replacements
from autoprune.study.records import CONFIG, RESULT
from autoprune.trial import to_dict
from benchmarks.markdown import markdown_table
from benchmarks.search_quality.measures import front_volume
from benchmarks.search_quality.methods.ablations import LearnedCosts, RawRatios
from benchmarks.suggest_time_studies import N_TRAINING, Problem
from benchmarks.synthetic_layers_surrogates import BoTorchModel, ForestModel

OUT = Path("benchmarks/results/synthetic_layers.parquet")
N_LAYERS, N_TRIALS, N_SEEDS = 30, 200, 5
MOMENTS = (50, 100, 200)
REFERENCE = 0.5


def cost_aware(problem: Problem, seed: int, replacements: Replacements | None = None) -> BaseSampler:
    """Make the project's sampler, every trial from dense, with the sensitivity map that the formula means."""
    space = problem.space_for("cost_aware", "dense")

    def all_allowed(widths: Any) -> Any:
        return np.ones(len(widths), dtype=bool)

    knowledge = SearchKnowledge(
        space=space,
        table=problem.table,
        dense=problem.dense,
        start="dense",
        has_model=lambda number: False,
        budget_epochs=float(N_TRIALS),
        allowed=all_allowed,
        drop=problem.drop,
        settings=CostAwareSettings(replacements=replacements or Replacements()),
    )
    return CostAwareSampler(knowledge, seed)


METHODS: dict[str, Callable[[Problem, int], BaseSampler]] = {
    "cost_aware": cost_aware,
    "cost_aware, raw ratios": partial(cost_aware, replacements=Replacements(candidate_generator=RawRatios)),
    "cost_aware, learned costs": partial(cost_aware, replacements=Replacements(known_costs=LearnedCosts)),
    "cost_aware, forest": partial(cost_aware, replacements=Replacements(score_model=ForestModel)),
    "cost_aware, BoTorch": partial(cost_aware, replacements=Replacements(score_model=BoTorchModel)),
    "tpe": lambda problem, seed: TPESampler(seed=seed),
    "nsga2": lambda problem, seed: NSGAIISampler(seed=seed),
    "random": lambda problem, seed: RandomSampler(seed=seed),
}


def run(problem: Problem, method: str, seed: int) -> pd.DataFrame:
    """Accuracy and share of the dense MACs of every trial, in order."""
    space, rows = problem.space_for("random", "dense"), []
    study = optuna.create_study(directions=space.spec.directions, sampler=METHODS[method](problem, seed))
    for number in range(N_TRIALS):
        trial = study.ask()
        config = space.suggest(trial, 1000 * seed + number)
        trial.set_user_attr(CONFIG, json.dumps(to_dict(config)))
        result = problem.result(config)
        trial.set_user_attr(RESULT, json.dumps(to_dict(result)))
        assert result.cost is not None
        study.tell(trial, [result.metric, result.cost.flops])
        rows.append((result.metric, result.cost.flops / problem.dense.cost.flops))
    return pd.DataFrame(rows, columns=["accuracy", "macs_share"])


def volumes(trials: pd.DataFrame) -> dict[str, float]:
    """Hypervolume after so many trials, on both axes."""
    return {
        f"{'log' if log else 'linear'}_{n}": front_volume(*trials[:n].to_numpy().T, REFERENCE, log)
        for log in (False, True)
        for n in MOMENTS
    }


def cells_of(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Method -> on both axes medians over the seeds after so many trials, and the range after all; CPU s a trial."""
    found: dict[str, list[str]] = {}
    for method in (name for name in METHODS if name in set(frame["method"])):
        runs, cells = frame[frame["method"] == method], list[str]()
        for axis in ("linear", "log"):
            cells.append(" / ".join(f"{runs[f'{axis}_{n}'].median():.3f}" for n in MOMENTS))
            last = runs[f"{axis}_{MOMENTS[-1]}"]
            cells.append(f"{last.min():.3f} to {last.max():.3f}")
        cells.append(f"{runs['cpu_s'].median():.2f}")
        found[method] = cells
    return found


def readme_table(rows: pd.DataFrame) -> list[str]:
    """Return README's table: a row a sampler."""
    headings = ("sampler", "linear", "range", "log", "range", "CPU s")
    return markdown_table(headings, [[method, *cells] for method, cells in cells_of(rows).items()])


def table_of(frame: pd.DataFrame) -> Table:
    """A row a method."""
    after = " / ".join(map(str, MOMENTS))
    table = Table(title=f"hypervolume after {after} trials, {N_LAYERS} layers", title_justify="left", box=None)
    for heading in ("method", "linear", "range", "log", "range", "CPU s"):
        table.add_column(heading, no_wrap=True)
    for method, cells in cells_of(frame).items():
        table.add_row(method, *cells)
    return table


def save(path: Path, rows: pd.DataFrame) -> None:
    """Write rows in the place of those of the same methods."""
    if path.exists():
        before = pd.read_parquet(path)
        rows = pd.concat([before[~before["method"].isin(rows["method"])], rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(path, index=False)


def main() -> None:
    """Run every method, save the rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=N_SEEDS, help="how many")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--table", action="store_true", help="only print what was measured before")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    if not args.table:
        torch.set_num_threads(1)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        problem = Problem(N_LAYERS + N_TRAINING)
        rows = []
        for method in args.methods:
            if method == "cost_aware, BoTorch" and importlib.util.find_spec("botorch") is None:
                continue
            for seed in range(args.seeds):
                began = time.process_time()
                found = volumes(run(problem, method, seed))
                spent = (time.process_time() - began) / N_TRIALS
                rows.append({"method": method, "seed": seed} | found | {"cpu_s": spent})
        save(args.out, pd.DataFrame(rows))
    Console(soft_wrap=True, highlight=False, width=120).print(table_of(pd.read_parquet(args.out)))


if __name__ == "__main__":
    main()
