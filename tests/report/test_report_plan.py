"""A pruning plan as tables, of a network whose costs are worked out by hand."""

import io
from dataclasses import replace

import torch
from rich.console import Console
from torch import nn

from autoprune.config import Range
from autoprune.config.dimension import Dimension
from autoprune.cost import CostTable, build_table
from autoprune.pruning.plan import Block, PruningPlan, Unprunable
from autoprune.pruning.planner import make_plan
from autoprune.report.plan import plan_tables
from autoprune.trial import Cost

DENSE = Cost(params=414, nonzero_params=414, size_bytes=2346, macs=20_816, latency_ms=0.5)
DIMENSIONS = [
    Dimension("lr_schedule", ["constant", "cosine"]),
    Dimension("lr_schedule.constant.lr", Range(low=1e-3, high=0.3, log=True)),
    Dimension("epochs", Range(low=2, high=8, step=2), integer=True),
    Dimension("neuron.ratio.stage1.0.a_name_as_long_as_a_network_may_have.conv1", Range(low=0, high=0.9)),
]


def network() -> nn.Module:
    """414 parameters (36 + 288 + 90); on 8x8 images 2304 + 18432 + 80 = 20816 multiply-accumulates."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


def rendered(plan: PruningPlan, table: CostTable, *, importance: str = "loss") -> list[str]:
    file = io.StringIO()
    console = Console(width=80, file=file)
    for part in plan_tables(plan, table, DENSE, DIMENSIONS, importance=importance):
        console.print(part)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def planned() -> tuple[PruningPlan, CostTable]:
    torch.manual_seed(0)
    model, example = network(), torch.randn(2, 1, 8, 8)
    plan = make_plan(model, example)
    return plan, build_table(model, example, widths=plan.group_widths, shrink=plan.shrink, blocks=plan.block_names)


def test_plan_of_a_small_network() -> None:
    lines = rendered(*planned())
    assert lines[0] == "dense network: params 414, size 2.35kB, MACs 20.8k, FLOPs 41.6k, latency 0.5ms"
    rows = [line.split() for line in lines]
    assert ["groups:", "2"] in rows
    # Without a group's channels: 36 + 288 of 414 parameters go, or 288 + 80; and all MACs but 80, or but 2304.
    assert ["0", "4", "78.3%", "99.6%", "0,", "2"] in rows
    assert ["2", "8", "88.9%", "88.9%", "2,", "6"] in rows
    text = " ".join(" ".join(lines).split())
    assert "share of the model that would go with all of the group's channels. Groups overlap, so they don't" in text
    assert any(row[:1] == ["6"] and "output" in " ".join(row) for row in rows)


def test_dimensions() -> None:
    lines = rendered(*planned())
    start = lines.index("search dimensions: 4")
    text = " ".join(" ".join(lines[start:]).split())
    for shown in ("constant, cosine", "0.001 to 0.3 (log)", "2 to 8 (step 2)", "0 to 0.9"):
        assert shown in text


def test_no_line_is_longer_than_80_columns_and_nothing_is_cut_off() -> None:
    plan, table = planned()
    plan = PruningPlan(plan.groups, (), plan.weight_layers, (Unprunable("head", "a reason " * 30),), plan.graph)
    lines = rendered(plan, table)
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    assert " ".join(lines).count("reason ") >= 29


def test_nothing_to_prune() -> None:
    plan = PruningPlan(groups=(), blocks=(), weight_layers={}, left_out=(Unprunable("", "it has no layers"),), graph={})
    lines = rendered(plan, planned()[1])
    assert "groups: none can be pruned" in lines
    assert any("(the network)" in line and "it has no layers" in line for line in lines)


def test_what_no_count_knows_is_named() -> None:
    plan, table = planned()
    lines = rendered(plan, replace(table, uncounted=(("_fft_r2c", "mixer.spectrum"), ("linalg_svd", ""))))
    rows = [line.split() for line in lines]
    assert ["_fft_r2c", "mixer.spectrum"] in rows
    assert ["linalg_svd", "(the", "network)"] in rows
    assert any("not in MACs and FLOPs" in line for line in lines)
    assert not any("not in MACs and FLOPs" in line for line in rendered(plan, table))


def test_an_option_that_helps_is_shown_with_the_reason() -> None:
    left_out = (Unprunable("norm", "has statistics", "hidden_sizes"), Unprunable("head", "is the output"))
    plan = PruningPlan(groups=(), blocks=(), weight_layers={}, left_out=left_out, graph={})
    lines = rendered(plan, planned()[1])
    assert any("norm" in line and "has statistics; hidden_sizes: true lets them leave" in line for line in lines)
    assert not any("head" in line and "hidden_sizes" in line for line in lines)
    assert plan.main_obstacle == left_out[0]


def test_blocks() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.as_tensor(self.conv(x))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), Residual(), nn.Flatten(), nn.Linear(256, 10, bias=False))
    example = torch.randn(2, 1, 8, 8)
    plan = make_plan(model, example)
    plan = PruningPlan(plan.groups, (Block("1", 0.12345),), plan.weight_layers, plan.left_out, plan.graph)
    table = build_table(model, example, widths=plan.group_widths, shrink=plan.shrink, blocks=plan.block_names)
    # The block is 144 of 4 + 144 + 2560 parameters, and 9216 of 256 + 9216 + 2560 MACs.
    assert ["1", "5.3%", "76.6%", "0.1235"] in [line.split() for line in rendered(plan, table)]
    untrained = rendered(plan, table, importance="")
    assert ["1", "5.3%", "76.6%"] in [line.split() for line in untrained]
    assert any("(untrained: not ranked)" in line for line in untrained)
