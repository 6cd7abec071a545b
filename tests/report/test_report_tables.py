"""The front as a table: figures a person can read, in 80 columns."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType
from tiny import dense_reference

from autoprune.config.metric import MetricSpec
from autoprune.report.tables import certification_table, cost_cell, front_table, is_certified, quantity
from autoprune.trial import Cost

DENSE = dense_reference(0.98765, Cost(268_336, 268_336, 1_093_000, 40_600_000, 4.2))
METRIC = MetricSpec()
FRONT = pd.DataFrame(
    {
        "number": [3, 1204, 17],
        "metric.accuracy": [0.9, 0.9734, 0.5],
        "metric.accuracy_test": [0.89, np.nan, 0.51],
        "params": pd.array([134_168, 268_336, 1_500], dtype="Int64"),
        "nonzero_params": pd.array([100_000, 200_000, 1_000], dtype="Int64"),
        "size_bytes": pd.array([546_400, 1_093_000, 9_999], dtype="Int64"),
        "macs": pd.array([20_300_000, 36_540_000, 200_000], dtype="Int64"),
        "flops": pd.array([40_600_000, 73_080_000, 400_000], dtype="Int64"),
        "latency_ms": [2.1, None, 0.123456],
    }
)


def rendered(table: RenderableType, width: int = 80) -> list[str]:
    file = io.StringIO()
    Console(width=width, file=file).print(table)
    return [line.rstrip() for line in file.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("flops", 81_200_000, "81.2M"),
        ("macs", 2_000_000_000_000, "2T"),
        ("params", 268_336, "268k"),
        ("params", 999, "999"),
        ("params", 0, "0"),
        ("params", 999_499, "999k"),
        ("params", 999_500, "1M"),
        ("flops", 999_999_999, "1G"),
        ("size_bytes", 1_070_000, "1.07MB"),
        ("size_bytes", 512, "512B"),
        ("latency_ms", 2.3149, "2.31ms"),
        ("latency_ms", 0.0012345, "0.00123ms"),
        ("latency_ms", 123.9, "124ms"),
        ("latency_ms", 1234.5, "1.23s"),
    ],
)
def test_quantity(name: str, value: float, text: str) -> None:
    assert quantity(name, value) == text


@given(st.integers(0, 10**15 - 10**12))
def test_quantity_says_the_value_to_three_digits(value: int) -> None:
    text = quantity("flops", value)
    factor = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.get(text[-1], 1)
    assert "e" not in text
    assert float(text.rstrip("kMGT")) * factor == pytest.approx(value, rel=0.005)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (40_600_000, "40.6M 0.50x"),
        (81_200_000, "81.2M 1.00x"),
        (812_000_000, "812M 10.00x"),
        (400_000, "400k 0.0049x"),
        (None, "-"),
        (float("nan"), "-"),
        (pd.NA, "-"),
    ],
)
def test_cost_cell(value: float | None, text: str) -> None:
    assert cost_cell("flops", value, 81_200_000) == text


def test_cost_cell_without_a_dense_figure() -> None:
    assert cost_cell("flops", 400_000) == "400k"
    assert cost_cell("latency_ms", 2.0, 0) == "2ms"
    assert cost_cell("latency_ms", 2.0, None) == "2ms"


def test_front_table() -> None:
    assert rendered(front_table(FRONT, DENSE, ["accuracy", "flops"], METRIC, dense_test=0.98, title="front of s")) == [
        "front of s",
        "trial  accuracy    test         FLOPs  params    size  latency",
        "dense    0.9877  0.9800   81.2M 1.00x    268k  1.09MB    4.2ms",
        " 1204    0.9734       -   73.1M 0.90x    268k  1.09MB        -",
        "    3    0.9000  0.8900   40.6M 0.50x    134k   546kB    2.1ms",
        "   17    0.5000  0.5100  400k 0.0049x    1.5k    10kB  0.123ms",
    ]


def test_where_a_point_comes_from() -> None:
    front = FRONT.assign(source=pd.array([None, "other:7", None], dtype="str"))
    lines = rendered(front_table(front, DENSE, ["accuracy", "flops"], METRIC, dense_test=0.98))
    assert [line.split()[0] for line in lines[1:5]] == ["dense", "1204*", "3", "17"]
    assert lines[5] == "*: taken over from another study: 1204 is other:7"


@pytest.mark.parametrize(
    "objectives",
    [["accuracy", "flops"], ["size_bytes", "accuracy", "latency_ms"], ["accuracy", "nonzero_params", "latency_ms"]],
)
def test_every_row_is_one_line_of_at_most_80_columns(objectives: list[str]) -> None:
    lines = rendered(front_table(FRONT, DENSE, objectives, METRIC, dense_test=0.98))
    assert len(lines) == 5
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    assert sum(line.count("x") for line in lines[1:]) <= 4 * (len(objectives) - 1)


def test_test_accuracies_only_once_they_were_read() -> None:
    unread = FRONT.assign(**{"metric.accuracy_test": np.nan})
    for front in (unread, FRONT.drop(columns="metric.accuracy_test")):
        assert rendered(front_table(front, DENSE, ["accuracy", "flops"], METRIC))[0].split()[:3] == [
            "trial",
            "accuracy",
            "FLOPs",
        ]


def test_an_empty_front_still_shows_the_dense_network() -> None:
    heading, dense = rendered(front_table(FRONT.iloc[:0], DENSE, ["accuracy", "flops"], METRIC))
    assert heading.split()[0] == "trial"
    assert dense.split() == ["dense", "0.9877", "81.2M", "1.00x", "268k", "1.09MB", "4.2ms"]


def test_certification_table() -> None:
    def way(name: str, runs: int, *figures: float) -> dict[str, float]:
        kinds = tuple(f"metric.accuracy{ending}" for ending in ("", "_std", "_test", "_test_std"))
        return {f"{name}.runs": runs, **{f"{name}.{kind}": x for kind, x in zip(kinds, figures, strict=True)}}

    nan = float("nan")
    rows = [
        {**way("lineage", 3, 0.91, 0.0031, 0.9, 0.01), **way("from_dense", 3, 0.905, 0.02, 0.89, 0.0), "holds": False},
        {**way("lineage", 1, 0.97, nan, 0.96, nan), **way("from_dense", 2, -2.5, 1.25, -3.5, 2.5), "holds": True},
        {**way("lineage", 0, nan, nan, nan, nan), **way("from_dense", 3, 0.5, 0.1, 0.5, 0.1), "holds": None},
    ]
    front = pd.concat([FRONT, pd.DataFrame(rows).astype({"holds": "boolean"})], axis=1)
    assert (is_certified(front), is_certified(FRONT)) == (True, False)
    assert rendered(certification_table(front, METRIC)) == [
        "trained again over seeds (accuracy, mean±deviation)",
        "trial  seeds       lineage          test      from dense            test  holds",
        " 1204    1/2        0.9700        0.9600  -2.5000±1.2500  -3.5000±2.5000  yes",
        "    3      3  0.9100±.0031  0.9000±.0100    0.9050±.0200    0.8900±.0000  no",
        "   17    0/3             -             -    0.5000±.1000    0.5000±.1000  -",
        "no: another point costs no more and was as good or better on average",
    ]
    assert rendered(certification_table(front[1:], METRIC))[-1].split()[0] == "17"


def test_errors_and_points_that_are_passed_over_are_explained_in_the_foot() -> None:
    front = FRONT.assign(
        **{"metric.accuracy_se": [0.0123, None, 0.1]},
        excluded=[None, "no better than dense", "beyond metric_drop"],
        source=pd.array([None, None, "other:7"], dtype="str"),
    )
    dense = replace(DENSE, metric_se=0.0042)
    lines = rendered(front_table(front, dense, ["accuracy", "flops"], METRIC))
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["dense", "0.9877±.0042"],
        ["1204!", "0.9734"],
        ["3", "0.9000±.012"],
        ["17*!", "0.5000±.1"],
    ]
    foot = " ".join(lines[5:])
    assert foot.startswith("±: standard error, from the size of the validation split !: passed over by knee, best and")
    assert foot.endswith("beyond metric_drop or no better than dense *: taken over from another study: 17 is other:7")
