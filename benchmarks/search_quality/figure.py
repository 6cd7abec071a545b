"""Hypervolume against all training epochs spent: a line a method (median over the seeds), the range as a band."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from benchmarks.search_quality.measures import volume_at
from benchmarks.search_quality.settings import SETTINGS

N_POINTS = 121
"""Places on the epochs axis."""

FROM = 0.1
"""Share of the budget where the axis of epochs begins; before it there are too few trials to compare."""

SHOWN_FROM = 0.2
"""The hypervolume axis begins near what this share of the methods has not reached at about a third of the budget."""


def draw(frame: pd.DataFrame, settings: Sequence[str], path: Path) -> None:
    """Draw a column a setting, above with MACs on a linear axis and below on a log axis, into an SVG or PNG file."""
    plt.switch_backend("Agg")
    shown = [name for name in settings if (frame["setting"] == name).any()]
    methods = sorted(frame["method"].unique())
    colours = plt.get_cmap("tab20")
    styles = {
        name: {"color": colours(index % 20), "linestyle": "-" if index % 2 == 0 else "--"}
        for index, name in enumerate(methods)
    }
    figure, axes = plt.subplots(2, len(shown), figsize=(4.2 * len(shown) + 2.4, 7), squeeze=False, layout="constrained")
    for column, setting in enumerate(shown):
        rows = frame[frame["setting"] == setting]
        for log, axis in zip((False, True), axes[:, column], strict=True):
            _panel(axis, rows, SETTINGS[setting].reference, log, styles)
        axes[0, column].set_title(setting)
        axes[1, column].set_xlabel("training epochs spent")
    axes[0, 0].set_ylabel("hypervolume, MACs linear")
    axes[1, 0].set_ylabel("hypervolume, MACs on a log axis")
    handles = [plt.Line2D([], [], label=name, **style) for name, style in styles.items()]
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _panel(
    axis: plt.Axes, rows: pd.DataFrame, reference: float, log: bool, styles: dict[str, dict[str, object]]
) -> None:
    ends = []
    for method, runs in rows.groupby("method"):
        epochs = np.linspace(FROM, 1.0, N_POINTS) * float(runs["budget"].max())
        volumes = np.array(
            [[volume_at(run, spent, reference, log) for spent in epochs] for _, run in runs.groupby("seed")]
        )
        middle = np.median(volumes, axis=0)
        axis.plot(epochs, middle, drawstyle="steps-post", linewidth=1.6, **styles[str(method)])
        if len(volumes) > 1:
            axis.fill_between(
                epochs,
                volumes.min(axis=0),
                volumes.max(axis=0),
                alpha=0.07,
                linewidth=0,
                color=styles[str(method)]["color"],
            )
        ends.append((middle[N_POINTS // 3], middle[-1]))
    best, low = max(end for _, end in ends), float(np.quantile([early for early, _ in ends], SHOWN_FROM))
    axis.set_ylim(low - 0.2 * (best - low), best + 0.1 * (best - low))
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
