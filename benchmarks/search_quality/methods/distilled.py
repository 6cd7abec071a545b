"""Methods whose training is drawn to the dense network's outputs; such an epoch takes a forward pass of dense more."""

from typing import Any

from benchmarks.search_quality.lab import Lab
from benchmarks.search_quality.methods._base import Method
from benchmarks.search_quality.methods.ablations import TREE
from benchmarks.search_quality.methods.global_ranking import tp_global_iterative
from benchmarks.search_quality.methods.ladders import ladder_inherit_long

WEIGHT = 0.7
"""Share of the loss: a usual choice, not tuned."""


def distillation(weight: Any) -> dict[str, Any]:
    """What turns it on in a space file."""
    return {"training": {"distillation": {"weight": weight}}}


DISTILLED = {
    "tree_distilled": Method(Lab.search, TREE | distillation([WEIGHT, 0]), chooses_epochs=True),
    "ladder_distilled": Method(ladder_inherit_long, distillation(WEIGHT)),
    "tp_distilled": Method(tp_global_iterative, distillation(WEIGHT)),
}
