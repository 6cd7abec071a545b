"""Candidates as rows of numbers for the model of their score."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from autoprune.config.dimension import Dimension
from autoprune.pruning.methods.neuron import RATIO
from autoprune.search.samplers.cost_aware.history import TrainedModel
from autoprune.search.samplers.cost_aware.settings import FeatureSettings
from autoprune.search.samplers.cost_aware.width_paths import WidthPaths
from autoprune.search.space import SearchSpace
from autoprune.trial import Scalar

Floats = npt.NDArray[np.float64]
Widths = npt.NDArray[np.int64]


def training_cost(epochs: npt.ArrayLike) -> Floats:
    """Return training epochs on a log axis, where each doubling of them counts alike; any shape.

    Example:
        >>> training_cost([0, 2, 6]).tolist()
        [1.0, 2.0, 3.0]
    """
    return np.log2(2.0 + np.asarray(epochs, dtype=np.float64))


class Features:
    """Turns parents, widths and trainings into numbers of about unit size.

    A row holds the cost, the size of the cut, the drop that the sensitivity map expects, the parent's score, the
    epochs of the trial and of its lineage, the training, and the widths of the single groups with little weight.

    Parameters of several kinds of schedule that have one name, such as ``lr``, share a column. A parameter that does
    not apply is at the middle of its axis.
    """

    def __init__(self, space: SearchSpace, paths: WidthPaths, settings: FeatureSettings) -> None:
        self._space, self._paths, self._settings = space, paths, settings
        self._columns: dict[str, list[Dimension]] = {}
        for dimension in space.dimensions():
            if not dimension.name.startswith(RATIO):
                self._columns.setdefault(_shared_name(dimension), []).append(dimension)
        self._names = [dimension.name for dimensions in self._columns.values() for dimension in dimensions]

    def __call__(
        self,
        parents: Sequence[TrainedModel],
        widths: Widths,
        shares: Floats,
        parent_shares: Floats,
        epochs: Sequence[int],
        training: Sequence[Mapping[str, Scalar]],
        levels: Floats,
    ) -> Floats:
        """Return a row of features for each of ``n`` trials.

        Args:
            parents: The network that each starts from.
            widths: Channels of every group, shape ``(n, n_groups)``.
            shares, parent_shares: Costs of the trials and of their parents as shares of dense, shape ``(n, n_costs)``.
            epochs: Epochs that each trains for.
            training: Values of the training's dimensions of each.
            levels: The parents' scores on the model's axis, shape ``(n,)``.

        Returns:
            Shape ``(n, n_features)``.
        """
        settings = self._settings
        parent_widths = np.stack([parent.widths for parent in parents])  # (n, n_groups)
        lineage_epochs = np.array([parent.lineage_epochs for parent in parents], dtype=np.float64) + np.asarray(epochs)
        cut = np.log2(np.maximum(parent_shares, 1e-9) / np.maximum(shares, 1e-9))  # (n, n_costs)
        drop, parent_drop = (
            np.minimum(self._paths.expected_drop(each), settings.max_expected_drop) for each in (widths, parent_widths)
        )  # (n,) each
        size = np.log2(np.maximum(shares, 1e-9)) / settings.octaves_per_unit  # (n, n_costs)
        width_weight = settings.width_weight / np.sqrt(widths.shape[1])
        blocks = [
            size,  # (n, n_costs)
            size**2,  # (n, n_costs)
            cut,  # (n, n_costs)
            np.stack(
                [
                    levels,
                    training_cost(lineage_epochs),
                    training_cost(epochs),
                    settings.drop_weight * (drop - parent_drop),
                    (cut > settings.min_cut_octaves).any(axis=1).astype(np.float64),
                ],
                axis=1,
            ),  # (n, 5)
            settings.training_weight * self._training_positions(training),  # (n, n_columns)
            width_weight * np.log2(widths / self._paths.dense),  # (n, n_groups)
            width_weight * np.log2(widths / parent_widths),  # (n, n_groups)
        ]
        return np.concatenate(blocks, axis=1)

    def _training_positions(self, training: Sequence[Mapping[str, Scalar]]) -> Floats:
        """Return the positions of the training's values on their dimensions' axes, shape ``(n, n_columns)``."""
        found: dict[tuple[Scalar | None, ...], list[float]] = {}  # most trainings are copies of another
        rows = []
        for values in training:
            key = tuple(values.get(name) for name in self._names)
            if key not in found:
                found[key] = [self._position(dimensions, values) for dimensions in self._columns.values()]
            rows.append(found[key])
        return np.array(rows, dtype=np.float64).reshape(len(training), len(self._columns))

    def _position(self, dimensions: Sequence[Dimension], values: Mapping[str, Scalar]) -> float:
        """Return the position of the dimension that applies, of those that share a column; 0.5 if none does."""
        position = 0.5
        for dimension in dimensions:
            if dimension.name in values and self._space.applies(dimension.name, values):
                position = dimension.position(values[dimension.name])
        return position


def _shared_name(dimension: Dimension) -> str:
    """Return the name of a dimension's column: ``lr_schedule.lr`` for ``lr_schedule.cosine.lr``."""
    family, *rest = dimension.name.split(".")
    shared = family in ("lr_schedule", "batch_size_schedule", "optimizer") and len(rest) == 2
    return f"{family}.{rest[1]}" if shared else dimension.name
