"""The trade-off between objectives: the non-dominated trials, the hypervolume they cover, and the knee of the front."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


def non_dominated_mask(values: npt.ArrayLike, directions: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Mark the trials that no other trial dominates.

    Equal rows do not dominate each other, so all of them are kept.

    Args:
        values: Objective values, shape ``(n_trials, n_objectives)``. A row with NaN is never on the front.
        directions: ``"minimize"`` or ``"maximize"``, one per column.

    Returns:
        Boolean mask, shape ``(n_trials,)``.

    Raises:
        ValueError: If ``values`` is not 2-D, its width differs from ``directions``, or a direction is unknown.

    Source:
        Deb et al. 2002, https://doi.org/10.1109/4235.996017
    """
    return _mask(_minimized(values, directions))


def hypervolume(values: npt.ArrayLike, directions: Sequence[str], reference: npt.ArrayLike) -> float:
    """Measure the part of objective space that the trials dominate, up to the reference point.

    Exact for any number of objectives, by slicing along the last one until two are left.

    Args:
        values: Objective values, shape ``(n_trials, n_objectives)``. A row with NaN, or one that is not strictly better
            than ``reference`` in every objective, adds nothing.
        directions: ``"minimize"`` or ``"maximize"``, one per column.
        reference: Reference point, shape ``(n_objectives,)``, in the objectives' own units.

    Returns:
        The hypervolume in the product of the objectives' units; 0 without a trial better than ``reference``.

    Raises:
        ValueError: If the shapes don't fit, a direction is unknown, or ``reference`` is not finite.

    Source:
        Hypervolume by slicing objectives: While et al. 2006, https://doi.org/10.1109/TEVC.2005.851275
    """
    costs = _minimized(values, directions)
    bound = _minimized(np.asarray(reference, dtype=np.float64).reshape(1, -1), directions)[0]
    if not np.isfinite(bound).all():
        raise ValueError(f"reference must be finite, got {np.asarray(reference).tolist()}.")
    costs = costs[(costs < bound).all(axis=1)]
    return _sliced_volume(bound - costs[_mask(costs)])


def knee(values: npt.ArrayLike, directions: Sequence[str]) -> int:
    """Find the front's knee: the trial past which a gain in one objective costs the most in the others.

    Every objective is normalised to [0, 1] over the front, 0 being its best value there. With two objectives the knee
    is the point farthest from the line through the front's extremes, on the side of the ideal point; where the front
    bulges away from it, that is an extreme. With more objectives it is the point nearest to the ideal point, in
    Euclidean distance.

    Args:
        values: Objective values, shape ``(n_trials, n_objectives)``; dominated rows and rows with NaN are passed over.
        directions: ``"minimize"`` or ``"maximize"``, one per column.

    Returns:
        Row of ``values``; the first of equals.

    Raises:
        ValueError: If the shapes don't fit, a direction is unknown, or every row has a NaN.

    Source:
        Das 1999, https://doi.org/10.1007/BF01195985; Branke et al. 2004, https://doi.org/10.1007/978-3-540-30217-9_73
    """
    costs = _minimized(values, directions)
    rows = np.flatnonzero(_mask(costs))
    if not len(rows):
        raise ValueError("knee needs at least one row of values without NaN, got none.")
    front = costs[rows]
    span = np.ptp(front, axis=0)
    scaled = (front - front.min(axis=0)) / np.where(span > 0, span, 1.0)
    # The extremes of a 2-D front are (0, 1) and (1, 0) here, so the distance from their line is (1 - x - y) / sqrt(2).
    badness = scaled.sum(axis=1) if scaled.shape[1] == 2 else np.linalg.norm(scaled, axis=1)
    # Rounded, so that the last bit of a difference decides no tie.
    return int(rows[np.argmin(badness.round(12))])


def _minimized(values: npt.ArrayLike, directions: Sequence[str]) -> Values:
    """Turn the objectives so that lower is better in every column."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != len(directions):
        raise ValueError(
            f"values must have shape (n_trials, {len(directions)}), a column for each direction, got {array.shape}."
        )
    unknown = [direction for direction in directions if direction not in ("minimize", "maximize")]
    if unknown:
        raise ValueError(f"a direction must be 'minimize' or 'maximize', got {unknown[0]!r}.")
    return array * np.where([direction == "minimize" for direction in directions], 1.0, -1.0)


def _mask(costs: Values) -> npt.NDArray[np.bool_]:
    """Mark the non-dominated rows, lower being better."""
    mask = np.zeros(len(costs), dtype=np.bool_)
    known = np.flatnonzero(~np.isnan(costs).any(axis=1))
    # In lexicographic order a row can only be dominated by one that comes before it.
    order = known[np.lexsort(costs[known].T[::-1])]
    front = np.empty_like(costs)
    size = 0
    for index in order:
        row, others = costs[index], front[:size]
        if not ((others <= row).all(axis=1) & (others < row).any(axis=1)).any():
            mask[index] = True
            front[size] = row
            size += 1
    return mask


def _sliced_volume(gains: Values) -> float:
    """Measure the union of the boxes from 0 to each row of ``gains`` (all > 0), shape ``(n_points, n_objectives)``."""
    if not len(gains):
        return 0.0
    if gains.shape[1] == 1:
        return float(gains.max())
    gains = gains[np.argsort(-gains[:, -1], kind="stable")]
    depths = gains[:, -1] - np.append(gains[1:, -1], 0.0)
    if gains.shape[1] == 2:
        return float(depths @ np.maximum.accumulate(gains[:, 0]))
    return float(sum(depth * _sliced_volume(gains[: i + 1, :-1]) for i, depth in enumerate(depths) if depth > 0))
