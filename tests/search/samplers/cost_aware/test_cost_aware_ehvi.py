"""Expected hypervolume improvement against plain Monte Carlo with the exact hypervolume."""

import numpy as np
import pytest
from scipy.stats import norm

from autoprune.search.samplers.cost_aware.ehvi import EHVI
from autoprune.study.pareto import hypervolume


def by_sampling(costs: np.ndarray, accuracies: np.ndarray, floor: float, point: np.ndarray, mean: float, dev: float):
    directions = ["minimize"] * costs.shape[1] + ["maximize"]
    reference = [1.0] * costs.shape[1] + [floor]
    front = np.column_stack([costs, accuracies])
    before = hypervolume(front, directions, reference)
    draws = np.random.default_rng(0).normal(mean, dev, 4000)
    gains = [hypervolume(np.vstack([front, [*point, y]]), directions, reference) - before for y in draws]
    return np.mean(gains), np.std(gains) / np.sqrt(len(draws))


@pytest.mark.parametrize("n_costs", [1, 2])
def test_it_is_the_mean_of_the_gain_in_hypervolume(n_costs: int) -> None:
    rng = np.random.default_rng(1)
    costs, accuracies = rng.random((6, n_costs)), rng.uniform(0.4, 0.9, 6)
    ehvi = EHVI(costs, accuracies, floor=0.5, max_front=40)
    points = rng.random((5, n_costs))
    means, deviations = rng.uniform(0.5, 0.95, 5), rng.uniform(0.01, 0.2, 5)
    quantiles = norm.ppf((np.arange(2000) + 0.5) / 2000)
    outcomes = means[:, None] + deviations[:, None] * quantiles
    found = ehvi(points, outcomes, np.full(2000, 1 / 2000))
    for value, point, mean, deviation in zip(found, points, means, deviations, strict=True):
        expected, error = by_sampling(costs, accuracies, 0.5, point, mean, deviation)
        assert value == pytest.approx(expected, abs=5 * error + 1e-9)


def test_a_sure_candidate_that_is_dominated_gains_nothing() -> None:
    ehvi = EHVI(np.array([[0.2]]), np.array([0.9]), floor=0.0, max_front=40)
    gains = ehvi(np.array([[0.3], [0.1]]), np.array([[0.8], [0.8]]), np.ones(1))
    np.testing.assert_allclose(gains, [0.0, 0.1 * 0.8], atol=1e-6)
