"""Copy a network, with whatever its modules keep beside their parameters and buffers."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from autoprune.errors import PruningError, describe_error
from autoprune.network.names import attribute_of


def copy_network(model: nn.Module, memo: Mapping[int, object] | None = None) -> nn.Module:
    """Copy a network as ``copy.deepcopy`` does, and activations that it keeps as well.

    A tensor with a history, such as an activation in an attribute or a weight that a hook computes in each forward
    pass, becomes a plain tensor of the same values: ``copy.deepcopy`` refuses it.

    Args:
        memo: Id of an object in the network -> what the copy has in its place.

    Raises:
        PruningError: If a module keeps what can't be copied, such as a lock or an open file; it names the attribute.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> layer.seen = layer(torch.ones(1, 2))
        >>> copy_network(layer).seen.requires_grad
        False
    """
    known = dict(memo or {})
    try:
        with _DetachedCopies():
            return copy.deepcopy(model, known)
    except Exception as error:
        raise PruningError(f"the model can't be copied: {_culprit(model, memo or {}, error)}") from error


class _DetachedCopies(TorchFunctionMode):
    """Copies tensors with a history without it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


def _culprit(model: nn.Module, memo: Mapping[int, object], error: Exception) -> str:
    """Say which attribute of which module can't be copied, and the way out."""
    parts = [*model.modules(), *model.parameters(), *model.buffers()]
    known = {id(part): part for part in parts} | dict(memo)
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            try:
                with _DetachedCopies():
                    copy.deepcopy(value, dict(known))
            except Exception as cause:
                return (
                    f"{attribute_of(name, module, attribute)} holds a {type(value).__name__} that copy.deepcopy "
                    f"refuses ({type(cause).__name__}: {cause}). Make it in forward, or define __deepcopy__."
                )
    return f"{describe_error(error)}."
