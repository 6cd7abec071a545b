"""The importance criteria of neuron pruning by name; `autoprune.pruning.channels.importance` implements them."""

from collections.abc import Mapping
from typing import Literal

Needs = Literal["nothing", "inputs", "loss"]
"""What a criterion looks at besides the network: nothing, calibration inputs, or the loss on calibration batches."""

NEEDS: Mapping[str, Needs] = {
    "l1": "nothing",
    "l2": "nothing",
    "bn_scale": "nothing",
    "taylor": "loss",
    "fisher": "loss",
    "fpgm": "nothing",
    "lamp": "nothing",
    "activation": "inputs",
    "apoz": "inputs",
    "obs": "inputs",
    "random": "nothing",
}

CRITERIA = tuple(NEEDS)
