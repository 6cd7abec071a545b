"""The sensitivity map as a table and as a picture, of a map made by hand."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from autoprune.config.metric import MetricSpec
from autoprune.pruning.plan import Group, PruningPlan
from autoprune.pruning.sensitivity.map import SensitivityMap, SensitivityPoint
from autoprune.report.sensitivity import sensitivity_table
from autoprune.report.sensitivity_chart import COLOURS, _spread, draw_sensitivity

LONG = "encoder.layers.encoder_layer_11.self_attention.out_proj"


def of(widths: dict[str, int], points: dict[tuple[str, int], float]) -> tuple[PruningPlan, SensitivityMap]:
    plan = PruningPlan(tuple(Group(name, width, (name,)) for name, width in widths.items()), (), {}, (), {})
    measured = tuple(SensitivityPoint(*key, value) for key, value in points.items())
    return plan, SensitivityMap(widths, 0.9, measured, {})


def many(n_groups: int) -> SensitivityMap:
    widths = {f"{LONG}.{number}": 64 for number in range(n_groups)}
    falls = {(name, kept): 0.9 - n * (64 - kept) / 8000 for n, name in enumerate(widths) for kept in (48, 32, 16, 6)}
    return of(widths, falls)[1]


def test_the_table_holds_what_was_measured_most_sensitive_first() -> None:
    points = {("a", 6): 0.91, ("a", 4): 0.88, ("a", 2): 0.89, (LONG, 2): 0.5, (LONG, 1): 0.1}
    plan, found = of({"a": 8, LONG: 4}, points)
    file = io.StringIO()
    Console(width=80, file=file).print(sensitivity_table(plan, found, MetricSpec(), (0.75, 0.5, 0.25), 1, "l2"))
    lines = file.getvalue().splitlines()
    rows = [line.split() for line in lines]
    assert max(map(len, lines)) <= 80
    assert "…" not in file.getvalue()
    assert rows.index(["a", "8", "0.9100", "0.8800", "0.8900"]) > 2
    assert next(row for row in rows if "4" in row)[1:] == ["4", "-", "0.5000", "0.1000"]
    assert rows.index(["a", "8", "0.9100", "0.8800", "0.8900"]) > rows.index(next(row for row in rows if "4" in row))
    assert "dense: 0.9000." in file.getvalue()


@pytest.mark.parametrize("n_groups", [1, 5, 6, 50])
def test_the_most_sensitive_are_in_colour(tmp_path: Path, n_groups: int) -> None:
    draw_sensitivity(many(n_groups), MetricSpec(), tmp_path / "a.png", "a title")
    with Image.open(tmp_path / "a.png") as image:
        pixels = {tuple(int(part) for part in pixel) for pixel in np.asarray(image.convert("RGB")).reshape(-1, 3)}
    shown = [tuple(bytes.fromhex(colour[1:])) in pixels for colour in COLOURS]
    assert shown == [place < n_groups for place in range(len(COLOURS))]


def test_labels_name_the_most_sensitive_and_count_the_rest(tmp_path: Path) -> None:
    draw_sensitivity(many(50), MetricSpec(), tmp_path / "a.svg", "a title")
    text = (tmp_path / "a.svg").read_text()
    assert "45 less sensitive" in text
    assert "out_proj.49" in text
    assert "out_proj.44" not in text
    assert "dense 0.9" in text


def test_an_accuracy_of_nan_does_not_stop_the_picture(tmp_path: Path) -> None:
    draw_sensitivity(
        of({"a": 4, "b": 4}, {("a", 2): float("nan"), ("b", 2): 0.5})[1], MetricSpec(), tmp_path / "a.png", "a title"
    )
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_labels_are_moved_apart_in_their_order() -> None:
    moved = np.array(list(_spread(np.array([0.5, 0.5, 0.51, 0.9]))))
    assert (np.diff(moved) > 0.049).all()
    assert moved[3] == 0.9
