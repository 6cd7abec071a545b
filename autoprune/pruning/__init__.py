"""Pruning: what of a network can go (plan), how much each part matters (importance), and taking it out (prune, masks).

Names load on first use, so that the plan's and the criteria's names can be had without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoprune.pruning.apply import Pruned, looks_at_data, prune
    from autoprune.pruning.blocks import find_blocks
    from autoprune.pruning.criteria import CRITERIA, needs_data
    from autoprune.pruning.gradual import cubic_ratio, gradual_weight_ratios, gradual_widths
    from autoprune.pruning.neuron import current_widths
    from autoprune.pruning.plan import Block, Group, LeftOut, PruningPlan
    from autoprune.pruning.preflight import make_plan, rank_blocks, rank_blocks_by_angle
    from autoprune.pruning.provenance import masked
    from autoprune.pruning.ranking import global_scores, global_widths, kept_scores
    from autoprune.pruning.weight import WeightMasks

__all__ = [
    "CRITERIA",
    "Block",
    "Group",
    "LeftOut",
    "Pruned",
    "PruningPlan",
    "WeightMasks",
    "cubic_ratio",
    "current_widths",
    "find_blocks",
    "global_scores",
    "global_widths",
    "gradual_weight_ratios",
    "gradual_widths",
    "kept_scores",
    "looks_at_data",
    "make_plan",
    "masked",
    "needs_data",
    "prune",
    "rank_blocks",
    "rank_blocks_by_angle",
]

_HOMES = {
    "apply": ("Pruned", "looks_at_data", "prune"),
    "blocks": ("find_blocks",),
    "criteria": ("CRITERIA", "needs_data"),
    "gradual": ("cubic_ratio", "gradual_weight_ratios", "gradual_widths"),
    "neuron": ("current_widths",),
    "plan": ("Block", "Group", "LeftOut", "PruningPlan"),
    "preflight": ("make_plan", "rank_blocks", "rank_blocks_by_angle"),
    "provenance": ("masked",),
    "ranking": ("global_scores", "global_widths", "kept_scores"),
    "weight": ("WeightMasks",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
