"""How ATen operations propagate nodes: one rule an operation, one file a family."""

from autoprune.pruning.graph.rules import (
    contraction,
    convolution,
    creation,
    normalisation,
    pointwise,
    reduction,
    selection,
    shape,
)
from autoprune.pruning.graph.rules._base import RULES, Call

__all__ = ["RULES", "Call", "contraction", "convolution", "creation", "normalisation", "pointwise", "reduction"]
__all__ += ["selection", "shape"]
