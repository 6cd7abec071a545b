"""Cuts that leave a share of the cost: by one ratio, by the sensitivity map, or by the channels' scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autoprune.cost.table import CostTable
from autoprune.search.space import SearchSpace

Widths = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

N_LEVELS = 400
"""Points at which a family of cuts is worked out from the uncut network to the smallest one."""

TIE = 1e-3
"""Drop in accuracy that is added over the whole range of a group, so that among cuts that cost no accuracy the smaller
one counts as the gentler."""


@dataclass(frozen=True)
class Family:
    """Cuts from the widest to the narrowest.

    Attributes:
        widths: Shape ``(n, n_groups)``.
        shares: Of the dense cost, shape ``(n,)``.
    """

    widths: Widths
    shares: Floats

    def at(self, shares: Floats) -> Widths:
        """For each share, shape ``(n,)``, the cut whose cost is nearest on a log axis, shape ``(n, n_groups)``."""
        distance = np.abs(np.log(np.maximum(self.shares, 1e-9))[None, :] - np.log(shares)[:, None])
        picked: Widths = self.widths[np.argmin(distance, axis=1)]
        return picked


class Cuts:
    """Widths of all groups at a share of the dense cost.

    The uniform family gives every group the same ratio. The sensitive family gives every group the narrowest width that
    costs no more accuracy, by the sensitivity map, than one threshold for all (the idea of FastNAS). Between the two
    the kept shares are mixed geometrically.

    Args:
        cost_of: Share of the dense network's cost, shape ``(n,)``, of widths, shape ``(n, n_groups)``.
        drop: Drop in accuracy of a group at a width, as the sensitivity map has it; ``None`` where there is no map.

    Source:
        FastNAS: NVIDIA TensorRT Model Optimizer, https://nvidia.github.io/Model-Optimizer/guides/3_pruning.html
    """

    def __init__(
        self,
        space: SearchSpace,
        table: CostTable,
        cost_of: Callable[[Widths], Floats],
        drop: Callable[[str, int], float] | None,
    ) -> None:
        self.groups = tuple(table.widths)
        self.dense = np.array([table.widths[group] for group in self.groups], dtype=np.int64)
        self.ratios = [dict(sorted(space.ratios_of(group).items())) for group in self.groups]
        self.options: list[Widths] = [np.array(list(ratios), dtype=np.int64) for ratios in self.ratios]
        self.drops: list[Floats] | None = None
        if drop is not None:
            self.drops = [
                np.array([drop(group, int(width)) for width in options]) + TIE * (1 - options / dense)
                for group, options, dense in zip(self.groups, self.options, self.dense, strict=True)
            ]
        self._cost_of = cost_of
        self.smallest_share = float(cost_of(self.nearest(np.zeros(len(self.groups)))[None])[0])
        self._uniform = self._family(
            np.stack([self.nearest(share * self.dense) for share in np.linspace(1.0, 0.0, N_LEVELS)])
        )
        self._sensitive = self._uniform if self.drops is None else self._family(self._thresholds(self.drops))

    def at(self, shares: Floats, strengths: Floats) -> Widths:
        """Widths that cost about a share of dense.

        Args:
            shares: Wanted share of the dense cost, shape ``(n,)``.
            strengths: 0 for the uniform cut, 1 for the one that follows the sensitivity map, above 1 for one that
                follows it further; shape ``(n,)``.

        Returns:
            Widths that the space allows, shape ``(n, n_groups)``.
        """
        uniform, sensitive = (family.at(shares) for family in (self._uniform, self._sensitive))
        strength = strengths[:, None]
        kept = (uniform / self.dense) ** (1 - strength) * (sensitive / self.dense) ** strength
        return self.nearest(np.minimum(kept, 1.0) * self.dense)

    def ranked(self, widths: Widths, scores: Mapping[str, Sequence[float]]) -> Family:
        """The cuts of a network that loses its least important channels, whichever group they are in.

        Args:
            widths: The network's, shape ``(n_groups,)``.
            scores: Group -> its channels' scores, which compare across groups, rising.
        """
        rising = [np.asarray(scores.get(group, ()), dtype=np.float64) for group in self.groups]
        levels = np.unique(np.concatenate([np.zeros(1), *rising]))
        if len(levels) > N_LEVELS:
            levels = np.quantile(levels, np.linspace(0, 1, N_LEVELS))
        gone = np.stack([np.searchsorted(each, levels, side="right") for each in rising], axis=1)
        gone[0] = 0
        return self._family(self.no_wider(self.nearest((widths - gone).astype(np.float64)), widths))

    def nearest(self, widths: npt.NDArray[np.float64]) -> Widths:
        """The widths nearest to these that the space allows, shape ``(..., n_groups)``."""
        columns = []
        for column, options in zip(np.moveaxis(widths, -1, 0), self.options, strict=True):
            right = np.searchsorted(options, column).clip(1, len(options) - 1) if len(options) > 1 else None
            if right is None:
                columns.append(np.full(column.shape, options[0]))
                continue
            left = right - 1
            nearer_left = column - options[left] < options[right] - column
            columns.append(np.where(nearer_left, options[left], options[right]))
        return np.stack(columns, axis=-1).astype(np.int64)

    def no_wider(self, widths: Widths, than: Widths) -> Widths:
        """The widths that the space allows and that are no larger than both, shape ``(..., n_groups)``.

        Where the space allows none so small, it is the smallest one.
        """
        bound = np.minimum(widths, than)
        columns = [
            options[(np.searchsorted(options, column, side="right") - 1).clip(0)]
            for column, options in zip(np.moveaxis(bound, -1, 0), self.options, strict=True)
        ]
        return np.stack(columns, axis=-1).astype(np.int64)

    def expected_drop(self, widths: Widths) -> Floats:
        """Sum over groups of the drop in accuracy that each alone would cost, shape ``(n,)``."""
        if self.drops is None:
            return np.zeros(len(widths))
        total = np.zeros(len(widths))
        for column, options, drops in zip(widths.T, self.options, self.drops, strict=True):
            total += np.interp(column, options, drops)
        return total

    def _thresholds(self, drops: list[Floats]) -> Widths:
        levels = np.unique(np.concatenate(drops))
        if len(levels) > N_LEVELS:
            levels = np.quantile(levels, np.linspace(0, 1, N_LEVELS))
        rows = []
        for level in levels[levels >= max(group.min() for group in drops)]:
            rows.append([options[np.argmax(d <= level)] for options, d in zip(self.options, drops, strict=True)])
        return np.array(rows, dtype=np.int64)

    def _family(self, widths: Widths) -> Family:
        widths = np.unique(widths, axis=0)
        shares = self._cost_of(widths)
        order = np.argsort(-shares, kind="stable")
        return Family(widths[order], shares[order])
