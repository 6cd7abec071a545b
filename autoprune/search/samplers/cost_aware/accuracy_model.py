"""A model of the accuracy that a trial comes out with, and of its uncertainty."""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from sklearn.gaussian_process import GaussianProcessRegressor

Floats = npt.NDArray[np.float64]

MAX_FITTED = 150
"""Trials that the kernel's parameters are fitted on."""

MAX_CONDITIONED = 500
"""Trials that a prediction takes into account: the latest ones."""

TOLERANCE = 1e-4
"""Relative rise of the likelihood below which the kernel's parameters are good enough: at scikit-learn's own, it is
computed 36 times instead of 14, to move a parameter on which it does not depend."""

ONE_THREAD = 1
"""More threads of the linear algebra take twice as long on matrices as small as these, and the trials' cores."""

SPREAD = 0.2
"""Share of the process's standard deviation that predictions have. With all of it, expected improvement prefers what
the model knows least of, and did no better than taking candidates at random: on digits hypervolume came out at .428 and
.427 on the log axis, five seeds' mean; with half of it at .429, with this at .431, with none at .430."""

_BOUNDS = (1e-3, 1e3)

_PLACES, WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
"""Probabilities of a prediction's outcomes."""

MEDIAN = len(WEIGHTS) // 2
"""Which of the outcomes is the middle one."""


class AccuracyModel:
    """A Gaussian process on a linear trend, on an axis where large losses of accuracy count less.

    Trials that went wrong lose a hundred times what good ones win, and near the dense network's accuracy small
    differences matter. So the process learns ``asinh((accuracy - dense) / scale)``. It has few parameters, one length
    for all features, so that a dozen trials suffice to fit it.

    Args:
        dense: The dense network's accuracy.
        accuracies: Of the finished trials, oldest first, shape ``(n_trials,)``.

    Source:
        Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, sections 2.2 and 2.7.
    """

    def __init__(self, dense: float, accuracies: Floats) -> None:
        self._dense = dense
        self._scale = float(max(np.median(np.abs(accuracies - dense)) / 2, 1e-3 * max(abs(dense), 1e-3)))
        self._targets = self.level(accuracies)
        self._process: GaussianProcessRegressor | None = None

    def level(self, accuracies: Floats) -> Floats:
        """Accuracies on the model's axis."""
        levels: Floats = np.arcsinh((accuracies - self._dense) / self._scale)
        return levels

    def fit(self, features: Floats) -> None:
        """Learn from the features of finished trials.

        Args:
            features: Of the latest trials, ``MAX_CONDITIONED`` at most, shape ``(n, n_features)``.
        """
        # Loaded at the first model, when the first trials train already: it takes a second.
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

        self._mean, self._spread = float(self._targets.mean()), float(max(self._targets.std(), 1e-6))
        targets = (self._targets[-len(features) :] - self._mean) / self._spread
        kernel = (
            ConstantKernel(1.0, _BOUNDS) * Matern(3.0, (0.5, 30.0), nu=2.5)
            + ConstantKernel(0.1, _BOUNDS) * DotProduct(1.0, (1e-2, 1e2))
            + WhiteKernel(0.1, (1e-3, 10.0))
        )
        process = GaussianProcessRegressor(kernel, alpha=1e-8, optimizer=_fitted, random_state=0)
        with threadpool_limits(ONE_THREAD), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            process.fit(features[-MAX_FITTED:], targets[-MAX_FITTED:])
            if len(features) > MAX_FITTED:
                process = GaussianProcessRegressor(process.kernel_, alpha=1e-8, optimizer=None)
                process.fit(features, targets)
        self._process = process

    def predict(self, features: Floats) -> Floats:
        """Accuracies that candidates may come out with.

        The spread is a share of that of the accuracy itself, without the noise of a single trial: a candidate that
        could only be lucky is no improvement.

        Returns:
            Shape ``(n_candidates, n_outcomes)``: at the places of Gauss-Hermite quadrature, whose probabilities are
            ``WEIGHTS``.
        """
        assert self._process is not None
        with threadpool_limits(ONE_THREAD):
            mean, deviation = self._process.predict(features, return_std=True)
        return self._outcomes(mean, np.sqrt(np.maximum(deviation**2 - self._process.kernel_.k2.noise_level, 1e-6)))

    def _outcomes(self, mean: Floats, deviation: Floats) -> Floats:
        """The accuracies that a mean and a deviation stand for, both of targets of mean 0 and deviation 1."""
        own = SPREAD * self._spread * deviation
        level = self._mean + self._spread * mean
        outcomes = level[:, None] + own[:, None] * _PLACES
        accuracies: Floats = self._dense + self._scale * np.sinh(outcomes)
        return accuracies


def _fitted(loss: Callable[[Floats], tuple[float, Floats]], start: Floats, bounds: Floats) -> tuple[Floats, float]:
    """Parameters of the least loss, and that loss; it is given with its gradient."""
    from scipy.optimize import minimize

    found = minimize(loss, start, method="L-BFGS-B", jac=True, bounds=bounds, options={"ftol": TOLERANCE})
    return found.x, float(found.fun)
