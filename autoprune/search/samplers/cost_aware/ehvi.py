"""Expected hypervolume improvement (EHVI) where costs are known and only the score is uncertain."""

import itertools

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class EHVI:
    """Returns the expected gain in hypervolume of candidates over a front.

    The front's costs divide the cost axes into cells. In each cell, the best score that the front offers at no more
    cost is constant. It is called the cell's level.

    Args:
        costs: Costs of the front's networks on axes from 0 to 1, lower is better; shape ``(n_points, n_costs)``.
        scores: Scores of the same networks, shape ``(n_points,)``.
        floor: Score below which a network is worth nothing: the reference point's. Its costs are 1.
        max_front: Most points that divide the cost axes where there are several axes.

    Source:
        The sum over disjoint boxes: Daulton et al. 2020, https://arxiv.org/abs/2006.05078.
        Expected improvement: Jones et al. 1998, https://doi.org/10.1023/A:1008306431147, section 4.1.

    Example:
        >>> ehvi = EHVI(np.array([[0.5]]), np.array([0.8]), floor=0.6, max_front=40)
        >>> ehvi(np.array([[0.25]]), np.array([[0.9]]), np.ones(1)).round(6)  # 0.25 * 0.3 + 0.5 * 0.1
        array([0.125])
    """

    def __init__(self, costs: Floats, scores: Floats, floor: float, max_front: int) -> None:
        n_costs = costs.shape[1]
        if n_costs > 1 and len(costs) > max_front:
            by_cost = np.argsort(costs[:, 0], kind="stable")  # (n_points,)
            picked = by_cost[np.linspace(0, len(costs) - 1, max_front).round().astype(int)]  # (max_front,)
            costs, scores = costs[picked], scores[picked]
        # The edges of the cells on each axis, and the corners of all cells, shape (n_cells, n_costs).
        edges = [np.unique(np.concatenate([[0.0, 1.0], column[(column > 0) & (column < 1)]])) for column in costs.T]
        self._low = np.array(list(itertools.product(*(edge[:-1] for edge in edges)))).reshape(-1, n_costs)
        self._high = np.array(list(itertools.product(*(edge[1:] for edge in edges)))).reshape(-1, n_costs)
        reaches = (costs[None] <= self._low[:, None]).all(axis=2)  # (n_cells, n_points)
        best = np.where(reaches, scores, -np.inf).max(axis=1, initial=-np.inf)  # (n_cells,)
        self._level = np.maximum(best, floor)

    def __call__(self, costs: Floats, outcomes: Floats, weights: Floats) -> Floats:
        """Return the expected gain in hypervolume of each candidate.

        A candidate of cost ``c`` and score ``Y`` gains ``max(Y - level, 0)`` over the part of each cell that costs
        at least ``c``. So the expectation is a sum over cells: volume times expected improvement over the level.

        Args:
            costs: Costs of the candidates on the front's axes, shape ``(n_candidates, n_costs)``.
            outcomes: Scores that each candidate may have, shape ``(n_candidates, n_outcomes)``.
            weights: Probabilities of the outcomes, shape ``(n_outcomes,)``.

        Returns:
            Gains in hypervolume, at least 0, shape ``(n_candidates,)``.
        """
        # Cells of one level are added up first, because there are far fewer levels than cells.
        levels, level_of_cell = np.unique(self._level, return_inverse=True)  # (n_levels,), (n_cells,)
        cell_volumes = np.ones((len(self._low), len(costs)))  # (n_cells, n_candidates)
        for axis in range(costs.shape[1]):
            low = np.maximum(self._low[:, axis, None], costs[:, axis])  # (n_cells, n_candidates)
            cell_volumes *= np.maximum(self._high[:, axis, None] - low, 0.0)
        volumes = np.zeros((len(levels), len(costs)))  # (n_levels, n_candidates)
        np.add.at(volumes, level_of_cell, cell_volumes)
        # (n_levels, n_candidates, n_outcomes) @ (n_outcomes,) -> (n_levels, n_candidates)
        improvement = np.maximum(outcomes[None] - levels[:, None, None], 0.0) @ weights
        gained: Floats = (volumes * improvement).sum(axis=0)  # (n_candidates,)
        return gained
