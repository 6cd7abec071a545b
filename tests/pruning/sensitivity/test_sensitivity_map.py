"""The sensitivity map: monotone, interpolated, and the widths that a drop allows; checked by brute force."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.errors import PruningError
from autoprune.pruning.sensitivity.map import SensitivityMap, SensitivityPoint


def of(points: dict[tuple[str, int], float], dense: float = 0.9, **multiples: int) -> SensitivityMap:
    return SensitivityMap(
        {"a": 8, "b": 16, "c": 4},
        dense,
        tuple(SensitivityPoint(*key, value) for key, value in points.items()),
        multiples,
    )


EXAMPLE = of({("a", 4): 0.8, ("a", 2): 0.4, ("b", 8): 0.9, ("b", 4): 0.85, ("b", 2): 0.86})


def test_the_accuracy_is_interpolated_and_never_rises_with_a_cut() -> None:
    assert [EXAMPLE.score("a", width) for width in (8, 6, 4, 3, 2)] == pytest.approx([0.9, 0.85, 0.8, 0.6, 0.4])
    assert [EXAMPLE.score("b", width) for width in (16, 8, 4, 2)] == pytest.approx([0.9, 0.9, 0.85, 0.85])
    assert EXAMPLE.score("a", 1) == EXAMPLE.score("a", 2)


def test_a_cut_that_reads_better_than_dense_reads_as_dense() -> None:
    assert of({("a", 4): 0.95}).score("a", 4) == 0.9


def test_widths_within_a_drop() -> None:
    assert EXAMPLE.widths_within(0.0) == {"a": 8, "b": 8, "c": 4}
    assert EXAMPLE.widths_within(0.06) == {"a": 6, "b": 2, "c": 4}
    assert EXAMPLE.widths_within(1.0) == {"a": 2, "b": 2, "c": 4}


def test_widths_obey_the_multiples_and_the_dense_width_is_always_allowed() -> None:
    found = of({("a", 2): 0.9, ("b", 2): 0.9}, a=3, b=4)
    assert found.widths_within(0.0) == {"a": 3, "b": 4, "c": 4}
    assert of({("a", 7): 0.9}, a=3).widths_within(0.0)["a"] == 8


def test_the_most_sensitive_group_comes_first() -> None:
    assert EXAMPLE.ranking() == ["a", "b"]


def test_an_accuracy_of_nan_is_never_within_a_drop() -> None:
    found = of({("a", 4): 0.8, ("a", 2): float("nan"), ("b", 2): 0.9})
    assert found.widths_within(10.0) == {"a": 4, "b": 2, "c": 4}
    assert found.ranking() == ["a", "b"]


@given(
    st.lists(st.floats(0, 1), min_size=7, max_size=7),
    st.lists(st.floats(0, 1), min_size=15, max_size=15),
    st.floats(0, 1),
    st.integers(1, 5),
)
def test_widths_within_are_the_narrowest_by_brute_force(
    a: list[float], b: list[float], drop: float, multiple: int
) -> None:
    points = {("a", width + 1): value for width, value in enumerate(a)}
    found = of(points | {("b", width + 1): value for width, value in enumerate(b)}, a=multiple)
    worst = {
        "a": [min([0.9, *a[width - 1 :]]) for width in range(1, 9)],
        "b": [min([0.9, *b[w - 1 :]]) for w in range(1, 17)],
    }
    for group, multiples_of in (("a", multiple), ("b", 1)):
        curve = worst[group]
        allowed = [w for w in range(1, len(curve) + 1) if w % multiples_of == 0 or w == len(curve)]
        assert found.widths_within(drop)[group] == min(w for w in allowed if 0.9 - curve[w - 1] <= drop)


def test_json_round_trip() -> None:
    assert SensitivityMap.from_dict(json.loads(json.dumps(EXAMPLE.to_dict()))) == EXAMPLE


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: EXAMPLE.score("c", 2), r"group 'c' has no sensitivity. Known: a, b\."),
        (lambda: EXAMPLE.score("a", 9), r"width of 'a' must be in \[1, 8\], got 9"),
        (lambda: EXAMPLE.widths_within(-0.1), "must be at least 0, got -0.1"),
        (lambda: of({("d", 1): 0.5}), "'d' at width 1 is of another network"),
        (lambda: of({("a", 9): 0.5}), "'a' at width 9 is of another network"),
    ],
)
def test_mistakes(call: object, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        call()  # type: ignore[operator]


def test_importing_the_map_loads_no_torch() -> None:
    code = "import sys, autoprune.pruning.sensitivity; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
