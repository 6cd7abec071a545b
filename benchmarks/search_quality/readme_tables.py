"""README's tables of searches: a row a method, medians over its seeds."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from benchmarks.markdown import markdown_table, short
from benchmarks.search_quality.measures import SHARES
from benchmarks.search_quality.methods.joint import ORDERS
from benchmarks.search_quality.settings import SETTINGS
from benchmarks.search_quality.table import Measure, accuracy_measures, volume_measures

AS_BEFORE = "the same, `obs` and reconstructed"
TP = "Torch-Pruning's global ranking, 12 steps, each from the one before"
LADDER = "uniform ratios, each from the one before, 12 steps"

FASHION = {
    "cost_aware_tree": "cost_aware, tree",
    "tree_obs": AS_BEFORE,
    "tp_global_iterative": TP,
    "ladder_inherited": "uniform ratios, each from the one before, 2 epochs a step",
    "ladder_inherit_long": LADDER,
    "ladder_obs": AS_BEFORE,
    "ladder_dense_long": "uniform ratios from dense, 12 networks",
    "fastnas": "ModelOpt FastNAS, 12 budgets",
    "tpe_nearest": "TPE, nearest trained network",
    "tpe_dense": "TPE from dense",
}
DIGITS = {
    "cost_aware_tree": "cost_aware, tree",
    "tree_obs": AS_BEFORE,
    "ladder_inherit_long": LADDER,
    "ladder_obs": AS_BEFORE,
    "ladder_inherited": "uniform ratios, each from the one before, 4 epochs a step",
    "tp_global_iterative": TP,
    "tp_obs": AS_BEFORE,
    "tpe_nearest": "TPE, nearest trained network",
}
CIFAR10_RESNET20 = {
    "cost_aware_tree": "cost_aware, tree",
    "tree_obs": AS_BEFORE,
    "tp_global_iterative": TP,
    "ladder_inherit_long": LADDER,
    "ladder_obs": AS_BEFORE,
    "tree_distilled": "cost_aware, tree, distilled",
    "tree_obs_distilled": AS_BEFORE,
    "ladder_distilled": f"{LADDER}, distilled",
}
ABLATIONS = {
    "cost_aware_tree": "as it is",
    "cost_aware_dense": "without inheritance, trials of one length (`cost_aware_dense`)",
    "tree_without_descent": "without the planned descent",
    "tree_fixed_epochs": "all trials of one length",
    "tree_random_choice": "any of its candidates, instead of the best by the model",
    "tree_unknown_cost": "costs learned from the trials, instead of known",
    "tree_raw_ratios": "after the descent, cuts by a ratio for each group, instead of by a budget",
    "tree_with_map": "with a sensitivity map",
    "tree_stopping": "with `stop_early`",
}
"""Of each table: the method -> its name in README, in README's order."""


def fashion(rows: pd.DataFrame) -> list[str]:
    """Return the table of Fashion-MNIST."""
    return _methods(rows, "fashion", FASHION, "method")


def digits(rows: pd.DataFrame) -> list[str]:
    """Return the table of digits."""
    return _methods(rows, "digits", DIGITS, "method")


def cifar10_resnet20(rows: pd.DataFrame) -> list[str]:
    """Return the table of the ResNet-20 on CIFAR-10, which tells accuracies at two costs only."""
    return _methods(rows, "cifar10_resnet20", CIFAR10_RESNET20, "method", SHARES[:2])


def ablations(rows: pd.DataFrame) -> list[str]:
    """Return the table of the tree with one thing taken away or added, on digits."""
    return _methods(rows, "digits", ABLATIONS, "the tree")


def joint(rows: pd.DataFrame) -> list[str]:
    """Return the table of joint search, on digits: the seeds that all orders have been run with."""
    rows = rows[rows["setting"] == "digits"]
    seeds = set.intersection(*(set(rows.loc[rows["method"] == method, "seed"]) for method in ORDERS))
    found = []
    for method in ORDERS:
        runs = _runs(rows[rows["seed"].isin(seeds)], "digits", method)
        found.append([f"`{method}`", *_volumes(runs, "digits"), _accuracies(runs, 0), _accuracies(runs, 1)])
    return markdown_table(["searched", *_headings(SHARES), "on test"], found)


def _methods(
    rows: pd.DataFrame, setting: str, names: Mapping[str, str], heading: str, shares: Sequence[float] = SHARES
) -> list[str]:
    found = []
    for method, name in names.items():
        runs = _runs(rows, setting, method)
        found.append([name, str(len(runs)), *_volumes(runs, setting), _accuracies(runs, 0, shares)])
    return markdown_table([heading, "seeds", *_headings(shares)], found)


def _headings(shares: Sequence[float]) -> list[str]:
    volumes = [f"{axis}, after 1/3 / all epochs" for axis in ("linear", "log")]
    accuracies = "accuracy at " + " / ".join(f"{share:g}x" for share in shares)
    return [volumes[0], "on test", volumes[1], "on test", accuracies]


def _runs(rows: pd.DataFrame, setting: str, method: str) -> list[pd.DataFrame]:
    part = rows[(rows["setting"] == setting) & (rows["method"] == method)]
    return [run for _, run in part.groupby("seed")]


def _volumes(runs: Sequence[pd.DataFrame], setting: str) -> list[str]:
    """Four cells: on each axis the hypervolume on validation, after a third and after all epochs, and on test."""
    cells = []
    for log in (False, True):
        measures = volume_measures(SETTINGS[setting].reference, log)
        cells.append(f"{_median(runs, measures['1/3'])} / {_median(runs, measures['all'])}")
        cells.append(_median(runs, measures["all, test"]))
    return cells


def _accuracies(runs: Sequence[pd.DataFrame], index: int, shares: Sequence[float] = SHARES) -> str:
    measures = accuracy_measures(index)
    return " / ".join(_median(runs, measures[f"{share}x"]) for share in shares)


def _median(runs: Sequence[pd.DataFrame], measure: Measure) -> str:
    return short(float(np.nanmedian([measure(run) for run in runs])))
