"""What a network and its inputs must be, so that copies of it can be made, changed and run."""

from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from autoprune.errors import PruningError
from autoprune.network.call import Inputs
from autoprune.pruning.replica import named_tensors


def check_given(model: Any, inputs: Inputs) -> None:
    """Refuse what no pass could prove anything of.

    Raises:
        PruningError: If the model is no module, or one whose code or tensors are out of reach, or there is no example.
    """
    if not isinstance(model, nn.Module):
        got = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise PruningError(f"the model must be a torch.nn.Module, got {got}. Pass the network itself.")
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise PruningError("a TorchScript model can't be changed. Pass the module that it was made of.")
    if isinstance(model, torch.fx.GraphModule) and "train" in vars(model):  # torch.export puts one there that raises
        raise PruningError("an exported program can't be changed. Pass the module that it was made of.")
    for name, tensor in named_tensors(model):
        if is_lazy(tensor):
            raise PruningError(f"{name} has no shape yet. Run the lazy model on an example once, then plan it.")
        if tensor.is_meta:
            raise PruningError(f"{name} is on the meta device, which holds no values. Load the weights first.")
        if tensor.is_inference():
            raise PruningError(f"{name} was made in inference mode. Build the model outside of it.")
    for leaf in tree_leaves(inputs):
        if isinstance(leaf, torch.Tensor) and leaf.dim() and not len(leaf):
            raise PruningError(f"example inputs must hold at least one example, got shape {tuple(leaf.shape)}.")
