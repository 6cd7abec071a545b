"""How atoms flow through ATen operations: one rule an operation, one file a family."""

from autoprune.pruning.atoms.rules import (
    contraction,
    convolution,
    creation,
    normalisation,
    pointwise,
    reduction,
    selection,
    shape,
)
from autoprune.pruning.atoms.rules._base import RULES, Call

__all__ = ["RULES", "Call", "contraction", "convolution", "creation", "normalisation", "pointwise", "reduction"]
__all__ += ["selection", "shape"]
