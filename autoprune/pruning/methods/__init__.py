"""The pruning methods: the search space, the worker and the checks loop over this registry."""

from autoprune.pruning.methods._base import MethodInTrial, MethodSpace, PruningMethod
from autoprune.pruning.methods.layer import LayerPruning
from autoprune.pruning.methods.neuron import NeuronPruning
from autoprune.pruning.methods.weight import WeightPruning

PRUNING_METHODS: dict[str, PruningMethod] = {
    method.name: method for method in (NeuronPruning(), LayerPruning(), WeightPruning())
}
"""Name -> method, in the order in which a sampler is asked for their values."""

__all__ = ["PRUNING_METHODS", "MethodInTrial", "MethodSpace", "PruningMethod"]
