"""Models of accuracy in place of that of ``cost_aware``: they map the same features to a mean and a deviation."""

import warnings
from collections.abc import Callable

import numpy as np
import torch

from autoprune.search.samplers.cost_aware.score_model import Floats, ScoreModel

Prediction = Callable[[Floats], tuple[Floats, Floats]]


class _OtherModel(ScoreModel):
    """Learns on the same axis as the Gaussian process does.

    Attributes:
        learn: Learns targets of mean 0 and deviation 1 from features; gives mean and deviation for features.
    """

    learn: Callable[[Floats, Floats], Prediction]

    def fit(self, features: Floats) -> None:
        self._mean, self._deviation = float(self._targets.mean()), float(max(self._targets.std(), 1e-6))
        targets = (self._targets[-len(features) :] - self._mean) / self._deviation
        self._predicted = self.learn(features, targets)

    def predict(self, features: Floats) -> Floats:
        mean, deviation = self._predicted(features)
        return self._outcomes(mean, np.maximum(deviation, 1e-3))


class ForestModel(_OtherModel):
    """A random forest, whose trees' spread is its uncertainty (Hutter et al. 2011, SMAC)."""

    @staticmethod
    def learn(features: Floats, targets: Floats) -> Prediction:
        from sklearn.ensemble import RandomForestRegressor

        forest = RandomForestRegressor(100, min_samples_leaf=2, max_features=0.5, random_state=0).fit(features, targets)

        def predicted(rows: Floats) -> tuple[Floats, Floats]:
            of_trees = np.stack([tree.predict(rows.astype(np.float32)) for tree in forest.estimators_])
            return of_trees.mean(axis=0), of_trees.std(axis=0)

        return predicted


class BoTorchModel(_OtherModel):
    """BoTorch's standard Gaussian process: a length for every feature, under its own priors."""

    @staticmethod
    def learn(features: Floats, targets: Floats) -> Prediction:
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from gpytorch.mlls import ExactMarginalLogLikelihood

        low, high = features.min(axis=0), features.max(axis=0)
        extent = np.where(high > low, high - low, 1.0)

        def scaled(rows: Floats) -> torch.Tensor:
            return torch.from_numpy((rows - low) / extent)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            process = SingleTaskGP(scaled(features), torch.from_numpy(targets)[:, None], outcome_transform=None)
            fit_gpytorch_mll(ExactMarginalLogLikelihood(process.likelihood, process))

        def predicted(rows: Floats) -> tuple[Floats, Floats]:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                posterior = process.posterior(scaled(rows))
                return posterior.mean[:, 0].numpy(), posterior.variance[:, 0].sqrt().numpy()

        return predicted
