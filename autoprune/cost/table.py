"""The exact cost of any candidate, from one pass of the dense network and from what each removed channel takes along.

An operation with a weight does ``numel(weight) x positions`` multiply-accumulates, and the positions (pixels or tokens
that the weight is applied to) depend on no width. This holds for dense, grouped, depthwise and transposed convolutions
and for linear layers, so the MACs of a pruned network follow from the shapes of its weights.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, NamedTuple

import torch
from pydantic import TypeAdapter
from torch import nn

from autoprune.cost.flops import attribute_macs
from autoprune.errors import PruningError
from autoprune.tasks.task import Inputs

Shrink = Mapping[str, Mapping[int, Mapping[str, int]]]
"""Parameter or buffer name -> dimension -> group -> entries lost along it with each removed channel."""


class NetworkCost(NamedTuple):
    """Cost of a candidate.

    Attributes:
        params: Parameters, tied ones counted once.
        macs: Multiply-accumulates for one example.
        tensor_bytes: Bytes of all parameters and stored buffers.
    """

    params: int
    macs: int
    tensor_bytes: int


@dataclass(frozen=True)
class TensorCost:
    """One parameter or buffer of the dense network.

    Attributes:
        names: Its name, and the others that it has if it is tied.
        macs: MACs of the dense network that use it as a weight.
        shrinks: (dimension, group, entries lost along it with each removed channel).
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    itemsize: int
    is_parameter: bool
    macs: int
    shrinks: tuple[tuple[int, str, int], ...]


@dataclass(frozen=True)
class CostTable:
    """All that is needed to tell the cost of any candidate.

    Attributes:
        widths: Group -> channels in the dense network.
        other_macs: Module name -> MACs without a weight (products of activations, as in attention), taken as constant.
    """

    widths: Mapping[str, int]
    blocks: tuple[str, ...]
    tensors: tuple[TensorCost, ...]
    other_macs: Mapping[str, int]

    def cost(self, widths: Mapping[str, int], removed_blocks: Collection[str] = ()) -> NetworkCost:
        """The cost of the network with these widths and without these blocks.

        Args:
            widths: Group -> channels kept; a group not named keeps all.

        Raises:
            PruningError: If a group or block is unknown, or a width is not in [0, the dense one].
        """
        removed = self._removed_channels(widths)
        unknown = set(removed_blocks) - set(self.blocks)
        if unknown:
            raise PruningError(
                f"unknown blocks {', '.join(sorted(unknown))}. Known: {', '.join(self.blocks) or 'none'}."
            )
        gone = tuple(f"{block}." for block in removed_blocks)
        params = tensor_bytes = 0
        macs = sum(macs for module, macs in self.other_macs.items() if not f"{module}.".startswith(gone))
        for tensor in self.tensors:
            if gone and all(name.startswith(gone) for name in tensor.names):
                continue
            shape = list(tensor.shape)
            for dim, group, per_channel in tensor.shrinks:
                shape[dim] -= removed.get(group, 0) * per_channel
            numel = prod(shape)
            tensor_bytes += numel * tensor.itemsize
            params += numel if tensor.is_parameter else 0
            if tensor.macs:
                macs += tensor.macs * numel // prod(tensor.shape)
        return NetworkCost(params, macs, tensor_bytes)

    def _removed_channels(self, widths: Mapping[str, int]) -> dict[str, int]:
        removed = {}
        for group, kept in widths.items():
            if group not in self.widths:
                raise PruningError(f"unknown group '{group}'. Known: {', '.join(self.widths) or 'none'}.")
            if not 0 <= kept <= self.widths[group]:
                raise PruningError(f"group '{group}' has {self.widths[group]} channels, can't keep {kept}.")
            if kept < self.widths[group]:
                removed[group] = self.widths[group] - kept
        return removed

    def to_dict(self) -> dict[str, Any]:
        """Turn the table into plain JSON values."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "CostTable":
        """Rebuild a table; raises ``pydantic.ValidationError`` if the record is not one."""
        return TypeAdapter(CostTable).validate_python(record)


def build_table(model: nn.Module, example_inputs: Inputs, shrink: Shrink, blocks: Sequence[str]) -> CostTable:
    """Measure the dense network once, so that the cost of every candidate is known.

    Args:
        model: The dense network.
        example_inputs: Only the first example is run.
        shrink: What every removed channel of a group takes along.
        blocks: Names of the modules that may be replaced by the identity.

    Raises:
        PruningError: If ``shrink`` names a tensor or dimension that the network hasn't.
    """
    parameters = _named_tensors(model.named_parameters(remove_duplicate=False))
    stored = model.state_dict().keys()
    buffers = _named_tensors(
        (name, buffer) for name, buffer in model.named_buffers(remove_duplicate=False) if name in stored
    )
    tensors = {names[0]: (names, tensor) for names, tensor in (*parameters, *buffers)}
    shapes = {name: tensor.shape for names, tensor in tensors.values() for name in names}
    _check_shrink(shrink, shapes)
    storages = {names[0]: tensor.untyped_storage().data_ptr() for names, tensor in parameters}
    owners = {pointer: name for name, pointer in storages.items()}
    macs, other_macs = attribute_macs(
        model, example_inputs, lambda operand: owners.get(operand.untyped_storage().data_ptr())
    )
    parameter_names = set(storages)
    return CostTable(
        widths=_dense_widths(shrink, shapes),
        blocks=tuple(blocks),
        tensors=tuple(
            TensorCost(
                names=names,
                shape=tuple(tensor.shape),
                itemsize=tensor.element_size(),
                is_parameter=first in parameter_names,
                macs=macs.get(first, 0),
                shrinks=_shrinks(shrink, names),
            )
            for first, (names, tensor) in tensors.items()
        ),
        other_macs=other_macs,
    )


def _named_tensors(named: Any) -> list[tuple[tuple[str, ...], torch.Tensor]]:
    """Every tensor once, with all of its names."""
    names: dict[int, list[str]] = {}
    tensors: dict[int, torch.Tensor] = {}
    for name, tensor in named:
        names.setdefault(id(tensor), []).append(name)
        tensors[id(tensor)] = tensor
    return [(tuple(names[key]), tensor) for key, tensor in tensors.items()]


def _shrinks(shrink: Shrink, names: tuple[str, ...]) -> tuple[tuple[int, str, int], ...]:
    """What shrinks a tensor; a tied one shrinks under whichever of its names the plan knows it by."""
    of_tensor = next((shrink[name] for name in names if name in shrink), {})
    return tuple((dim, group, lost) for dim, groups in of_tensor.items() for group, lost in groups.items() if lost)


def _dense_widths(shrink: Shrink, shapes: Mapping[str, torch.Size]) -> dict[str, int]:
    """A group's width: the fewest channels that a dimension it is cut from has room for, as its own layers are full."""
    widths: dict[str, int] = {}
    for name, dims in shrink.items():
        for dim, groups in dims.items():
            for group, lost in groups.items():
                if lost:
                    room = shapes[name][dim] // lost
                    widths[group] = min(widths.get(group, room), room)
    return widths


def _check_shrink(shrink: Shrink, shapes: Mapping[str, torch.Size]) -> None:
    for name, dims in shrink.items():
        if name not in shapes:
            raise PruningError(f"the plan was made for another network: this one has no tensor '{name}'.")
        wrong = [dim for dim in dims if dim >= len(shapes[name])]
        if wrong:
            raise PruningError(
                f"the plan was made for another network: '{name}' has shape {tuple(shapes[name])} and no dimension "
                f"{wrong[0]}."
            )
