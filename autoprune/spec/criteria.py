"""The names of the importance criteria of neuron pruning; `autoprune.pruning` implements them."""

CRITERIA = ("l1", "l2", "bn_scale", "taylor", "fpgm", "lamp", "activation", "apoz", "random")
