"""The sensitivity map as a table for the terminal."""

from collections.abc import Sequence

from rich.table import Table

from autoprune.config.metric import MetricSpec
from autoprune.pruning.plan import PruningPlan
from autoprune.pruning.sensitivity.map import SensitivityMap
from autoprune.report.tables import plain_table


def sensitivity_table(
    plan: PruningPlan,
    found: SensitivityMap,
    metric: MetricSpec,
    kept_shares: Sequence[float],
    round_to: int,
    criterion: str,
) -> Table:
    """The metric as it was measured: a row a group, most sensitive first, and a column a share of channels kept.

    Args:
        metric: What the map's scores are of.
        kept_shares: Those that were measured.
        round_to: What the widths were rounded to.
        criterion: What decided which channels went.
    """
    measured = {(point.group, point.width): metric.value(point.score) for point in found.points}
    groups = {group.name: group for group in plan.groups}
    shares = [f">{share:.0%}" for share in kept_shares]
    table = plain_table(f"sensitivity: {metric.name} by share of channels kept", "group", ">width", *shares)
    table.caption = (
        f"dense: {metric.text(metric.value(found.dense_score))}. "
        f"One group alone loses the channels that {criterion} ranks lowest; "
        "batch norm is recalibrated, nothing retrained; judged on training examples. Most sensitive group first."
    )
    for name in found.ranking():
        widths = [groups[name].width_at(share, round_to) for share in kept_shares]
        cells = [metric.text(measured.get((name, width))) for width in widths]
        table.add_row(name, str(groups[name].width), *cells)
    return table
