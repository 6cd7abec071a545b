"""Atoms: which channels of a network must leave together, found by following every index through every operation."""

from autoprune.pruning.graph.analysis import Analysis, ChannelGroup, analyse, no_analysis
from autoprune.pruning.graph.grouping import Place
from autoprune.pruning.graph.narrowing import at_widths, narrowed
from autoprune.pruning.graph.prove import about_half, settle
from autoprune.pruning.graph.serialize import from_plain, to_plain
from autoprune.pruning.graph.slice import cut
from autoprune.pruning.graph.unprunable import Blocked

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
