"""The tree with one thing taken away or added. Without inheritance it is ``cost_aware_dense``."""

import warnings
from collections.abc import Collection, Sequence
from functools import partial

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel

from autoprune.search.samplers.cost_aware import CostAwareSettings
from autoprune.search.samplers.cost_aware.candidates import CandidateGenerator, Generator, Widths
from autoprune.search.samplers.cost_aware.costs import Floats, KnownCosts
from autoprune.search.samplers.cost_aware.history import TrainedModel
from autoprune.search.samplers.cost_aware.settings import AcquisitionSettings, InitialDesignSettings, Replacements
from benchmarks.search_quality.lab import Lab
from benchmarks.search_quality.methods._base import Method
from benchmarks.search_quality.methods.search import search

NEVER = 10**9
"""More trials than any study has."""


class LearnedCosts(KnownCosts):
    """Costs as a Gaussian process over the kept widths learns them from the trained networks."""

    _process: GaussianProcessRegressor | None = None

    def learn(self, models: Sequence[TrainedModel]) -> None:
        kernel = Matern(1.0, (0.1, 30.0), nu=2.5) + WhiteKernel(1e-3, (1e-6, 1.0))
        process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            process.fit(self._kept(np.stack([model.widths for model in models])), np.log(self.measured(models)))
        self._process = process

    def shares(self, widths: Widths, removed_blocks: Sequence[Collection[str]] | None = None) -> Floats:
        if self._process is None:
            return super().shares(widths, removed_blocks)
        predicted: Floats = np.exp(self._process.predict(self._kept(widths)))
        return predicted.reshape(len(widths), len(self.objectives))

    def _kept(self, widths: Widths) -> Floats:
        return widths / np.array([self._table.widths[group] for group in self._groups], dtype=np.float64)


class RawRatios(CandidateGenerator):
    """Candidates that prune every group by a ratio of its own, where others prune all groups by one budget."""

    def change_widths(
        self,
        kind: str,
        picked: Sequence[TrainedModel],
        widths: Widths,
        front: Sequence[TrainedModel],
        rng: Generator,
    ) -> Widths:
        if kind not in ("descend", "fill"):
            return super().change_widths(kind, picked, widths, front, rng)
        least = rng.random((len(widths), 1))  # (n, 1)
        return self.paths.nearest(widths * rng.uniform(least, 1.0, size=widths.shape))  # (n, n_groups)


TREE = {"search": {"sampler": "cost_aware", "start": "tree"}}


def tree(settings: CostAwareSettings) -> Method:
    """Return the tree with other settings of its sampler."""
    return Method(partial(Lab.search, sampler_settings=settings), TREE, chooses_epochs=True)


ABLATIONS = {
    "tree_random_choice": tree(CostAwareSettings(acquisition=AcquisitionSettings(min_trials=NEVER))),
    "tree_without_descent": tree(CostAwareSettings(initial_design=InitialDesignSettings(enabled=False))),
    "tree_unknown_cost": tree(CostAwareSettings(replacements=Replacements(known_costs=LearnedCosts))),
    "tree_raw_ratios": tree(CostAwareSettings(replacements=Replacements(candidate_generator=RawRatios))),
    "tree_with_map": search("cost_aware", "tree", chooses_epochs=True, sensitivity=True),
    "tree_fixed_epochs": search("cost_aware", "tree"),
    "tree_stopping": search("cost_aware", "tree", chooses_epochs=True, stop_early=True),
}
