"""Copies of a network that share tensors with it, so that no weight is copied to be thrown away."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from autoprune.network.copies import copy_network
from autoprune.pruning.blocks.removed import RemovedBlock
from autoprune.pruning.plan import Block


def named_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every parameter and buffer under every name it goes by, in module order."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def weight_sharing_copy(
    model: nn.Module, tensors: Mapping[str, torch.Tensor], removed_blocks: Collection[Block] = ()
) -> nn.Module:
    """Copy a network that takes over given tensors in place of copies of its own.

    Tied tensors stay tied; dtypes are those given, ``requires_grad`` and modes the network's.

    Args:
        tensors: Name of a parameter or buffer -> its values, which the copy takes over as they are. Tensors that are
            not named are copied.
        removed_blocks: Blocks that the copy lacks.

    Raises:
        PruningError: If a module keeps what can't be copied.
    """
    memo: dict[int, object] = {}
    for block in removed_blocks:
        module = model.get_submodule(block.name)
        memo[id(module)] = copy_network(RemovedBlock(module, block.gives))
    for name, own in named_tensors(model):
        if name in tensors and id(own) not in memo:
            kind: Any = type(own)
            given = tensors[name].detach()
            memo[id(own)] = kind(given, own.requires_grad) if isinstance(own, nn.Parameter) else given
    return copy_network(model, memo)


def shareable_tensors(model: nn.Module, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """Return a network's tensors for a copy that only computes with them: its weights themselves, copies of the rest.

    Args:
        dtype: What float tensors are cast to; ``None`` leaves them.

    Returns:
        Name -> tensor, for all of them.
    """
    renormed = {id(module.weight) for module in model.modules() if getattr(module, "max_norm", None) is not None}
    found = {}
    for name, own in named_tensors(model):
        cast = own.detach().to(dtype) if dtype is not None and own.is_floating_point() else own.detach()
        # A forward pass writes into buffers, and into embeddings that have a largest norm.
        written = not isinstance(own, nn.Parameter) or id(own) in renormed
        same = own.layout != torch.strided or cast.data_ptr() == own.data_ptr()
        found[name] = cast.clone() if written and same else cast
    return found
