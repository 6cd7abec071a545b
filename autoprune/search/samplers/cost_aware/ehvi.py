"""Expected hypervolume improvement where cost is known and only accuracy is not."""

import itertools

import numpy as np
import numpy.typing as npt

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

    def expected_improvement(self, costs: Floats, outcomes: Floats, weights: Floats) -> Floats:
        """Expected gain in hypervolume of candidates whose accuracy takes some values with some probabilities.

        A candidate of cost ``c`` and accuracy ``Y`` gains, over each part of a cell that costs at least ``c``, what
        ``Y`` is above the cell's level. So the expectation is a sum over cells of volume times the expected
        improvement over the level.

        Args:
            costs: On the axes of the front's, shape ``(n_candidates, n_costs)``.
            outcomes: Accuracies, shape ``(n_candidates, n_outcomes)``.
            weights: Their probabilities, shape ``(n_outcomes,)``.

        Returns:
            Shape ``(n_candidates,)``, at least 0.

        Source:
            Expected improvement: Jones et al. 1998, https://doi.org/10.1023/A:1008306431147, section 4.1.
        """
        levels, place = np.unique(self._level, return_inverse=True)
        volumes = np.zeros((len(levels), len(costs)))
        spans = np.ones((len(self._low), len(costs)))
        for axis in range(costs.shape[1]):
            low = np.maximum(self._low[:, axis, None], costs[:, axis])
            spans *= np.maximum(self._high[:, axis, None] - low, 0.0)
        np.add.at(volumes, place, spans)
        above = np.maximum(outcomes[None] - levels[:, None, None], 0.0) @ weights
        gained: Floats = (volumes * above).sum(axis=0)
        return gained
