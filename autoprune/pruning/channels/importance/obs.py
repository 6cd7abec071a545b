"""The criterion that looks at what the layers behind a group would make of the channels that stay."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from autoprune.pruning.channels.importance._base import Scorer, Subject
from autoprune.pruning.channels.layer_inputs import InputMoments
from autoprune.pruning.channels.reconstruction import RIDGE
from autoprune.pruning.graph import DependencyGroup

BLOCK = 128
"""Channels among which the next to leave is sought before all errors are computed anew."""


def obs(subject: Subject) -> Scorer:
    """Score by the error left in the outputs behind the group when channels leave one by one, least harmful first.

    After each the layers behind the group are fitted anew, as by ``reconstruct``. A channel's score is the error once
    it has left, relative to the variance of each layer's outputs.

    The Optimal Brain Surgeon (Hassibi & Stork 1993) layer by layer (Dong et al. 2017, arXiv 1705.07565), for
    whole channels (Kurtic et al. 2023, arXiv 2302.04089).
    """
    readers = {
        name.removesuffix(".weight"): dim
        for group in subject.groups
        for name, dim in sorted(group.consumers)
        if name.endswith(".weight")
    }
    moments = subject.inputs.moments(readers)
    weights = subject.weights()

    def score(group: DependencyGroup) -> torch.Tensor | None:
        behind = []
        for name, dim in sorted(group.consumers):
            found = moments.get(name.removesuffix(".weight"))
            if found is not None:
                reader = _Reader.of(weights[name].movedim(dim, 1), found, torch.from_numpy(group.members[name, dim]))
                behind += [reader] if reader is not None else []
        return _errors(behind, group.width) if behind else None

    return score


@dataclass
class _Reader:
    """A layer behind some channels.

    Attributes:
        weight: Shape ``(n_outputs, n_inputs)``, of outputs whose variance is 1 in all.
        inverse: Of the inputs' covariance, ``(n_inputs, n_inputs)``.
        blocks: Inputs of each channel, ``(n_channels, n)``.
    """

    weight: torch.Tensor
    inverse: torch.Tensor
    blocks: torch.Tensor

    @classmethod
    def of(cls, weight: torch.Tensor, moments: InputMoments, channels: torch.Tensor) -> "_Reader | None":
        """Return the layer with this weight; ``None`` where its outputs never change."""
        rows = moments.by_input(weight).reshape(-1, len(moments.mean))
        covariance = moments.covariance
        scale = covariance.diagonal().mean()
        covariance = covariance + RIDGE * scale * torch.eye(len(covariance), dtype=torch.float64)
        variance = (rows @ covariance * rows).sum()
        if not bool(variance > 0):
            return None
        return cls(rows / variance.sqrt(), torch.linalg.inv(covariance), moments.columns(channels).flatten(1))

    def added_errors(self, channels: torch.Tensor) -> torch.Tensor:
        """Return what the loss of each of these channels, one alone, would add to the error."""
        blocks = self.blocks[channels]
        weights = self.weight[:, blocks].movedim(0, -1)
        solved = torch.linalg.solve(self.inverse[blocks.unsqueeze(2), blocks.unsqueeze(1)], weights)
        added: torch.Tensor = (weights * solved).sum((1, 2))
        return added

    def remove_inputs(self, channels: torch.Tensor) -> None:
        """Take channels out, and fit the others."""
        lost = self.blocks[channels].flatten()
        rows = self.inverse[lost]
        towards = torch.linalg.solve(rows[:, lost], rows)
        self.weight.addmm_(self.weight[:, lost], towards, alpha=-1)
        self.inverse.addmm_(rows.T, towards, alpha=-1)

    def for_channels(self, channels: torch.Tensor) -> "_Reader":
        """Restrict to some channels, the others staying, with no more outputs than it takes for the same errors."""
        blocks = self.blocks[channels]
        inputs = blocks.flatten()
        weight = torch.linalg.qr(self.weight[:, inputs], mode="r").R
        return _Reader(weight, self.inverse[inputs][:, inputs], torch.arange(len(inputs)).view(blocks.shape))


def _errors(readers: Sequence[_Reader], width: int) -> torch.Tensor:
    """Return the error once each channel has left, in the order in which they add least; shape ``(width,)``.

    Once some have left, the others are as a rule harder to lose. So those that would have added more than a whole block
    of others are not looked at again until the least in the block adds as much (lazy greedy: Minoux 1978).
    """
    scores, error = torch.zeros(width, dtype=torch.float64), 0.0
    present = torch.arange(width)
    while len(present):
        added = torch.stack([reader.added_errors(present) for reader in readers]).sum(0)
        order = added.argsort(stable=True)
        block, others = present[order[:BLOCK]], order[BLOCK:]
        bound = float(added[others[0]]) if len(others) else float("inf")
        parts = [reader.for_channels(block) for reader in readers]
        left, lost = torch.arange(len(block)), torch.tensor([], dtype=torch.long)
        while len(left):
            added = torch.stack([part.added_errors(left) for part in parts]).sum(0)
            least = int(added.argmin())
            if len(lost) and added[least] > bound:
                break
            channel = left[least : least + 1]
            error += max(float(added[least]), 0.0)
            scores[block[channel]] = error
            left, lost = left[left != channel], torch.cat([lost, block[channel]])
            if len(left):
                for part in parts:
                    part.remove_inputs(channel)
        present = present[~torch.isin(present, lost)]
        if len(present):
            for reader in readers:
                reader.remove_inputs(lost)
    return scores
