"""Width paths: widths of all groups, from the dense network to the smallest one, by one rule each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autoprune.cost.table import CostTable
from autoprune.search.samplers.cost_aware.settings import WidthPathSettings
from autoprune.search.space import SearchSpace

Widths = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class WidthPath:
    """Widths of falling cost.

    Attributes:
        widths: Channels of every group at every point, shape ``(n_points, n_groups)``.
        shares: Share of the dense cost at every point, falling, shape ``(n_points,)``.
    """

    widths: Widths
    shares: Floats

    def at(self, shares: Floats) -> Widths:
        """Return the point whose cost is nearest to each share on a log axis.

        Args:
            shares: Wanted shares of the dense cost, shape ``(n,)``.

        Returns:
            Widths, shape ``(n, n_groups)``.
        """
        log_shares = np.log(np.maximum(self.shares, 1e-9))  # (n_points,)
        distance = np.abs(log_shares[None, :] - np.log(shares)[:, None])  # (n, n_points)
        picked: Widths = self.widths[np.argmin(distance, axis=1)]  # (n, n_groups)
        return picked


class WidthPaths:
    """Returns widths of all groups at a share of the dense cost.

    The uniform path gives every group the same ratio. The sensitive path gives every group the narrowest width whose
    drop in score, by the sensitivity map, is at most a threshold; one threshold holds for all groups (the idea of
    FastNAS). Between the two paths, the kept shares are mixed geometrically.

    Args:
        cost_of: Returns the share of the dense cost, shape ``(n,)``, of widths, shape ``(n, n_groups)``.
        drop: Returns the drop in score of a group at a width, by the sensitivity map, in units of the score (1 for
            accuracy); ``None`` where there is no
            map.
        settings: How finely the paths are worked out.

    Attributes:
        groups: Names of all groups, in the order of every array's group axis.
        dense: Channels of every group in the dense network, shape ``(n_groups,)``.
        ratios: For every group, its allowed widths, rising -> pruning ratio.
        options: For every group, its allowed widths, rising, shape ``(n_options,)``.
        drops: For every group, the drop in score at each of its options, shape ``(n_options,)``.
        min_share: Share of the dense cost of the smallest network.

    Source:
        FastNAS: NVIDIA TensorRT Model Optimizer, https://nvidia.github.io/Model-Optimizer/guides/3_pruning.html
    """

    def __init__(
        self,
        space: SearchSpace,
        table: CostTable,
        cost_of: Callable[[Widths], Floats],
        drop: Callable[[str, int], float] | None,
        settings: WidthPathSettings,
    ) -> None:
        self.groups = tuple(table.widths)
        self.dense = np.array([table.widths[group] for group in self.groups], dtype=np.int64)
        self.ratios = [dict(sorted(space.ratios_of(group).items())) for group in self.groups]
        self.options: list[Widths] = [np.array(list(ratios), dtype=np.int64) for ratios in self.ratios]
        self.drops: list[Floats] | None = None
        if drop is not None:
            self.drops = [
                np.array([drop(group, int(width)) for width in options]) + settings.tie_drop * (1 - options / dense)
                for group, options, dense in zip(self.groups, self.options, self.dense, strict=True)
            ]
        self._cost_of, self._n_points = cost_of, settings.n_points
        self.min_share = float(cost_of(self.nearest(np.zeros(len(self.groups)))[None])[0])
        kept_shares = np.linspace(1.0, 0.0, self._n_points)
        self._uniform = self._path(np.stack([self.nearest(share * self.dense) for share in kept_shares]))
        self._sensitive = self._uniform if self.drops is None else self._path(self._sensitive_widths(self.drops))

    def at(self, shares: Floats, strengths: Floats) -> Widths:
        """Return widths that cost about a share of dense.

        Args:
            shares: Wanted shares of the dense cost, shape ``(n,)``.
            strengths: 0 is the uniform path and 1 the sensitive path; above 1, the widths deviate from the uniform path
                even further. Shape ``(n,)``.

        Returns:
            Widths that the space allows, shape ``(n, n_groups)``.
        """
        uniform, sensitive = (path.at(shares) for path in (self._uniform, self._sensitive))  # (n, n_groups) each
        strength = strengths[:, None]  # (n, 1)
        kept = (uniform / self.dense) ** (1 - strength) * (sensitive / self.dense) ** strength  # (n, n_groups)
        return self.nearest(np.minimum(kept, 1.0) * self.dense)

    def by_scores(self, widths: Widths, scores: Mapping[str, Sequence[float]]) -> WidthPath:
        """Return the path of a network that loses its channels of the lowest scores first, in whichever group.

        Args:
            widths: Channels of every group of the network, shape ``(n_groups,)``.
            scores: Group -> scores of its channels, rising. Scores compare across groups.
        """
        rising = [np.asarray(scores.get(group, ()), dtype=np.float64) for group in self.groups]  # (n_channels,) each
        thresholds = self._thinned(np.unique(np.concatenate([np.zeros(1), *rising])))  # (n_points,)
        removed = np.stack([np.searchsorted(each, thresholds, side="right") for each in rising], axis=1)
        removed[0] = 0  # (n_points, n_groups); the path begins with the whole network
        return self._path(self.no_wider(self.nearest((widths - removed).astype(np.float64)), widths))

    def nearest(self, widths: Floats) -> Widths:
        """Return the nearest widths that the space allows, shape ``(..., n_groups)`` in and out."""
        columns = []
        for column, options in zip(np.moveaxis(widths, -1, 0), self.options, strict=True):  # (...), (n_options,)
            if len(options) == 1:
                columns.append(np.full(column.shape, options[0]))
                continue
            right = np.searchsorted(options, column).clip(1, len(options) - 1)  # (...), index of the upper neighbour
            left = right - 1
            nearer_left = column - options[left] < options[right] - column
            columns.append(np.where(nearer_left, options[left], options[right]))
        return np.stack(columns, axis=-1).astype(np.int64)

    def no_wider(self, widths: Widths, than: Widths) -> Widths:
        """Return the largest allowed widths that are no larger than both, shape ``(..., n_groups)`` in and out.

        Where the space allows none so small, the smallest allowed width is returned.
        """
        bound = np.minimum(widths, than)  # (..., n_groups)
        columns = [
            options[(np.searchsorted(options, column, side="right") - 1).clip(0)]  # (...)
            for column, options in zip(np.moveaxis(bound, -1, 0), self.options, strict=True)
        ]
        return np.stack(columns, axis=-1).astype(np.int64)

    def expected_drop(self, widths: Widths) -> Floats:
        """Return the sum over groups of each group's own drop in score, by the sensitivity map.

        Args:
            widths: Shape ``(n, n_groups)``.

        Returns:
            Drops in score, shape ``(n,)``; 0 where there is no map.
        """
        total = np.zeros(len(widths))
        if self.drops is None:
            return total
        for column, options, drops in zip(widths.T, self.options, self.drops, strict=True):
            total += np.interp(column, options, drops)  # (n,)
        return total

    def _sensitive_widths(self, drops: list[Floats]) -> Widths:
        """Return the narrowest widths whose drops are at most a threshold, for every threshold of all groups.

        Args:
            drops: For every group, the drop at each of its options, shape ``(n_options,)``.

        Returns:
            Widths, shape ``(n_points, n_groups)``.
        """
        thresholds = self._thinned(np.unique(np.concatenate(drops)))
        rows = []
        for threshold in thresholds[thresholds >= max(group.min() for group in drops)]:
            # argmax finds the first option, which is the narrowest one, that is at most the threshold.
            rows.append([options[np.argmax(d <= threshold)] for options, d in zip(self.options, drops, strict=True)])
        return np.array(rows, dtype=np.int64)

    def _thinned(self, thresholds: Floats) -> Floats:
        """Return no more thresholds than a path has points, by quantiles."""
        if len(thresholds) <= self._n_points:
            return thresholds
        quantiles: Floats = np.quantile(thresholds, np.linspace(0, 1, self._n_points))
        return quantiles

    def _path(self, widths: Widths) -> WidthPath:
        """Sort distinct widths, shape ``(n_points, n_groups)``, by falling cost."""
        widths = np.unique(widths, axis=0)
        shares = self._cost_of(widths)
        order = np.argsort(-shares, kind="stable")
        return WidthPath(widths[order], shares[order])
