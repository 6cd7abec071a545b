"""The pruning plan of a network as tables for the terminal."""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from autoprune.cost.table import CostTable
from autoprune.pruning.plan import PruningPlan
from autoprune.report.tables import LABELS, quantity
from autoprune.space import Dimension
from autoprune.spec import Range

_IMPORTANCE = {
    "loss": ">rise of the loss without it",
    "angular": ">angle by which it turns its input, / pi",
    "": ">(untrained: not ranked)",
}


def plan_tables(
    plan: PruningPlan, table: CostTable, dense: Mapping[str, float], dimensions: Sequence[Dimension], *, importance: str
) -> Iterator[RenderableType]:
    """The dense cost, the groups, the blocks, what is left out, and the search dimensions.

    Args:
        table: For the share of the cost that each group governs.
        dense: The dense network's costs, by name.
        importance: What the importance of the blocks is, ``"loss"`` or ``"angular"``; empty if the network is
            untrained, so that none means anything.
    """
    shown = ("params", "size_bytes", "macs", "flops", "latency_ms")
    costs = ", ".join(f"{LABELS[name]} {quantity(name, dense[name])}" for name in shown if name in dense)
    yield Text(f"dense network: {costs}")
    yield _groups(plan, table) if plan.groups else Text("groups: none can be pruned")
    if plan.blocks:
        yield _blocks(plan, table, importance)
    if plan.left_out:
        left_out = _table("left out", "module", "reason")
        for item in plan.left_out:
            left_out.add_row(item.module or "(the network)", item.reason)
        yield left_out
    space = _table(f"search dimensions: {len(dimensions)}", "name", "values")
    for dimension in dimensions:
        space.add_row(dimension.name, _domain(dimension))
    yield space


def _groups(plan: PruningPlan, table: CostTable) -> Table:
    groups = _table(f"groups: {len(plan.groups)}", "group", ">width", ">params", ">FLOPs", "layers")
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
    blocks = _table(f"blocks that can be removed: {len(plan.blocks)}", "block", ">params", ">FLOPs", heading)
    for block in plan.blocks:
        params, macs = table.block_shares(block.name)
        blocks.add_row(
            block.name,
            f"{params:.1%}",
            f"{macs:.1%}",
            f"{block.importance:.4f}" if importance else "",
        )
    return blocks


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title, title_justify="left", caption_justify="left", box=None, pad_edge=False, header_style="bold"
    )
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    return table


def _domain(dimension: Dimension) -> str:
    if not isinstance(dimension.domain, Range):
        return ", ".join(str(choice) for choice in dimension.domain)
    notes = ["log"] if dimension.domain.log else []
    notes += [f"step {dimension.domain.step:g}"] if dimension.domain.step else []
    suffix = f" ({', '.join(notes)})" if notes else ""
    return f"{dimension.domain.low:g} to {dimension.domain.high:g}{suffix}"
