"""Lineages and rungs as tables: what is told, in 80 columns."""

import io
from typing import Any

import pandas as pd
from rich.console import Console, RenderableType

from autoprune.config.metric import MetricSpec
from autoprune.report.lineage import N_STEPS, lineages_table, steps_table, widths_table
from autoprune.report.rungs import rungs_table
from autoprune.study.rungs import Rung


def rendered(table: RenderableType) -> list[str]:
    file = io.StringIO()
    Console(width=80, file=file).print(table)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def step(trial: int | None, flops: int, **more: Any) -> dict[str, Any]:
    return {
        "trial": trial,
        "metric": 0.9,
        "cost": {"flops": flops},
        "epochs": 2,
        "optimizer": {"name": "sgd", "params": {"momentum": 0.9, "weight_decay": 0.0005}},
        "lr_schedule": {"kind": "cosine", "params": {"lr": 0.123456, "warmup": 0.0}},
        "batch_size_schedule": {"kind": "step", "params": {"start": 32, "factor": 2.0, "every": 1}},
        "kept": {"a": 8, "b": 0},
    } | more


def test_steps() -> None:
    steps = [step(None, 80_000), step(3, 40_000), step(17, 20_000, cost=None, epochs=1)]
    assert rendered(steps_table(steps, ["accuracy", "flops"], MetricSpec())) == [
        "trial  accuracy      FLOPs  epochs  lr; batch size; optimizer",
        "dense    0.9000  80k 1.00x       2  cosine lr=0.123; step start=32 factor=2",
        "                                    every=1; sgd weight_decay=0.0005",
        "    3    0.9000  40k 0.50x       2  cosine lr=0.123; step start=32 factor=2",
        "                                    every=1; sgd weight_decay=0.0005",
        "   17    0.9000          -       1  cosine lr=0.123; step start=32 factor=2",
        "                                    every=1; sgd weight_decay=0.0005",
    ]
    distilled = step(5, 40_000, distillation={"weight": 0.7, "temperature": 4.0})
    assert " ".join(rendered(steps_table([steps[0], distilled], ["flops"], MetricSpec()))[-1].split()).endswith(
        "distillation weight=0.7 temperature=4"
    )
    given = {"trial": None, "metric": 0.9, "cost": {"flops": 80_000}, "weights": "resnet.pt"}
    assert rendered(steps_table([given], ["flops", "accuracy"], MetricSpec()))[1].split() == [
        *("dense", "0.9000", "80k", "1.00x", "-", "given", "weights:", "resnet.pt")
    ]


def test_widths_of_the_last_steps() -> None:
    steps = [step(None, 9), *(step(number, 9) for number in range(100, 112))]
    title, heading, *rows = rendered(widths_table(steps, {"a": 16, "b": 16, "stage1.0.a_long_name.conv1": 512}))
    assert title == "channels kept"
    assert heading.split() == ["group", "dense", *map(str, range(112 - N_STEPS, 112))]
    assert rows[0].split() == ["a", "16", *["8"] * N_STEPS]
    assert rows[1].split() == ["b", "16", *["0"] * N_STEPS]
    assert rows[2].split()[1:] == ["512", *["-"] * N_STEPS]
    assert max(map(len, [heading, *rows])) <= 80


def test_lineages_of_a_front() -> None:
    front = pd.DataFrame(
        {"number": [3, 12], "metric.accuracy": [0.8, 0.9], "epochs_lineage": [2, 24], "lineage": ["3", "3 > 7 > 12"]}
    )
    assert rendered(lineages_table(front, MetricSpec()))[1:] == [
        "trial  epochs  trained one from the other",
        "   12      24  3 > 7 > 12",
        "    3       2  3",
    ]
    long = front.assign(lineage=" > ".join(map(str, range(100, 130))))
    lines = rendered(lineages_table(long, MetricSpec()))
    assert max(map(len, lines)) <= 80
    assert " ".join(" ".join(lines).split()).count("129") == 2


def test_rungs() -> None:
    rungs = [Rung(0.25, 12, 10, 0.8123), Rung(0.5, 3, 2, None)]
    for stop_early, told in ((True, "stop_early is on"), (False, "stop_early is off")):
        lines = rendered(rungs_table(rungs, "accuracy", stop_early=stop_early))
        assert lines[1].split() == ["after", "trials", "finished", "correlation"]
        assert lines[2].split() == ["25%", "of", "its", "epochs", "12", "10", "0.81"]
        assert lines[3].split() == ["50%", "of", "its", "epochs", "3", "2", "-"]
        assert told in " ".join(lines[4:])
