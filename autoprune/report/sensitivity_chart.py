"""The sensitivity map as a picture."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from autoprune.config.metric import MetricSpec
from autoprune.pruning.sensitivity.map import SensitivityMap

COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00")
"""Of the most sensitive groups, most sensitive first: Okabe & Ito's, which the colour-blind can tell apart."""

GREY, INK = "#b8b8b8", "#333333"
MAX_LABEL = 30
LABEL_GAP = 0.05
"""Least distance between two labels, as a share of the picture's height."""


def draw_sensitivity(found: SensitivityMap, metric: MetricSpec, path: Path, title: str) -> None:
    """Draw a line a group: the most sensitive coloured and named, the others grey.

    Args:
        metric: What the map's scores are of.
        path: Ends in ``.png``, ``.svg`` or ``.pdf``.
    """
    figure = Figure(figsize=(7.5, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    ranking = found.ranking()
    narrowest = min(_line(found, metric, name)[0][-1] for name in ranking)
    _lay_out(axes, metric, title, narrowest)
    ends: list[tuple[float, str, str]] = []
    for place in reversed(range(len(ranking))):  # the most sensitive last, on top
        shares, values = _line(found, metric, ranking[place])
        named = place < len(COLOURS)
        colour = COLOURS[place] if named else GREY
        axes.plot(
            shares,
            values,
            color=colour,
            linewidth=2 if named else 1,
            marker="o",
            markersize=4 if named else 2.5,
            clip_on=False,
            zorder=3 if named else 2,
        )
        if named:
            ends.append((values[-1], _shortened(ranking[place]), colour))
    dense = metric.value(found.dense_score)
    axes.axhline(dense, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(
        f"dense {dense:.3g}",
        (narrowest, dense),
        xytext=(0, 4),
        ha="right",
        textcoords="offset points",
        color=INK,
        fontsize=8,
    )
    n_others = len(ranking) - len(COLOURS)
    if n_others > 0:
        middle = float(np.nanmedian([_line(found, metric, name)[1][-1] for name in ranking[len(COLOURS) :]]))
        ends.append((middle, f"{n_others} less sensitive", "#808080"))
    _label(axes, ends)
    figure.savefig(path)


def _lay_out(axes: Axes, metric: MetricSpec, title: str, narrowest: float) -> None:
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.set_xlabel("share of the group's channels kept, all other groups whole", fontsize=9, color=INK)
    axes.set_ylabel(metric.name, fontsize=9, color=INK)
    axes.set_xlim(1.0, narrowest)
    axes.set_xticks([share for share in (1.0, 0.75, 0.5, 0.25) if share >= narrowest])
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.tick_params(colors=INK, labelsize=8)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _line(found: SensitivityMap, metric: MetricSpec, group: str) -> tuple[list[float], list[float]]:
    """Shares of channels kept, descending from 1, and the metric's values measured there."""
    points = sorted((point for point in found.points if point.group == group), key=lambda point: -point.width)
    dense = found.dense_widths[group]
    return (
        [1.0, *(point.width / dense for point in points)],
        [metric.value(score) for score in (found.dense_score, *(point.score for point in points))],
    )


def _label(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Name lines beside their ends, each label moved as little as keeps it clear of the others."""
    low, high = axes.get_ylim()
    drawable = [end for end in ends if np.isfinite(end[0])]
    heights = np.array([(height - low) / (high - low) for height, _, _ in drawable])
    for height, (_, text, colour) in zip(_spread(heights), drawable, strict=True):
        axes.annotate(
            text,
            (1.02, height),
            xycoords="axes fraction",
            color=colour,
            fontsize=8.5,
            va="center",
            annotation_clip=False,
        )


def _spread(heights: np.ndarray) -> Iterator[float]:
    """Move heights in [0, 1] apart until any two differ by ``LABEL_GAP``, in their order."""
    moved = heights.copy()
    for _ in range(100):
        order = np.argsort(moved, kind="stable")
        gaps = LABEL_GAP - np.diff(moved[order])
        if not (gaps > 1e-6).any():
            break
        for (lower, upper), gap in zip(pairwise(order), gaps, strict=True):
            if gap > 0:
                moved[lower] -= gap / 2
                moved[upper] += gap / 2
    yield from (float(height) for height in moved)


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_LABEL else "\N{HORIZONTAL ELLIPSIS}" + name[1 - MAX_LABEL :].lstrip(".")
