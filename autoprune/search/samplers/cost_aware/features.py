"""Candidates as rows of numbers for the model of their accuracy."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from autoprune.config.dimension import Dimension
from autoprune.search.samplers.cost_aware.history import Node
from autoprune.search.samplers.cost_aware.width_paths import Cuts
from autoprune.search.space import RATIO, SearchSpace
from autoprune.trial import Scalar

Floats = npt.NDArray[np.float64]
Widths = npt.NDArray[np.int64]


def effort(epochs: npt.ArrayLike) -> Floats:
    """Epochs of a lineage on the axis on which they count: each doubling alike."""
    return np.log2(2.0 + np.asarray(epochs, dtype=np.float64))


class Features:
    """Turns (parent, widths, training) into numbers of about unit size.

    A candidate is described by its cost, by its cut's size and what the sensitivity map expects of it, by its parent's
    accuracy, by how long it and its ancestors will have been trained, and by its training; the single groups' widths
    stand behind with little weight.

    Parameters of several kinds of schedule that go by one name, such as ``lr``, share a column; one that does not apply
    is at its middle.
    """

    def __init__(self, space: SearchSpace, cuts: Cuts) -> None:
        self._space, self._cuts = space, cuts
        self._columns: dict[str, list[Dimension]] = {}
        for dimension in space.dimensions():
            if not dimension.name.startswith(RATIO):
                self._columns.setdefault(_shared_name(dimension), []).append(dimension)
        self._names = [dimension.name for dimensions in self._columns.values() for dimension in dimensions]

    def __call__(
        self,
        parents: Sequence[Node],
        widths: Widths,
        shares: Floats,
        parent_shares: Floats,
        epochs: Sequence[int],
        training: Sequence[Mapping[str, Scalar]],
        levels: Floats,
    ) -> Floats:
        """Rows of features.

        Args:
            widths: Shape ``(n, n_groups)``.
            shares, parent_shares: Cost of the candidates and of their parents as shares of dense, ``(n, n_costs)``.
            epochs: Epochs that each trains for.
            levels: The parents' accuracy on the model's axis, shape ``(n,)``.

        Returns:
            Shape ``(n, n_features)``.
        """
        wide = np.stack([parent.widths for parent in parents])
        lineage = np.array([parent.lineage for parent in parents], dtype=np.float64) + np.asarray(epochs)
        cut = np.log2(np.maximum(parent_shares, 1e-9) / np.maximum(shares, 1e-9))
        drops = [np.minimum(self._cuts.expected_drop(rows), 2.0) for rows in (widths, wide)]
        scale = 0.5 / np.sqrt(widths.shape[1])
        size = np.log2(np.maximum(shares, 1e-9)) / 3
        blocks = [
            size,
            size**2,
            cut,
            np.stack(
                [
                    levels,
                    effort(lineage),
                    effort(epochs),
                    2 * (drops[0] - drops[1]),
                    (cut > 0.01).any(axis=1).astype(np.float64),
                ],
                axis=1,
            ),
            2 * self._places(training),
            scale * np.log2(widths / self._cuts.dense),
            scale * np.log2(widths / wide),
        ]
        return np.concatenate(blocks, axis=1)

    def _places(self, training: Sequence[Mapping[str, Scalar]]) -> Floats:
        """Places of the training's dimensions on their axes, shape ``(n, n_columns)``."""
        found: dict[tuple[Scalar | None, ...], list[float]] = {}  # most trainings are copies of another
        rows = []
        for values in training:
            key = tuple(values.get(name) for name in self._names)
            if key not in found:
                found[key] = [self._place(dimensions, values) for dimensions in self._columns.values()]
            rows.append(found[key])
        return np.array(rows, dtype=np.float64).reshape(len(training), len(self._columns))

    def _place(self, dimensions: Sequence[Dimension], values: Mapping[str, Scalar]) -> float:
        place = 0.5
        for dimension in dimensions:
            if dimension.name in values and self._space.applies(dimension.name, values):
                place = dimension.position(values[dimension.name])
        return place


def _shared_name(dimension: Dimension) -> str:
    """The name of the column: ``lr_schedule.lr`` for ``lr_schedule.cosine.lr``."""
    family, *rest = dimension.name.split(".")
    shared = family in ("lr_schedule", "batch_size_schedule", "optimizer") and len(rest) == 2
    return f"{family}.{rest[1]}" if shared else dimension.name
