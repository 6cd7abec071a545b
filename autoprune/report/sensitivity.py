"""The sensitivity map as a table for the terminal."""

from collections.abc import Sequence

from rich.table import Table

from autoprune.pruning.plan import PruningPlan
from autoprune.pruning.sensitivity.map import SensitivityMap
from autoprune.report.tables import plain_table


def sensitivity_table(
    plan: PruningPlan, found: SensitivityMap, kept_shares: Sequence[float], round_to: int, criterion: str
) -> Table:
    """The accuracies as they were measured: a row a group, most sensitive first, and a column a share of channels kept.

    Args:
        kept_shares: Those that were measured.
        round_to: What the widths were rounded to.
        criterion: What decided which channels went.
    """
    measured = {(point.group, point.width): point.accuracy for point in found.points}
    groups = {group.name: group for group in plan.groups}
    shares = [f">{share:.0%}" for share in kept_shares]
    table = plain_table("sensitivity: accuracy by share of channels kept", "group", ">width", *shares)
    table.caption = (
        f"dense: {found.dense_accuracy:.4f}. One group alone loses the channels that {criterion} ranks lowest; "
        "batch norm is recalibrated, nothing retrained; judged on training examples. Most sensitive group first."
    )
    for name in found.ranking():
        widths = [groups[name].width_at(share, round_to) for share in kept_shares]
        accuracies = [measured.get((name, width)) for width in widths]
        cells = ["-" if accuracy is None else f"{accuracy:.4f}" for accuracy in accuracies]
        table.add_row(name, str(groups[name].width), *cells)
    return table
