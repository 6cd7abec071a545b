"""The masked network that a pruned one must equal, made element by element: an oracle of its own."""

from collections.abc import Mapping

import torch
from torch import nn

from autoprune.pruning.copies import named_tensors, weight_sharing_copy


def masked(model: nn.Module, kept_indices: Mapping[str, torch.Tensor]) -> nn.Module:
    """Copy a network with zeros where an element is not kept, its shape unchanged.

    Args:
        kept_indices: Name -> flat indices of the kept elements; a tensor without an entry becomes zero as a whole.
    """
    tensors = {}
    for name, tensor in named_tensors(model):
        mask = torch.zeros(tensor.numel(), dtype=torch.bool)
        if name in kept_indices:
            mask[kept_indices[name].flatten()] = True
        tensors[name] = torch.where(mask.view(tensor.shape), tensor.detach(), torch.zeros_like(tensor))
    return weight_sharing_copy(model, tensors)
