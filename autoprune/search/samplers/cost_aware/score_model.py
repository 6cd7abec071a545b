"""The model that predicts a trial's score, and how uncertain that is."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from autoprune.search.samplers.cost_aware.settings import ScoreModelSettings

if TYPE_CHECKING:
    from sklearn.gaussian_process import GaussianProcessRegressor

Floats = npt.NDArray[np.float64]

JITTER = 1e-8
"""Added to the kernel matrix's diagonal, so that its Cholesky factor exists."""


class ScoreModel:
    """A Gaussian process with a linear trend, on an axis where large losses of score count less.

    Trials that went wrong lose a hundred times what good ones win, and near the dense network's score small
    differences matter. So the process learns the level ``asinh((score - dense) / scale)``. It has few parameters,
    with one length for all features, so that a dozen trials suffice to fit it.

    Args:
        dense: The dense network's score.
        scores: Scores of the finished trials, oldest first, shape ``(n_trials,)``.
        settings: The kernel, and how much of the process's uncertainty a prediction has.

    Attributes:
        outcome_weights: Probabilities of a prediction's outcomes, shape ``(n_outcomes,)``.
        median: Index of the middle outcome.

    Source:
        Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, sections 2.2 and 2.7.
    """

    def __init__(self, dense: float, scores: Floats, settings: ScoreModelSettings) -> None:
        self._settings, self._dense = settings, dense
        distance = np.median(np.abs(scores - dense))
        self._scale = float(max(settings.scale_share * distance, settings.min_scale * max(abs(dense), 1e-3)))
        self._targets = self.level(scores)  # (n_trials,)
        self._process: GaussianProcessRegressor | None = None
        self._outcome_positions, weights = np.polynomial.hermite_e.hermegauss(settings.n_outcomes)
        self.outcome_weights: Floats = weights / weights.sum()
        self.median = settings.n_outcomes // 2

    def level(self, scores: Floats) -> Floats:
        """Map scores to the model's axis, any shape."""
        levels: Floats = np.arcsinh((scores - self._dense) / self._scale)
        return levels

    def fit(self, features: Floats) -> None:
        """Learn from the features of finished trials.

        Args:
            features: Features of the latest trials, at most ``max_conditioned``, shape ``(n, n_features)``.
        """
        # Loaded at the first model, when the first trials train already: it takes a second.
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

        settings = self._settings
        self._mean, self._deviation = float(self._targets.mean()), float(max(self._targets.std(), 1e-6))
        targets = (self._targets[-len(features) :] - self._mean) / self._deviation  # (n,), mean 0 and deviation 1
        kernel = (
            ConstantKernel(1.0, settings.variance_bounds)
            * Matern(settings.matern_length, settings.matern_length_bounds, nu=settings.matern_smoothness)
            + ConstantKernel(settings.linear_variance, settings.variance_bounds)
            * DotProduct(1.0, settings.linear_offset_bounds)
            + WhiteKernel(settings.noise_variance, settings.noise_variance_bounds)
        )
        optimizer = partial(_minimized, tolerance=settings.likelihood_tolerance)
        process = GaussianProcessRegressor(kernel, alpha=JITTER, optimizer=optimizer, random_state=0)
        with threadpool_limits(settings.n_threads), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            process.fit(features[-settings.max_fitted :], targets[-settings.max_fitted :])
            if len(features) > settings.max_fitted:
                process = GaussianProcessRegressor(process.kernel_, alpha=JITTER, optimizer=None)
                process.fit(features, targets)
        self._process = process

    def predict(self, features: Floats) -> Floats:
        """Return the scores that candidates may come out with.

        The predicted deviation leaves out the noise of a single trial, because a lucky trial is no improvement.

        Args:
            features: Shape ``(n_candidates, n_features)``.

        Returns:
            Scores at the points of a Gauss-Hermite quadrature, rising, shape ``(n_candidates, n_outcomes)``. Their
            probabilities are ``outcome_weights``.
        """
        assert self._process is not None
        with threadpool_limits(self._settings.n_threads):
            mean, deviation = self._process.predict(features, return_std=True)  # (n_candidates,) each
        noise = self._process.kernel_.k2.noise_level
        return self._outcomes(mean, np.sqrt(np.maximum(deviation**2 - noise, 1e-6)))

    def _outcomes(self, mean: Floats, deviation: Floats) -> Floats:
        """Return the outcomes of predictions on the scale of the targets, of mean 0 and deviation 1.

        Args:
            mean, deviation: Shape ``(n_candidates,)``.

        Returns:
            Scores, shape ``(n_candidates, n_outcomes)``.
        """
        own = self._settings.deviation_share * self._deviation * deviation  # (n_candidates,)
        level = self._mean + self._deviation * mean  # (n_candidates,)
        outcomes = level[:, None] + own[:, None] * self._outcome_positions  # (n_candidates, n_outcomes)
        scores: Floats = self._dense + self._scale * np.sinh(outcomes)
        return scores


def _minimized(
    loss: Callable[[Floats], tuple[float, Floats]], start: Floats, bounds: Floats, *, tolerance: float
) -> tuple[Floats, float]:
    """Minimize the negative log likelihood, as scikit-learn calls its optimizer.

    Args:
        loss: Returns the loss of kernel parameters, and its gradient, shape ``(n_parameters,)``.
        start: Shape ``(n_parameters,)``.
        bounds: Shape ``(n_parameters, 2)``.
        tolerance: Relative change of the loss at which the search ends.

    Returns:
        Parameters of the least loss, shape ``(n_parameters,)``, and that loss.
    """
    from scipy.optimize import minimize

    found = minimize(loss, start, method="L-BFGS-B", jac=True, bounds=bounds, options={"ftol": tolerance})
    return found.x, float(found.fun)
