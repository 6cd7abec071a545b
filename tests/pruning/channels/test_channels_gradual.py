"""The cubic schedule of ratios."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.pruning.channels.gradual import cubic_ratio, gradual_weight_ratios, gradual_widths


@pytest.mark.parametrize(
    ("t", "ratio"), [(-1, 0.1), (0, 0.1), (0.5, 0.9 - 0.8 / 8), (0.25, 0.9 - 0.8 * 27 / 64), (1, 0.9), (2, 0.9)]
)
def test_cubic_ratio(t: float, ratio: float) -> None:
    assert cubic_ratio(t, 0.1, 0.9) == pytest.approx(ratio)


@given(st.integers(1, 512), st.integers(1, 512), st.floats(0, 1), st.floats(0, 1))
def test_widths_fall_from_start_to_final(a: int, b: int, t: float, u: float) -> None:
    start, final = max(a, b), min(a, b)
    early, late = sorted((t, u))
    widths = [gradual_widths({"g": start, "other": 3}, {"g": final}, at)["g"] for at in (0, early, late, 1)]
    assert widths[0] == start
    assert widths[-1] == final
    assert widths == sorted(widths, reverse=True)


def test_weight_ratios_start_at_zero_where_none_is_given() -> None:
    ratios = gradual_weight_ratios({"a.weight": 0.4}, {"a.weight": 0.8, "b.weight": 0.8}, 0.5)
    assert ratios == pytest.approx({"a.weight": 0.75, "b.weight": 0.7})
    assert gradual_weight_ratios({}, {"a.weight": 0.8}, 1) == {"a.weight": 0.8}
