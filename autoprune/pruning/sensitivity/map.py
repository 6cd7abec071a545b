"""The sensitivity map: score after one group alone is pruned, and the widths that a drop in score allows.

A score is accuracy, or any other metric signed so that higher is better.

Importing this loads no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from autoprune.errors import PruningError


@dataclass(frozen=True)
class SensitivityPoint:
    """Score with one group pruned to a width and all others whole, batch norm recalibrated, not trained."""

    group: str
    width: int
    score: float


@dataclass(frozen=True)
class SensitivityMap:
    """How the score falls when each group alone is pruned.

    Between measured widths the score is interpolated. A narrower width never reads better than a wider one: the
    score at a width is the lowest among those measured at it and at wider ones, the dense network included. Nothing
    is known below the narrowest measured width. The score there reads as that of the narrowest, and no width is
    proposed.

    Attributes:
        dense_widths: Group -> channels in the dense network, for every group of the plan.
        multiples: Group -> the number that its width must be a multiple of; 1 where it is not named.
        dense_score: Of the dense network, recalibrated and judged on the same examples as the points.
        points: In any order. A group without any stays whole. A score of NaN counts as lower than any other.
        n_examples: Examples that went forward through networks to measure all of it.

    Raises:
        PruningError: If a point is of a group or a width that the network hasn't.
    """

    dense_widths: Mapping[str, int]
    dense_score: float
    points: tuple[SensitivityPoint, ...]
    multiples: Mapping[str, int]
    n_examples: int = 0

    def __post_init__(self) -> None:
        for point in self.points:
            if not 1 <= point.width <= self.dense_widths.get(point.group, 0):
                raise PruningError(f"the sensitivity of '{point.group}' at width {point.width} is of another network.")

    def score(self, group: str, width: int) -> float:
        """Return the score with this group alone at this width.

        Raises:
            PruningError: If the group has no points, or the width is not in [1, the dense one].
        """
        if group not in self._curves:
            raise PruningError(f"group '{group}' has no sensitivity. Known: {', '.join(self._curves) or 'none'}.")
        curve = self._curves[group]
        if not 1 <= width < len(curve):
            raise PruningError(f"width of '{group}' must be in [1, {len(curve) - 1}], got {width}.")
        return float(curve[width])

    def ranking(self) -> list[str]:
        """Rank the measured groups, most sensitive first, by the mean drop from the narrowest to the dense width."""
        drops = {
            group: float(np.nan_to_num(self.dense_score - curve[self._narrowest[group] :], nan=np.inf).mean())
            for group, curve in self._curves.items()
        }
        return sorted(drops, key=lambda group: -drops[group])

    def widths_within(self, drop: float) -> dict[str, int]:
        """Return the narrowest width of every group at which that group alone loses at most ``drop``.

        One threshold gives the widths of all groups, as in ModelOpt's FastNAS. The widths obey ``multiples`` and are
        no narrower than what was measured. Pruned together, the groups lose more than ``drop``.

        Raises:
            PruningError: If ``drop`` is negative or NaN.
        """
        if not drop >= 0:
            raise PruningError(f"the drop in score must be at least 0, got {drop}.")
        found = dict(self.dense_widths)
        for group, (widths, drops) in self._steps.items():
            found[group] = int(widths[np.searchsorted(drops, drop, side="right") - 1])
        return found

    def to_dict(self) -> dict[str, Any]:
        """Turn the map into plain JSON values; NaN stays, as Python's ``json`` writes and reads it."""
        plain: dict[str, Any] = to_jsonable_python(self)
        return plain

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "SensitivityMap":
        """Rebuild a map; raises ``pydantic.ValidationError`` if the record is not one."""
        return _ADAPTER.validate_python(record)

    @cached_property
    def _measured(self) -> dict[str, dict[int, float]]:
        """Group -> width -> score as measured, widest first, the dense width included."""
        found = {group: {width: self.dense_score} for group, width in self.dense_widths.items()}
        for point in sorted(self.points, key=lambda point: -point.width):
            found[point.group].setdefault(point.width, point.score)
        return {group: scores for group, scores in found.items() if len(scores) > 1}

    @cached_property
    def _narrowest(self) -> dict[str, int]:
        return {group: min(scores) for group, scores in self._measured.items()}

    @cached_property
    def _curves(self) -> dict[str, np.ndarray]:
        """Group -> score at every width from 0 to the dense one, never rising as the width falls."""
        curves = {}
        for group, scores in self._measured.items():
            falling = np.minimum.accumulate(np.array(list(scores.values()), dtype=float))
            widths = np.array(list(scores))
            curves[group] = np.interp(np.arange(self.dense_widths[group] + 1), widths[::-1], falling[::-1])
        return curves

    @cached_property
    def _steps(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Group -> the widths it may have, widest first, and the drop at each, never falling."""
        steps = {}
        for group, curve in self._curves.items():
            dense, multiple = self.dense_widths[group], self.multiples.get(group, 1)
            allowed = [w for w in range(self._narrowest[group], dense) if w % multiple == 0]
            widths = np.array([*allowed, dense])[::-1]
            steps[group] = (widths, np.nan_to_num(self.dense_score - curve[widths], nan=np.inf))
        return steps


_ADAPTER = TypeAdapter(SensitivityMap)
