"""The sensitivity map: monotone, interpolated, and the widths that a drop or a cost allows; checked by brute force."""

import json
import subprocess
import sys
import time
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autoprune.cost import CostTable, build_table
from autoprune.cost.table import TensorCost
from autoprune.errors import PruningError
from autoprune.pruning.planner import make_plan
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
    assert [EXAMPLE.accuracy("a", width) for width in (8, 6, 4, 3, 2)] == pytest.approx([0.9, 0.85, 0.8, 0.6, 0.4])
    assert [EXAMPLE.accuracy("b", width) for width in (16, 8, 4, 2)] == pytest.approx([0.9, 0.9, 0.85, 0.85])
    assert EXAMPLE.accuracy("a", 1) == EXAMPLE.accuracy("a", 2)


def test_a_cut_that_reads_better_than_dense_reads_as_dense() -> None:
    assert of({("a", 4): 0.95}).accuracy("a", 4) == 0.9


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
        (lambda: EXAMPLE.accuracy("c", 2), r"group 'c' has no sensitivity. Known: a, b\."),
        (lambda: EXAMPLE.accuracy("a", 9), r"width of 'a' must be in \[1, 8\], got 9"),
        (lambda: EXAMPLE.widths_within(-0.1), "must be at least 0, got -0.1"),
        (lambda: of({("d", 1): 0.5}), "'d' at width 1 is of another network"),
        (lambda: of({("a", 9): 0.5}), "'a' at width 9 is of another network"),
    ],
)
def test_mistakes(call: object, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        call()  # type: ignore[operator]


def network() -> tuple[nn.Module, torch.Tensor]:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16, 4)
    ), torch.randn(2, 1, 8, 8)


@cache
def table_and_map() -> tuple[CostTable, SensitivityMap]:
    model, inputs = network()
    plan = make_plan(model, inputs)
    table = build_table(model, inputs, widths=plan.group_widths, shrink=plan.shrink, products=plan.products)
    points = {("0", 4): 0.8, ("0", 1): 0.3, ("2", 8): 0.9, ("2", 2): 0.6}
    return table, SensitivityMap(
        table.widths, 0.9, tuple(SensitivityPoint(*key, value) for key, value in points.items()), {}
    )


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 1.0), st.sampled_from(["macs", "params"]))
def test_widths_at_a_cost_by_brute_force(fraction: float, cost: str) -> None:
    table, found = table_and_map()
    dense = getattr(table.cost({}), cost)
    widths = found.widths_at_cost(fraction, table, cost)  # type: ignore[arg-type]
    assert getattr(table.cost(widths), cost) <= fraction * dense
    # The lowest of all drops at which the network fits, tried one by one.
    for drop in np.unique(
        [0.9 - found.accuracy(g, w) for g, dense_w in (("0", 8), ("2", 16)) for w in range(2, dense_w + 1)]
    ):
        tried = found.widths_within(max(0.0, float(drop)) + 1e-12)
        if getattr(table.cost(tried), cost) <= fraction * dense:
            assert tried == widths
            break


def test_a_cost_out_of_reach() -> None:
    table, found = table_and_map()
    with pytest.raises(PruningError, match=r"at the narrowest widths that were measured, macs are .*x of dense"):
        found.widths_at_cost(0.01, table)
    with pytest.raises(PruningError, match=r"must be in \(0, 1\], got 1.5"):
        found.widths_at_cost(1.5, table)


def test_thousands_of_calls_a_second() -> None:
    widths = {f"layer{number}": 512 for number in range(50)}
    points = tuple(
        SensitivityPoint(group, width, 0.9 - 0.001 * (number + 1) * (512 - width) / 100)
        for number, group in enumerate(widths)
        for width in (384, 256, 128, 51)
    )
    found = SensitivityMap(widths, 0.9, points, {})
    tensors = [TensorCost((group,), (512, 512), 4, True, 512 * 512, ((0, group, 1),)) for group in widths]
    table = CostTable(widths, (), tuple(tensors), {})
    found.widths_at_cost(0.5, table)
    start = time.perf_counter()
    for fraction in np.linspace(0.2, 1.0, 500):
        found.widths_at_cost(float(fraction), table)
    assert time.perf_counter() - start < 0.5


def test_importing_the_map_loads_no_torch() -> None:
    code = "import sys, autoprune.pruning.sensitivity; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
