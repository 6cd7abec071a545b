"""The front, the hypervolume and the knee, against brute force, Optuna and closed forms."""

from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from optuna._hypervolume import compute_hypervolume

from autoprune.study.pareto import hypervolume, knee, non_dominated_mask

DIRECTIONS = {1: ["maximize"], 2: ["maximize", "minimize"], 3: ["maximize", "minimize", "minimize"]}

# Few distinct values, so that ties and equal rows are common.
tables = st.integers(1, 3).flatmap(
    lambda width: arrays(
        np.float64,
        st.tuples(st.integers(0, 12), st.just(width)),
        elements=st.one_of(st.integers(-3, 3).map(float), st.floats(-5, 5)),
    )
)


def turned(values: np.ndarray) -> np.ndarray:
    return values * [1.0 if direction == "minimize" else -1.0 for direction in DIRECTIONS[values.shape[1]]]


def dominates(left: np.ndarray, right: np.ndarray) -> bool:
    return all(a <= b for a, b in zip(left, right, strict=True)) and any(
        a < b for a, b in zip(left, right, strict=True)
    )


@given(tables)
def test_the_mask_is_the_definition_of_dominance(values: np.ndarray) -> None:
    costs = turned(values)
    expected = [not any(dominates(other, row) for other in costs) for row in costs]
    assert non_dominated_mask(values, DIRECTIONS[values.shape[1]]).tolist() == expected


def test_the_mask_agrees_with_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    values = np.random.default_rng(0).normal(size=(150, 3)).round(1)
    study = optuna.create_study(directions=DIRECTIONS[3])
    study.add_trials([optuna.trial.create_trial(values=row.tolist()) for row in values])
    expected = sorted(trial.number for trial in study.best_trials)
    assert np.flatnonzero(non_dominated_mask(values, DIRECTIONS[3])).tolist() == expected


def test_a_row_with_nan_is_off_the_front_and_dominates_nothing() -> None:
    values = [[np.nan, 1.0], [0.5, 2.0], [0.9, np.nan], [0.5, 2.0], [0.4, 2.0]]
    assert non_dominated_mask(values, DIRECTIONS[2]).tolist() == [False, True, False, True, False]


@settings(max_examples=200)
@given(tables)
def test_hypervolume_agrees_with_optuna(values: np.ndarray) -> None:
    directions, width = DIRECTIONS[values.shape[1]], values.shape[1]
    reference = turned(np.full((1, width), 2.0))[0]
    costs, bound = turned(values), turned(reference[None])[0]
    inside = costs[(costs < bound).all(axis=1)]
    expected = compute_hypervolume(inside, bound) if len(inside) else 0.0
    assert hypervolume(values, directions, reference) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(tables, st.randoms(use_true_random=False))
def test_hypervolume_grows_with_the_front_and_ignores_order(values: np.ndarray, random: Any) -> None:
    directions = DIRECTIONS[values.shape[1]]
    reference = turned(np.full((1, values.shape[1]), 6.0))[0]
    whole = hypervolume(values, directions, reference)
    shuffled = values[random.sample(range(len(values)), len(values))]
    assert hypervolume(shuffled, directions, reference) == pytest.approx(whole)
    assert hypervolume(values[:-1], directions, reference) <= whole + 1e-9
    front = values[non_dominated_mask(values, directions)]
    assert hypervolume(front, directions, reference) == pytest.approx(whole)


def test_hypervolume_by_hand() -> None:
    # Two boxes of accuracy x MACs, 0.5 x 40 and 0.8 x 10, that overlap in 0.5 x 10.
    assert hypervolume([[0.5, 60.0], [0.8, 90.0]], DIRECTIONS[2], [0.0, 100.0]) == pytest.approx(20 + 8 - 5)
    assert hypervolume([[0.5, 100.0]], DIRECTIONS[2], [0.0, 100.0]) == 0.0
    # Four objectives: 3**4 and 4*2*2*2, overlapping in 3*2*2*2.
    assert hypervolume([[3, 3, 3, 3], [4, 2, 2, 2]], ["maximize"] * 4, [0, 0, 0, 0]) == pytest.approx(81 + 32 - 24)


def test_the_knee_lies_farthest_from_the_line_through_the_extremes() -> None:
    flops = np.array([100.0, 50.0, 20.0, 15.0, 10.0, 60.0])
    accuracy = np.array([0.90, 0.89, 0.88, 0.60, 0.50, 0.10])
    ends = np.array([[1.0, 0.0], [0.0, 1.0]])
    points = np.stack([(flops - 10) / 90, (0.90 - accuracy) / 0.40], axis=1)[:5]
    along = ends[1] - ends[0]
    distances = [abs(along[0] * (p - ends[0])[1] - along[1] * (p - ends[0])[0]) / np.sqrt(2) for p in points]
    assert knee(np.stack([accuracy, flops], axis=1), DIRECTIONS[2]) == int(np.argmax(distances)) == 2


def test_with_two_objectives_the_knee_is_not_the_point_nearest_to_the_ideal() -> None:
    scaled = np.array([[0.0, 1.0], [0.05, 0.8], [0.45, 0.45], [1.0, 0.0]])
    assert np.argmin(np.linalg.norm(scaled, axis=1)) == 2
    assert knee(scaled, ["minimize", "minimize"]) == 1


def test_the_knee_of_three_objectives_is_nearest_to_the_ideal_point() -> None:
    values = np.array([[1.0, 10.0, 10.0], [0.0, 0.0, 10.0], [0.5, 5.0, 0.0], [0.9, 2.0, 1.0], [np.nan, 0.0, 0.0]])
    assert knee(values, DIRECTIONS[3]) == 3


@given(tables, st.floats(0.1, 100), st.floats(-10, 10))
def test_the_knee_is_on_the_front_whatever_the_units(values: np.ndarray, scale: float, shift: float) -> None:
    values = values.round(2)
    directions = DIRECTIONS[values.shape[1]]
    if not len(values):
        with pytest.raises(ValueError, match="at least one row"):
            knee(values, directions)
        return
    chosen = knee(values, directions)
    assert non_dominated_mask(values, directions)[chosen]
    assert knee(values * scale, directions) == chosen


def test_one_point_and_a_concave_front() -> None:
    assert knee([[0.9, 5.0]], DIRECTIONS[2]) == 0
    # Bulging away from the ideal point: the middle is worse than either end.
    assert knee([[0.5, 9.0], [0.0, 0.0], [1.0, 10.0]], DIRECTIONS[2]) == 1


@pytest.mark.parametrize(
    ("values", "directions", "said"),
    [
        ([1.0, 2.0], ["minimize"], r"shape \(n_trials, 1\).*got \(2,\)"),
        ([[1.0, 2.0]], ["minimize"], r"got \(1, 2\)"),
        ([[1.0]], ["up"], "'minimize' or 'maximize', got 'up'"),
    ],
)
def test_bad_arguments_are_named(values: Any, directions: list[str], said: str) -> None:
    for call in (non_dominated_mask, knee):
        with pytest.raises(ValueError, match=said):
            call(values, directions)


def test_a_reference_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="reference must be finite"):
        hypervolume([[1.0, 2.0]], DIRECTIONS[2], [0.0, np.inf])
