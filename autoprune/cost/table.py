"""The exact cost of any candidate, from one pass of the dense network and from what each removed channel takes along.

An operation with a weight does ``numel(weight) x positions`` multiply-accumulates. The positions (pixels or tokens that
the weight is applied to) depend on no width but where they are channels, as in a product along tokens, and the plan
knows those. This holds for dense, grouped, depthwise and transposed convolutions and for linear layers, so the MACs of
a pruned network follow from the shapes of its weights.
"""

import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import gcd, prod
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python
from torch import nn

from autoprune.cost.flops import attribute_macs, key_of
from autoprune.errors import PruningError
from autoprune.network.call import BatchDim, Inputs

Shrink = Mapping[str, Mapping[int, Mapping[str, int]]]
"""Parameter or buffer name -> dimension -> group -> entries lost along it with each removed channel."""


Runs = Sequence[tuple[int, Mapping[str, int]]]
"""Dimensions that a product runs over: (size, group -> entries lost a channel)."""

Product = tuple[str, Runs]
"""Module, and the dimensions that a product of activations runs over."""


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


class NetworkCosts(NamedTuple):
    """Costs of many candidates, each an array of shape ``(n_candidates,)``, int64, as in :class:`NetworkCost`."""

    params: np.ndarray
    macs: np.ndarray
    tensor_bytes: np.ndarray


@dataclass(frozen=True)
class TensorCost:
    """One parameter or buffer of the dense network.

    Attributes:
        names: Its name, and the others that it has if it is tied.
        macs: MACs of the dense network that use it as a weight.
        shrinks: (dimension, group, entries lost along it with each removed channel).
        positions: For each product with it, the dimensions that are not its own; empty where none loses channels.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    itemsize: int
    is_parameter: bool
    macs: int
    shrinks: tuple[tuple[int, str, int], ...]
    positions: tuple[Runs, ...] = ()


@dataclass(frozen=True)
class CostTable:
    """All that is needed to tell the cost of any candidate.

    Attributes:
        widths: Group -> channels in the dense network.
        other_macs: Module name -> MACs without a weight (products of activations, as in attention).
        products: (module, dimensions that a product of activations there runs over, each a size and what it loses for
            each removed channel of a group). The module's ``other_macs`` fall in proportion.
        uncounted: (operation, module that runs it) of what does much work and is in no count.
    """

    widths: Mapping[str, int]
    blocks: tuple[str, ...]
    tensors: tuple[TensorCost, ...]
    other_macs: Mapping[str, int]
    products: tuple[Product, ...] = ()
    uncounted: tuple[tuple[str, str], ...] = ()

    def cost(self, widths: Mapping[str, int], removed_blocks: Collection[str] = ()) -> NetworkCost:
        """Return the cost of the network with these widths and without these blocks.

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
        macs = sum(
            self._product_macs(module, dense, removed)
            for module, dense in self.other_macs.items()
            if not f"{module}.".startswith(gone)
        )
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
                rest, whole = _products_after(tensor.positions, removed)
                macs += tensor.macs * numel * rest // (prod(tensor.shape) * whole)
        return NetworkCost(params, macs, tensor_bytes)

    def shares(self, group: str) -> tuple[float, float]:
        """Return the shares of the dense network's parameters and MACs that would go with all channels of a group."""
        whole, rest = self.cost({}), self.cost({group: 0})
        return 1 - rest.params / whole.params, 1 - rest.macs / max(1, whole.macs)

    def block_shares(self, block: str) -> tuple[float, float]:
        """Return the shares of the dense network's parameters and MACs that would go with a block."""
        whole, rest = self.cost({}), self.cost({}, (block,))
        return 1 - rest.params / whole.params, 1 - rest.macs / max(1, whole.macs)

    def costs(self, widths: np.ndarray) -> NetworkCosts:
        """Return the costs of many candidates at once, all blocks present.

        Args:
            widths: Channels kept, shape ``(n_candidates, n_groups)``, the groups in the order of ``widths``.

        Raises:
            PruningError: If the shape is another, or a width is not in [0, the dense one].
        """
        widths = np.asarray(widths, dtype=np.int64)
        dense = np.array(list(self.widths.values()), dtype=np.int64)
        if widths.ndim != 2 or widths.shape[1] != len(dense):
            raise PruningError(f"widths must have shape (n_candidates, {len(dense)}), got {widths.shape}.")
        if (widths < 0).any() or (widths > dense).any():
            raise PruningError("every width must be in [0, the group's dense width].")
        removed = dict(zip(self.widths, (dense - widths).T, strict=True))
        zero = np.zeros(len(widths), dtype=np.int64)
        params, macs, tensor_bytes = zero.copy(), zero.copy(), zero.copy()
        for tensor in self.tensors:
            sizes: dict[int, np.ndarray] = {}
            for dim, group, per_channel in tensor.shrinks:
                sizes[dim] = sizes.get(dim, zero + tensor.shape[dim]) - removed[group] * per_channel
            fixed = prod(size for dim, size in enumerate(tensor.shape) if dim not in sizes)
            numel = reduce(operator.mul, sizes.values(), zero + fixed)
            tensor_bytes += numel * tensor.itemsize
            params += numel if tensor.is_parameter else 0
            if tensor.macs:
                rest, whole = _products_after(tensor.positions, removed)
                whole *= prod(tensor.shape)
                # The fraction is reduced first, as the product of all would not fit.
                common = gcd(tensor.macs, whole)
                macs += numel * rest * (tensor.macs // common) // (whole // common)
        for module, macs_dense in self.other_macs.items():
            macs += self._product_macs(module, macs_dense, removed)
        return NetworkCosts(params, macs, tensor_bytes)

    def _product_macs(self, module: str, dense: int, removed: Mapping[str, Any]) -> Any:
        """Count the MACs of a module's products of activations, ``dense`` in the dense network."""
        rest, whole = _products_after([runs for name, runs in self.products if name == module], removed)
        return dense * rest // whole

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
        plain: dict[str, Any] = to_jsonable_python(self)
        return plain

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "CostTable":
        """Rebuild a table; raises ``pydantic.ValidationError`` if the record is not one."""
        return _ADAPTER.validate_python(record)


def _products_after(products: Sequence[Runs], removed: Mapping[str, Any]) -> tuple[Any, int]:
    """Return the size of some products together after channels have left, and before; both 1 without products."""
    whole = sum(prod(size for size, _ in runs) for runs in products)
    if not whole:
        return 1, 1
    rest = sum(
        prod(size - sum(removed.get(group, 0) * lost for group, lost in losses.items()) for size, losses in runs)
        for runs in products
    )
    return rest, whole


_ADAPTER = TypeAdapter(CostTable)


def build_table(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    widths: Mapping[str, int],
    shrink: Shrink,
    products: Sequence[Product] = (),
    positions: Mapping[str, Sequence[Runs]] | None = None,
    blocks: Sequence[str] = (),
    batch_dim: BatchDim = 0,
) -> CostTable:
    """Measure the dense network once, so that the cost of every candidate is known.

    Args:
        model: The dense network.
        example_inputs: Only the first example is run.
        batch_dim: ``None`` runs all of the inputs, as one example.
        widths: Group -> channels in the dense network.
        shrink: What every removed channel of a group takes along.
        products: Products of activations whose size falls with channels.
        positions: Parameter or buffer name -> for each product with it, the dimensions that are not its own, where one
            of them falls with channels.
        blocks: Names of the modules that may be replaced by the identity.

    Raises:
        PruningError: If ``shrink`` names a tensor or dimension that the network hasn't.
    """
    parameters = _named_tensors(model.named_parameters(remove_duplicate=False))
    stored = model.state_dict().keys()
    buffers = _named_tensors(model.named_buffers(remove_duplicate=False))
    tensors = {names[0]: (names, tensor) for names, tensor in (*parameters, *buffers)}
    shapes = {name: tensor.shape for names, tensor in tensors.values() for name in names}
    _check_shrink(shrink, shapes)
    positions = positions or {}
    owners = {key_of(tensor): name for name, (_, tensor) in tensors.items()}
    macs, other_macs, uncounted = attribute_macs(
        model,
        example_inputs,
        lambda operand: owners.get(key_of(operand)),
        lambda name: not any(alias in shrink for alias in tensors[name][0]),
        batch_dim,
    )
    parameter_names = {names[0] for names, _ in parameters}
    return CostTable(
        widths=dict(widths),
        blocks=tuple(blocks),
        tensors=tuple(
            TensorCost(
                names=names,
                shape=tuple(tensor.shape),
                itemsize=tensor.element_size() if any(name in stored for name in names) else 0,
                is_parameter=first in parameter_names,
                macs=macs.get(first, 0),
                shrinks=_shrinks(shrink, names),
                positions=next((tuple(positions[name]) for name in names if name in positions), ()),
            )
            for first, (names, tensor) in tensors.items()
        ),
        other_macs=other_macs,
        products=tuple(products),
        uncounted=uncounted,
    )


def _named_tensors(named: Any) -> list[tuple[tuple[str, ...], torch.Tensor]]:
    """Yield every tensor once, with all of its names."""
    names: dict[int, list[str]] = {}
    tensors: dict[int, torch.Tensor] = {}
    for name, tensor in named:
        names.setdefault(id(tensor), []).append(name)
        tensors[id(tensor)] = tensor
    return [(tuple(names[key]), tensor) for key, tensor in tensors.items()]


def _shrinks(shrink: Shrink, names: tuple[str, ...]) -> tuple[tuple[int, str, int], ...]:
    """Return what shrinks a tensor; a tied one shrinks under whichever of its names the plan knows it by."""
    of_tensor = next((shrink[name] for name in names if name in shrink), {})
    return tuple((dim, group, lost) for dim, groups in of_tensor.items() for group, lost in groups.items() if lost)


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
