"""Methods that choose channels by how well others can stand for them, and fit the layers behind to make them do so."""

from benchmarks.search_quality.lab import Lab
from benchmarks.search_quality.methods._base import Method
from benchmarks.search_quality.methods.ablations import TREE
from benchmarks.search_quality.methods.distilled import WEIGHT, distillation
from benchmarks.search_quality.methods.global_ranking import tp_global_iterative
from benchmarks.search_quality.methods.ladders import ladder_inherit_long

BOTH = {"criterion": "obs", "reconstruct": True}

RECONSTRUCTED = {
    "tree_obs": Method(Lab.search, TREE, BOTH, chooses_epochs=True),
    "tree_obs_distilled": Method(Lab.search, TREE | distillation([WEIGHT, 0]), BOTH, chooses_epochs=True),
    "tree_reconstructed": Method(Lab.search, TREE, {"reconstruct": True}, chooses_epochs=True),
    "ladder_obs": Method(ladder_inherit_long, neuron=BOTH),
    "ladder_obs_distilled": Method(ladder_inherit_long, distillation(WEIGHT), BOTH),
    "tp_obs": Method(tp_global_iterative, neuron=BOTH),
}
