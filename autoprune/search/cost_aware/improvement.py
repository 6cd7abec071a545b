"""Expected hypervolume improvement where cost is known and only accuracy is not."""

import itertools

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

Floats = npt.NDArray[np.float64]

MAX_FRONT = 40
"""Points of the front that divide the cost axes, where there are several; with one axis all of them do."""


class Staircase:
    """The best accuracy that the front offers at every cost, as cells of constant accuracy.

    Args:
        costs: Of the trained networks, on axes from 0 to 1, lower is better; shape ``(n_points, n_costs)``.
        accuracies: Shape ``(n_points,)``.
        floor: Accuracy below which a network is worth nothing.
    """

    def __init__(self, costs: Floats, accuracies: Floats, floor: float) -> None:
        n_costs = costs.shape[1]
        if n_costs > 1 and len(costs) > MAX_FRONT:
            picked = np.argsort(costs[:, 0], kind="stable")[
                np.linspace(0, len(costs) - 1, MAX_FRONT).round().astype(int)
            ]
            costs, accuracies = costs[picked], accuracies[picked]
        edges = [np.unique(np.concatenate([[0.0, 1.0], column[(column > 0) & (column < 1)]])) for column in costs.T]
        self._low = np.array(list(itertools.product(*(edge[:-1] for edge in edges)))).reshape(-1, n_costs)
        self._high = np.array(list(itertools.product(*(edge[1:] for edge in edges)))).reshape(-1, n_costs)
        reaches = (costs[None] <= self._low[:, None]).all(axis=2)
        self._level = np.maximum(np.where(reaches, accuracies, -np.inf).max(axis=1, initial=-np.inf), floor)

    def expected_improvement(self, costs: Floats, mean: Floats, deviation: Floats) -> Floats:
        """Expected gain in hypervolume of candidates whose accuracy is normally distributed.

        A candidate of cost ``c`` and accuracy ``Y`` gains, over each part of a cell that costs at least ``c``, what
        ``Y`` is above the cell's level. So the expectation is a sum over cells of volume times the expected
        improvement over the level.

        Args:
            costs: On the axes of the front's, shape ``(n_candidates, n_costs)``.
            mean: Expected accuracy, shape ``(n_candidates,)``.
            deviation: Its standard deviation, positive, shape ``(n_candidates,)``.

        Returns:
            Shape ``(n_candidates,)``, at least 0.

        Source:
            Expected improvement: Jones et al. 1998, https://doi.org/10.1023/A:1008306431147, eq. 15.
        """
        levels, place = np.unique(self._level, return_inverse=True)
        volumes = np.zeros((len(costs), len(levels)))
        spans = np.ones((len(costs), len(self._low)))
        for axis in range(costs.shape[1]):
            spans *= np.maximum(self._high[:, axis] - np.maximum(self._low[:, axis], costs[:, axis, None]), 0.0)
        np.add.at(volumes.T, place, spans.T)
        gap = mean[:, None] - levels
        z = gap / deviation[:, None]
        improvement = gap * ndtr(z) + deviation[:, None] * np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
        gained: Floats = (volumes * np.maximum(improvement, 0.0)).sum(axis=1)
        return gained
