"""How networks came to be, as tables for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.table import Table

from autoprune.config.metric import MetricSpec
from autoprune.report.tables import LABELS, cost_cell, plain_table
from autoprune.study.records import training_texts
from autoprune.study.tables import best_first
from autoprune.trial import DistillationConfig, OptimizerConfig, ScheduleConfig

N_STEPS = 8
"""Steps whose widths fit beside each other in 80 columns."""


def lineages_table(front: pd.DataFrame, metric: MetricSpec) -> Table:
    """A row a point of the front: the trials that it descends from, itself last, and the epochs of them all.

    Args:
        front: Rows of ``front.parquet``.
    """
    table = plain_table("lineages, from the dense network on", ">trial", ">epochs", "trained one from the other")
    for row in best_first(front, metric).to_dict("records"):
        table.add_row(str(row["number"]), str(row["epochs_lineage"]), row["lineage"])
    return table


def steps_table(steps: Sequence[Mapping[str, Any]], objectives: Sequence[str], metric: MetricSpec) -> Table:
    """A row a step, the dense network first: its metric, what it cost, and how it was trained.

    Args:
        steps: As :func:`autoprune.study.lineage.lineage_steps` gives them.
        objectives: Their costs are shown, relative to dense.
    """
    dense = steps[0]["cost"]
    costs = [name for name in objectives if name != metric.name]
    columns = [
        ">trial",
        f">{metric.name}",
        *(f">{LABELS[name]}" for name in costs),
        ">epochs",
        "lr; batch size; optimizer",
    ]
    table = plain_table("", *columns)
    for step in steps:
        table.add_row(
            "dense" if step["trial"] is None else str(step["trial"]),
            metric.text(step["metric"]),
            *(cost_cell(name, (step["cost"] or {}).get(name), dense.get(name)) for name in costs),
            str(step.get("epochs", "-")),
            _training(step),
        )
    return table


def widths_table(steps: Sequence[Mapping[str, Any]], dense: Mapping[str, int]) -> Table:
    """A row a group with the channels that each step kept of it, at most the last ``N_STEPS`` steps.

    Args:
        steps: As :func:`steps_table` takes them.
        dense: Group -> channels in the dense network.
    """
    shown = steps[1:][-N_STEPS:]
    table = plain_table("channels kept", "group", ">dense", *(f">{step['trial']}" for step in shown))
    for group, width in dense.items():
        table.add_row(group, str(width), *(str(step["kept"].get(group, "-")) for step in shown))
    return table


def _training(step: Mapping[str, Any]) -> str:
    if "weights" in step:
        return f"given weights: {step['weights']}"
    lr, batch_size = ScheduleConfig(**step["lr_schedule"]), ScheduleConfig(**step["batch_size_schedule"])
    distillation = DistillationConfig(**step.get("distillation", {}))
    texts = training_texts(OptimizerConfig(**step["optimizer"]), lr, batch_size, distillation)
    shown = [texts[name] for name in ("lr_schedule", "batch_size_schedule", "optimizer")]
    return "; ".join([*shown, f"distillation {texts['distillation']}"] if distillation.weight else shown)
