"""Atoms: which channels of a network must leave together, found by following every index through every operation."""

from autoprune.pruning.atoms.analysis import Analysis, ChannelGroup, analyse, no_analysis
from autoprune.pruning.atoms.blocked import Blocked
from autoprune.pruning.atoms.components import Place
from autoprune.pruning.atoms.cut import cut
from autoprune.pruning.atoms.narrowing import at_widths, narrowed
from autoprune.pruning.atoms.plain import from_plain, to_plain
from autoprune.pruning.atoms.prove import about_half, settle

__all__ = [
    "Analysis",
    "Blocked",
    "ChannelGroup",
    "Place",
    "about_half",
    "analyse",
    "at_widths",
    "cut",
    "from_plain",
    "narrowed",
    "no_analysis",
    "settle",
    "to_plain",
]
