"""Where every element of a pruned network comes from, found without knowing the layers' types.

Before layers are cut, each parameter and buffer is filled with its own flat indices; what the cut leaves of them
tells which elements survived. Provenance is a mapping from parameter or buffer name to a tensor of the pruned shape
that holds flat indices into the tensor of the network before the cut.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

from autoprune.errors import PruningError

Provenance = dict[str, torch.Tensor]


def named_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter and buffer under every name it goes by, in module order."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def cut(model: nn.Module, cut_layers: Callable[[], None]) -> Provenance:
    """Cut a network's layers in place and say where each surviving element comes from.

    Values, dtypes, devices, ``requires_grad`` and the sharing of tied tensors are as before, but for what was cut away.

    Args:
        cut_layers: Slices the network's own parameters and buffers along their dimensions, without looking at their
            values.

    Returns:
        Name -> flat indices into the uncut tensor, ``int64`` on the CPU, in the cut tensor's shape.

    Raises:
        PruningError: If tensors that are one and the same before would differ after.
    """
    before = dict(named_tensors(model))
    kept_values = {name: tensor.detach() for name, tensor in before.items()}
    requires_grad = {name: tensor.requires_grad for name, tensor in before.items()}
    names_of: dict[int, list[str]] = defaultdict(list)
    for name, tensor in before.items():
        names_of[id(tensor)].append(name)
    for tensor in {id(tensor): tensor for tensor in before.values()}.values():
        tensor.grad = None
        tensor.data = torch.arange(tensor.numel(), dtype=torch.float64, device=tensor.device).view(tensor.shape)
    cut_layers()
    provenance = {name: tensor.detach().round().long().cpu() for name, tensor in named_tensors(model)}
    for names in names_of.values():
        first = names[0]
        for other in names[1:]:
            if not torch.equal(provenance[first], provenance[other]):
                raise PruningError(f"{first} and {other} are one tensor and would lose different entries")
        values = kept_values[first].flatten()[provenance[first].to(kept_values[first].device)]
        is_parameter = isinstance(before[first], nn.Parameter)
        tensor = nn.Parameter(values, requires_grad=requires_grad[first]) if is_parameter else values
        for name in names:
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, tensor)
    return provenance


def masked(model: nn.Module, provenance: Mapping[str, torch.Tensor]) -> nn.Module:
    """Copy a network with the elements that pruning took set to zero, its shape unchanged.

    Args:
        model: The network that was pruned, before it was.
        provenance: Name -> flat indices of the surviving elements. A tensor without an entry (it stood in a removed
            block) becomes zero as a whole.

    Returns:
        A copy that must give the pruned network's output.
    """
    clone = copy.deepcopy(model)
    with torch.no_grad():
        for name, tensor in named_tensors(clone):
            lost = torch.ones(tensor.numel(), dtype=torch.bool, device=tensor.device)
            if name in provenance:
                lost[provenance[name].flatten().to(tensor.device)] = False
            if lost.any():
                tensor.masked_fill_(lost.view(tensor.shape), 0)
    return clone


def untouched(model: nn.Module) -> Provenance:
    """The provenance of a network that lost nothing: every element comes from its own place."""
    return {name: torch.arange(tensor.numel()).view(tensor.shape) for name, tensor in named_tensors(model)}
