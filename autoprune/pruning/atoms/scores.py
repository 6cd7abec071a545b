"""From a value for each entry of a network's tensors to one for each channel of a group."""

from collections.abc import Collection, Mapping

import torch

from autoprune.pruning.atoms.analysis import ChannelGroup
from autoprune.pruning.atoms.components import Place


def channel_sums(
    group: ChannelGroup, values: Mapping[str, torch.Tensor], places: Collection[Place] | None = None
) -> torch.Tensor:
    """Sum a value over all entries that leave with a channel.

    An entry that belongs to a channel along two of its dimensions (a layer used twice) counts along each.

    Args:
        values: Tensor name -> a value for each entry, in the tensor's shape: its magnitude, its product with its
            gradient, ...; a tensor not named counts nothing.
        places: The dimensions to sum along; by default all of the group's. ``group.members.keys() - group.consumers``
            are those that make or scale the channels.

    Returns:
        Shape ``(width,)``, ``float64``, on the CPU.
    """
    sums = torch.zeros(group.width, dtype=torch.float64)
    for (name, dim), indices in group.members.items():
        if name in values and (places is None or (name, dim) in places):
            entries = values[name].detach().double().movedim(dim, 0)
            by_index = entries.reshape(len(entries), -1).sum(1).cpu()
            sums += by_index[torch.from_numpy(indices)].sum(1)
    return sums
