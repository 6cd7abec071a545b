"""What candidates cost, relative to the dense network and on axes from 0 to 1, before any of them is trained."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from autoprune.cost.table import CostTable
from autoprune.search.samplers.cost_aware.history import Node
from autoprune.search.space import SearchSpace
from autoprune.study.dense_reference import DenseReference

Floats = npt.NDArray[np.float64]
Widths = npt.NDArray[np.int64]

EXACT = {"params": "params", "flops": "macs", "macs": "macs"}
"""Objectives whose value follows from the widths alone, and the figure of the cost table that gives it."""

MIN_LEARNED = 6
"""Trained networks from which on a cost that must be measured is learned from those measured."""


class KnownCosts:
    """The cost objectives of candidates, as shares of dense.

    ``params`` and ``flops`` are exact. ``nonzero_params`` and ``size_bytes`` follow from the parameters, and
    ``latency_ms`` from MACs and parameters, corrected by a fit to the networks measured so far.

    Args:
        objectives: Names of the costs, at least one.
        log: Whether the axes are logarithmic, from the smallest network of the space to the dense one.
    """

    def __init__(
        self, space: SearchSpace, table: CostTable, objectives: Sequence[str], dense: DenseReference, *, log: bool
    ) -> None:
        self.objectives = tuple(objectives)
        self._table, self._log = table, log
        self._dense = {name: float(dense.value(name)) for name in self.objectives}
        self._groups = tuple(table.widths)
        whole = table.cost({})
        self._whole = {"params": whole.params, "macs": max(1, whole.macs)}
        self._fits: dict[str, Floats] = {}
        smallest = space.smallest()
        widths = np.array([[smallest.widths.get(group, width) for group, width in table.widths.items()]])
        self._floors = np.maximum(self.shares(widths, [smallest.removed_blocks]).min(axis=0), 1e-4)

    def main_share(self, widths: Widths) -> Floats:
        """The first cost objective's share of dense, all blocks present, shape ``(n,)``."""
        return self._exact(widths, None)[self._figure(self.objectives[0])]

    def shares(self, widths: Widths, removed_blocks: Sequence[Collection[str]] | None = None) -> Floats:
        """Share of the dense cost, shape ``(n, n_costs)``.

        Args:
            widths: Shape ``(n, n_groups)``.
            removed_blocks: The blocks that each candidate lacks; ``None`` where all have all.
        """
        exact = self._exact(widths, removed_blocks)
        columns = []
        for name in self.objectives:
            share = exact[self._figure(name)]
            if name in self._fits:
                share = np.exp(self._features(exact) @ self._fits[name])
            columns.append(share)
        return np.stack(columns, axis=1)

    def axes(self, shares: Floats) -> Floats:
        """Shares of dense on the axes that hypervolume is measured on: 1 is the dense cost, 0 the smallest one."""
        if not self._log:
            return np.clip(shares, 0.0, 1.0)
        places: Floats = np.clip(1.0 - np.log(np.maximum(shares, 1e-9)) / np.log(self._floors), 0.0, 1.0)
        return places

    def measured(self, nodes: Sequence[Node]) -> Floats:
        """What trained networks were measured to cost, as shares of dense, shape ``(n, n_costs)``."""
        return np.array([[node.costs[name] / self._dense[name] for name in self.objectives] for node in nodes])

    def learn(self, nodes: Sequence[Node]) -> None:
        """Fit the costs that do not follow from the widths to the trained networks."""
        names = [name for name in self.objectives if name not in EXACT]
        if not names or len(nodes) < MIN_LEARNED:
            return
        widths = np.stack([node.widths for node in nodes])
        features = self._features(self._exact(widths, [node.removed_blocks for node in nodes]))
        targets = np.log(np.maximum(self.measured(nodes), 1e-9))
        ridge = 1e-3 * np.eye(features.shape[1])
        solved = np.linalg.solve(features.T @ features + ridge, features.T @ targets).astype(np.float64)
        self._fits = {name: solved[:, column] for column, name in enumerate(self.objectives) if name in names}

    def _exact(self, widths: Widths, removed_blocks: Sequence[Collection[str]] | None) -> Mapping[str, Floats]:
        found = self._table.costs(widths)
        params, macs = found.params.astype(np.float64), found.macs.astype(np.float64)
        for row, blocks in enumerate(removed_blocks or ()):
            if blocks:
                cost = self._table.cost(dict(zip(self._groups, widths[row].tolist(), strict=True)), blocks)
                params[row], macs[row] = cost.params, cost.macs
        return {"params": params / self._whole["params"], "macs": macs / self._whole["macs"]}

    @staticmethod
    def _figure(name: str) -> str:
        return EXACT.get(name, "macs" if name == "latency_ms" else "params")

    @staticmethod
    def _features(exact: Mapping[str, Floats]) -> Floats:
        logs = [np.log(np.maximum(exact[name], 1e-9)) for name in ("params", "macs")]
        return np.stack([np.ones_like(logs[0]), *logs], axis=1)
