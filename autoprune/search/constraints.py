"""The most that a network may cost, checked against what is known of a candidate before it is trained."""

import numpy as np
import numpy.typing as npt

from autoprune.config import SearchConfig
from autoprune.cost.table import CostTable
from autoprune.errors import StudyError
from autoprune.search.space import SearchSpace
from autoprune.study.dense_reference import DenseReference
from autoprune.trial import PruningConfig


class CostConstraints:
    """The ceilings of a study on the costs that are known without running a network: parameters, MACs and FLOPs.

    The others (size, latency) are measured by the worker, before it trains.

    Args:
        dense: ``None`` before it was measured: the table's figures take its place.
    """

    def __init__(self, spec: SearchConfig, table: CostTable, dense: DenseReference | None = None) -> None:
        self._table = table
        whole = self._known(PruningConfig())
        self._limits = {
            name: ceiling.limit(dense.value(name) if dense else whole[name])
            for name, ceiling in spec.constraints.ceilings.items()
            if name in whole
        }

    def broken_by(self, pruning: PruningConfig) -> str | None:
        """Which ceiling a candidate is over, in words; ``None`` if it is over none."""
        if not self._limits:
            return None
        known = self._known(pruning)
        for name, limit in self._limits.items():
            if known[name] > limit:
                return f"{name} {known[name]:,} is over the ceiling {limit:,.0f}"
        return None

    def allowed(self, widths: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether candidates with all their blocks hold the ceilings, shape ``(n,)``.

        Args:
            widths: Channels kept, shape ``(n, n_groups)``.
        """
        found = self._table.costs(widths)
        known = {"params": found.params, "macs": found.macs, "flops": 2 * found.macs}
        holds = np.ones(len(widths), dtype=np.bool_)
        for name, limit in self._limits.items():
            holds &= known[name] <= limit
        return holds

    def check_reachable(self, space: SearchSpace) -> None:
        """Raise StudyError if even the smallest network of the space is over a ceiling."""
        broken = self.broken_by(space.smallest())
        if broken is not None:
            raise StudyError(
                f"constraints: even for the smallest network of this space, {broken}. "
                "Raise the ceiling or the ratios' high ends."
            )

    def known_values(self, pruning: PruningConfig) -> tuple[int, int]:
        """Parameters and MACs of a candidate."""
        known = self._known(pruning)
        return known["params"], known["macs"]

    def _known(self, pruning: PruningConfig) -> dict[str, int]:
        cost = self._table.cost(pruning.widths, pruning.removed_blocks)
        return {"params": cost.params, "macs": cost.macs, "flops": 2 * cost.macs}
