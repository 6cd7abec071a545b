"""The tree with one thing taken away or added. Without inheritance it is ``cost_aware_dense``."""

import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel

from autoprune.search.samplers.cost_aware import sampler
from autoprune.search.samplers.cost_aware.candidates import Candidates, Generator, Widths
from autoprune.search.samplers.cost_aware.costs import Floats, KnownCosts
from autoprune.search.samplers.cost_aware.history import Node
from benchmarks.search_quality.lab import Lab
from benchmarks.search_quality.methods._base import Method
from benchmarks.search_quality.methods.search import search


def random_choice(lab: Lab) -> None:
    """Any of the tree's candidates, instead of the one of greatest expected improvement."""
    with mock.patch.object(sampler, "MIN_TRIALS", float("inf")):
        lab.search()


def without_descent(lab: Lab) -> None:
    """The model's choice from the beginning, instead of the planned descent."""
    with mock.patch.object(sampler, "next_step", return_value=None):
        lab.search()


class LearnedCosts(KnownCosts):
    """Costs as a Gaussian process over the kept widths learns them from the trained networks."""

    _process: GaussianProcessRegressor | None = None

    def learn(self, nodes: Sequence[Node]) -> None:
        kernel = Matern(1.0, (0.1, 30.0), nu=2.5) + WhiteKernel(1e-3, (1e-6, 1.0))
        process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            process.fit(self._kept(np.stack([node.widths for node in nodes])), np.log(self.measured(nodes)))
        self._process = process

    def shares(self, widths: Widths, removed_blocks: Sequence[Collection[str]] | None = None) -> Floats:
        if self._process is None:
            return super().shares(widths, removed_blocks)
        predicted: Floats = np.exp(self._process.predict(self._kept(widths)))
        return predicted.reshape(len(widths), len(self.objectives))

    def _kept(self, widths: Widths) -> Floats:
        return widths / np.array([self._table.widths[group] for group in self._groups], dtype=np.float64)


@contextmanager
def learned_costs() -> Iterator[None]:
    """Have candidates score by costs learned from the trials; they are still drawn around known ones."""
    with mock.patch.object(sampler, "KnownCosts", LearnedCosts):
        yield


def unknown_cost(lab: Lab) -> None:
    """A candidate's cost is learned, as its accuracy is."""
    with learned_costs():
        lab.search()


@contextmanager
def raw_cuts() -> Iterator[None]:
    """Have every group cut by a ratio of its own, where candidates cut all by one budget."""
    cut = Candidates._cut

    def one_by_one(self: Candidates, kind: str, picked: Sequence[Node], wide: Widths, *others: Any) -> Widths:
        if kind not in ("descend", "fill"):
            return cut(self, kind, picked, wide, *others)
        rng: Generator = others[-1]
        least = rng.random((len(wide), 1))
        return self.cuts.nearest(wide * rng.uniform(least, 1.0, size=wide.shape))

    with mock.patch.object(Candidates, "_cut", one_by_one):
        yield


def raw_ratios(lab: Lab) -> None:
    """After the planned descent no cut has the low-dimensional form of a budget."""
    with raw_cuts():
        lab.search()


TREE = {"search": {"sampler": "cost_aware", "start": "tree"}}

ABLATIONS = {
    "tree_random_choice": Method(random_choice, TREE, chooses_epochs=True),
    "tree_without_descent": Method(without_descent, TREE, chooses_epochs=True),
    "tree_unknown_cost": Method(unknown_cost, TREE, chooses_epochs=True),
    "tree_raw_ratios": Method(raw_ratios, TREE, chooses_epochs=True),
    "tree_with_map": search("cost_aware", "tree", chooses_epochs=True, sensitivity=True),
    "tree_fixed_epochs": search("cost_aware", "tree"),
    "tree_stopping": search("cost_aware", "tree", chooses_epochs=True, stop_early=True),
}
