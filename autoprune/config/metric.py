"""The metric that a study judges networks by: its name and its direction. Loads no torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Direction = Literal["maximize", "minimize"]

METRICS: dict[str, Direction] = {
    "accuracy": "maximize",
    "top5": "maximize",
    "f1": "maximize",
    "precision": "maximize",
    "recall": "maximize",
    "specificity": "maximize",
    "auroc": "maximize",
    "average_precision": "maximize",
    "cohen_kappa": "maximize",
    "mcc": "maximize",
    "iou": "maximize",
    "mae": "minimize",
    "mse": "minimize",
    "rmse": "minimize",
    "mape": "minimize",
    "r2": "maximize",
}
"""Name of a built-in metric -> its direction."""


@dataclass(frozen=True)
class MetricSpec:
    """Name and direction of a metric.

    Files, tables and messages carry the metric's own value. What decides inside a search uses its score: the value,
    signed so that higher is better.

    Example:
        >>> rmse = MetricSpec("rmse", "minimize")
        >>> rmse.score(40.0), rmse.column
        (-40.0, 'metric.rmse')
    """

    name: str = "accuracy"
    direction: Direction = "maximize"

    @property
    def is_minimized(self) -> bool:
        """Whether lower values are better."""
        return self.direction == "minimize"

    @property
    def column(self) -> str:
        """Its column in ``trials.parquet`` and ``front.parquet``, on the validation split."""
        return f"metric.{self.name}"

    @property
    def test_column(self) -> str:
        """The column of its value on the test split."""
        return f"{self.column}_test"

    @property
    def error_column(self) -> str:
        """The column of the standard error of its value on the validation split."""
        return f"{self.column}_se"

    def score(self, value: float) -> float:
        """Return a value signed so that higher is better."""
        return -value if self.is_minimized else value

    def value(self, score: float) -> float:
        """Return the value that has a score."""
        return -score if self.is_minimized else score

    def unit(self, dense: float) -> float:
        """Return the size that differences of the score count against.

        It is 1 for a metric that is maximised and in [0, 1], such as accuracy, and else the dense network's own value,
        so that the unit of a metric without bounds does not matter.

        Args:
            dense: The dense network's value.
        """
        return 1.0 if self._is_share(dense) else abs(dense) or 1.0

    def floor(self, dense: float) -> float:
        """Return the score at which a network adds nothing to the hypervolume, given the dense network's value.

        0 for a metric in [0, 1], else one :meth:`unit` below the dense network.

        Example:
            >>> MetricSpec().floor(0.9), MetricSpec("rmse", "minimize").floor(40.0)
            (0.0, -80.0)
        """
        return 0.0 if self._is_share(dense) else self.score(dense) - self.unit(dense)

    def directions(self, objectives: Sequence[str]) -> list[Direction]:
        """Return the direction of each objective; every cost is minimised."""
        return [self.direction if name == self.name else "minimize" for name in objectives]

    def columns(self, objectives: Sequence[str]) -> list[str]:
        """Return the column of each objective in ``trials.parquet``."""
        return [self.column if name == self.name else name for name in objectives]

    def text(self, value: float | None) -> str:
        """Write a value for a table, ``-`` where there is none.

        Example:
            >>> [MetricSpec().text(value) for value in (0.91, 1234.5678, 0.00012345678, None)]
            ['0.9100', '1234.6', '0.00012346', '-']
        """
        if value is None or math.isnan(value):
            return "-"
        return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 100 else f"{value:.5g}"

    def _is_share(self, dense: float) -> bool:
        return not self.is_minimized and 0.0 <= dense <= 1.0
