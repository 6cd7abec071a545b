"""Dependency graph: which channels of a network must leave together.

The network is traced (trace), nodes are propagated through its operations (rules, propagate), and the graph's connected
components become groups (grouping). Running the pruned network proves them (prove).
"""

from autoprune.pruning.graph.analysis import Analysis, analyse, no_analysis
from autoprune.pruning.graph.grouping import DependencyGroup, TensorDim
from autoprune.pruning.graph.narrowing import at_widths, narrowed
from autoprune.pruning.graph.prove import half_of_channels, prove_groups
from autoprune.pruning.graph.serialize import from_plain, to_plain

__all__ = [
    "Analysis",
    "DependencyGroup",
    "TensorDim",
    "analyse",
    "at_widths",
    "from_plain",
    "half_of_channels",
    "narrowed",
    "no_analysis",
    "prove_groups",
    "to_plain",
]
