"""The pruning plan of a network as tables for the terminal and as plain values."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from autoprune.config import Range
from autoprune.config.dimension import Dimension
from autoprune.cost.table import CostTable
from autoprune.pruning.plan import PruningPlan
from autoprune.pruning.sensitivity.map import SensitivityMap
from autoprune.report.tables import LABELS, plain_table, quantity
from autoprune.trial import Cost

_IMPORTANCE = {
    "loss": ">rise of the loss without it",
    "angular": ">angle by which it turns its input, / pi",
    "": ">(untrained: not ranked)",
}


def plan_tables(
    plan: PruningPlan, table: CostTable, dense: Cost, dimensions: Sequence[Dimension], *, importance: str
) -> Iterator[RenderableType]:
    """The dense cost, the groups, the blocks, what is left out, and the search dimensions.

    Args:
        table: For the share of the cost that each group governs.
        dense: The dense network's costs.
        importance: What the importance of the blocks is, ``"loss"`` or ``"angular"``; empty if the network is
            untrained, so that none means anything.
    """
    shown = ("params", "size_bytes", "macs", "flops", "latency_ms")
    figures = dense.figures()
    costs = ", ".join(f"{LABELS[name]} {quantity(name, figures[name])}" for name in shown if name in figures)
    yield Text(f"dense network: {costs}")
    if table.uncounted:
        uncounted = plain_table("not in MACs and FLOPs", "operation", "module")
        uncounted.caption = "Their share of the network's work is not known."
        for operation, module in table.uncounted:
            uncounted.add_row(operation, module or "(the network)")
        yield uncounted
    yield _groups(plan, table) if plan.groups else Text("groups: none can be pruned")
    if plan.blocks:
        yield _blocks(plan, table, importance)
    if plan.left_out:
        left_out = plain_table("left out", "module", "reason")
        for item in plan.left_out:
            way_out = f"; {item.option}: true lets them leave" if item.option else ""
            left_out.add_row(item.module or "(the network)", item.reason + way_out)
        left_out.caption = next((item.advice for item in plan.left_out if item.advice), None)
        yield left_out
    space = plain_table(f"search dimensions: {len(dimensions)}", "name", "values")
    for dimension in dimensions:
        space.add_row(dimension.name, _domain(dimension))
    yield space


def plan_record(
    plan: PruningPlan,
    table: CostTable,
    dense: Cost,
    dimensions: Sequence[Dimension],
    sensitivity: SensitivityMap | None,
    *,
    ranked: bool,
) -> dict[str, Any]:
    """The plan as plain JSON values.

    - ``dense``: cost name -> value, the unit at the end of the name.
    - ``uncounted``: ``operation`` and ``module`` of what does much work and is in no count of MACs and FLOPs.
    - ``groups``, in module order: ``name``, ``width``, ``layers``, ``multiple`` (of which the width must be one),
      ``params_share`` and ``macs_share`` (of the dense network's that would go with all of the group's channels).
    - ``blocks``, least important first: ``name``, ``importance`` (rise of the loss without the block; null if not
      measured), ``params_share``, ``macs_share``.
    - ``weight_layers``: name of a weight that may lose single entries -> number of entries.
    - ``left_out``: ``module`` (empty for the network as a whole), ``reason``, ``option`` (with which it can be pruned;
      empty if there is none).
    - ``dimensions``: name -> list of choices, or the range's ``low``, ``high``, ``log``, ``step``.
    - ``sensitivity``, if measured: as :class:`SensitivityMap` has it.

    The graph, which says which entry of which tensor leaves with each channel, is large and is not among them.

    Args:
        table, dense: As :func:`plan_tables` takes them.
        ranked: Whether the importance of blocks was measured.
    """
    record: dict[str, Any] = {
        "dense": dense.figures(),
        "uncounted": [{"operation": operation, "module": module} for operation, module in table.uncounted],
        "groups": [asdict(group) | _shares(*table.shares(group.name)) for group in plan.groups],
        "blocks": [
            {"name": block.name, "importance": block.importance if ranked else None}
            | _shares(*table.block_shares(block.name))
            for block in plan.blocks
        ],
        "weight_layers": dict(plan.weight_layers),
        "left_out": [asdict(item) for item in plan.left_out],
        "dimensions": {d.name: d.domain if isinstance(d.domain, list) else d.domain.model_dump() for d in dimensions},
    }
    return record if sensitivity is None else record | {"sensitivity": sensitivity.to_dict()}


def _shares(params: float, macs: float) -> dict[str, float]:
    return {"params_share": params, "macs_share": macs}


def _groups(plan: PruningPlan, table: CostTable) -> Table:
    groups = plain_table(f"groups: {len(plan.groups)}", "group", ">width", ">params", ">FLOPs", "layers")
    groups.caption = (
        "params, FLOPs: share of the model that would go with all of the group's channels. "
        "Groups overlap, so they don't add up to 100%."
    )
    if not all(group.exact for group in plan.groups):
        groups.caption += " *: norms take statistics over these channels, so the network is not the masked one."
    for group in plan.groups:
        params, macs = table.shares(group.name)
        groups.add_row(
            group.name,
            f"{group.width}{'' if group.exact else '*'}",
            f"{params:.1%}",
            f"{macs:.1%}",
            ", ".join(group.layers),
        )
    return groups


def _blocks(plan: PruningPlan, table: CostTable, importance: str) -> Table:
    heading = _IMPORTANCE[importance]
    blocks = plain_table(f"blocks that can be removed: {len(plan.blocks)}", "block", ">params", ">FLOPs", heading)
    for block in plan.blocks:
        params, macs = table.block_shares(block.name)
        blocks.add_row(
            block.name,
            f"{params:.1%}",
            f"{macs:.1%}",
            f"{block.importance:.4f}" if importance else "",
        )
    return blocks


def _domain(dimension: Dimension) -> str:
    if not isinstance(dimension.domain, Range):
        return ", ".join(str(choice) for choice in dimension.domain)
    notes = ["log"] if dimension.domain.log else []
    notes += [f"step {dimension.domain.step:g}"] if dimension.domain.step else []
    suffix = f" ({', '.join(notes)})" if notes else ""
    return f"{dimension.domain.low:g} to {dimension.domain.high:g}{suffix}"
