"""The multi-layer perceptron of every tutorial."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(in_features: int = 64, hidden: Sequence[int] = (64, 32), num_classes: int = 10) -> nn.Sequential:
    """Linear layers with ReLU between them; flattens its input. Modules are ``linear1``, ``linear2``, ..., ``head``.

    Args:
        in_features: Numbers in one example.
        hidden: Neurons of every hidden layer.
    """
    model = nn.Sequential()
    model.add_module("flatten", nn.Flatten())
    for number, (n_in, n_out) in enumerate(pairwise((in_features, *hidden)), start=1):
        model.add_module(f"linear{number}", nn.Linear(n_in, n_out))
        model.add_module(f"relu{number}", nn.ReLU())
    model.add_module("head", nn.Linear((in_features, *hidden)[-1], num_classes))
    return model
