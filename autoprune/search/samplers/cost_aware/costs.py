"""What candidates cost before any of them is trained, as shares of dense and on axes from 0 to 1."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from autoprune.cost.table import CostTable
from autoprune.search.samplers.cost_aware.history import TrainedModel
from autoprune.search.samplers.cost_aware.settings import KnownCostSettings
from autoprune.search.space import SearchSpace
from autoprune.study.dense_reference import DenseReference

Floats = npt.NDArray[np.float64]
Widths = npt.NDArray[np.int64]

EXACT = {"params": "params", "flops": "macs", "macs": "macs"}
"""Objective that follows from the widths alone -> figure of the cost table that gives its share of dense."""

MIN_AXIS_SHARE = 1e-4
"""Share of the dense cost below which no log axis goes; it keeps the logarithm finite."""


class KnownCosts:
    """The cost objectives of candidates, as shares of dense.

    ``params`` and ``flops`` are exact. ``nonzero_params`` and ``size_bytes`` follow from the parameters, and
    ``latency_ms`` from MACs and parameters, corrected by a fit to the networks measured so far.

    Args:
        objectives: Names of the costs, at least one.
        log: Whether the axes are logarithmic, from the smallest network of the space to the dense one.
        settings: How the costs that must be measured are fitted.
    """

    def __init__(
        self,
        space: SearchSpace,
        table: CostTable,
        objectives: Sequence[str],
        dense: DenseReference,
        *,
        log: bool,
        settings: KnownCostSettings,
    ) -> None:
        self.objectives = tuple(objectives)
        self._table, self._log, self._settings = table, log, settings
        self._dense = {name: float(dense.value(name)) for name in self.objectives}
        self._groups = tuple(table.widths)
        whole = table.cost({})
        self._whole = {"params": whole.params, "macs": max(1, whole.macs)}
        self._fits: dict[str, Floats] = {}
        smallest = space.smallest()
        widths = np.array([[smallest.widths.get(group, width) for group, width in table.widths.items()]])
        self._min_shares = np.maximum(self.shares(widths, [smallest.removed_blocks]).min(axis=0), MIN_AXIS_SHARE)

    def main_share(self, widths: Widths) -> Floats:
        """Return the first cost objective's share of dense, with all blocks present.

        Args:
            widths: Shape ``(n, n_groups)``.

        Returns:
            Shares, shape ``(n,)``.
        """
        return self._exact(widths, None)[self._figure(self.objectives[0])]

    def shares(self, widths: Widths, removed_blocks: Sequence[Collection[str]] | None = None) -> Floats:
        """Return every cost objective's share of dense.

        Args:
            widths: Shape ``(n, n_groups)``.
            removed_blocks: For each candidate, the blocks that it lacks; ``None`` where none lacks any.

        Returns:
            Shares, shape ``(n, n_costs)``.
        """
        exact = self._exact(widths, removed_blocks)
        columns = []
        for name in self.objectives:
            share = exact[self._figure(name)]  # (n,)
            if name in self._fits:
                share = np.exp(self._regressors(exact) @ self._fits[name])  # (n, 3) @ (3,) -> (n,)
            columns.append(share)
        return np.stack(columns, axis=1)

    def axes(self, shares: Floats) -> Floats:
        """Map shares of dense to the axes of the hypervolume, shape ``(n, n_costs)`` in and out.

        On these axes, 1 is the dense cost, and 0 is nothing or, where they are logarithmic, the smallest network's.
        """
        if not self._log:
            return np.clip(shares, 0.0, 1.0)
        positions = 1.0 - np.log(np.maximum(shares, 1e-9)) / np.log(self._min_shares)
        clipped: Floats = np.clip(positions, 0.0, 1.0)
        return clipped

    def measured(self, models: Sequence[TrainedModel]) -> Floats:
        """Return what trained networks were measured to cost, as shares of dense, shape ``(n_models, n_costs)``."""
        return np.array([[model.costs[name] / self._dense[name] for name in self.objectives] for model in models])

    def learn(self, models: Sequence[TrainedModel]) -> None:
        """Fit the costs that do not follow from the widths to the trained networks, by ridge regression of logs."""
        names = [name for name in self.objectives if name not in EXACT]
        if not names or len(models) < self._settings.min_learned:
            return
        widths = np.stack([model.widths for model in models])  # (n_models, n_groups)
        x = self._regressors(self._exact(widths, [model.removed_blocks for model in models]))  # (n_models, 3)
        y = np.log(np.maximum(self.measured(models), 1e-9))  # (n_models, n_costs)
        ridge = self._settings.ridge * np.eye(x.shape[1])
        solved = np.linalg.solve(x.T @ x + ridge, x.T @ y).astype(np.float64)  # (3, n_costs)
        self._fits = {name: solved[:, column] for column, name in enumerate(self.objectives) if name in names}

    def _exact(self, widths: Widths, removed_blocks: Sequence[Collection[str]] | None) -> Mapping[str, Floats]:
        """Return the shares of dense that the cost table gives, by figure, shape ``(n,)`` each."""
        found = self._table.costs(widths)
        params, macs = found.params.astype(np.float64), found.macs.astype(np.float64)
        for row, blocks in enumerate(removed_blocks or ()):
            if blocks:
                cost = self._table.cost(dict(zip(self._groups, widths[row].tolist(), strict=True)), blocks)
                params[row], macs[row] = cost.params, cost.macs
        return {"params": params / self._whole["params"], "macs": macs / self._whole["macs"]}

    @staticmethod
    def _figure(name: str) -> str:
        """Return the figure of the cost table that an objective is derived from."""
        return EXACT.get(name, "macs" if name == "latency_ms" else "params")

    @staticmethod
    def _regressors(exact: Mapping[str, Floats]) -> Floats:
        """Return a constant and the logs of both figures, shape ``(n, 3)``."""
        logs = [np.log(np.maximum(exact[name], 1e-9)) for name in ("params", "macs")]
        return np.stack([np.ones_like(logs[0]), *logs], axis=1)
