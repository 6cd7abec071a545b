"""Multiply-accumulates of a network, counted by torch's own FLOP counter during one forward pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode, _FlopCounterMode, flop_registry

from autoprune.cost.formulas import COUNTED, Counted, is_heavy
from autoprune.errors import PruningError, describe_error
from autoprune.network.call import BatchDim, Inputs, call_model, plain_inputs, to_device
from autoprune.network.device import device_of
from autoprune.network.modes import eval_mode
from autoprune.network.without_dynamo import DispatchModeWithoutDynamo, call_without_dynamo

call_without_dynamo(_FlopCounterMode.__torch_dispatch__)


def count_macs(model: nn.Module, example_inputs: Inputs, batch_dim: BatchDim = 0) -> int:
    """Count the multiply-accumulates of one example's forward pass.

    Convolutions, products of matrices and vectors (those of recurrent layers too), attention, bilinear layers and
    distances count, a multiply-accumulate as 1; sums, activations, normalisation and pooling don't. What does more work
    than these and has no formula stands in ``CostTable.uncounted``.

    Args:
        example_inputs: Only the first example is run.
        batch_dim: ``None`` runs all of the inputs, as one example.
    """
    formulas = {operation: _flops(counted) for operation, counted in COUNTED.items()}
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        run_one_example(model, example_inputs, batch_dim)
    return int(counter.get_total_flops()) // 2


def _flops(counted: Counted) -> Callable[..., int]:
    """Return a formula as torch's counter takes it: two FLOPs for each multiply-accumulate."""

    def formula(*args: Any, **kwargs: Any) -> int:
        return 2 * counted.macs(*args, **kwargs)

    formula._get_raw = True  # type: ignore[attr-defined]  # the counter then hands over tensors, not shapes
    return formula


class _Uncounted(DispatchModeWithoutDynamo):
    """Collects what does much work and has no formula, behind a counter, which takes apart what it can."""

    def __init__(self, counter: FlopCounterMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: dict[tuple[str, str], None] = {}
        self._counter = counter

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if is_heavy(func):
            name = str(getattr(func, "overloadpacket", func)).removeprefix("aten.")
            self.found[name, _innermost(self._counter.mod_tracker.parents)] = None
        return func(*args, **(kwargs or {}))


def attribute_macs(
    model: nn.Module,
    example_inputs: Inputs,
    owner_of: Callable[[torch.Tensor], str | None],
    is_constant: Callable[[str], bool],
    batch_dim: BatchDim = 0,
) -> tuple[dict[str, int], dict[str, int], tuple[tuple[str, str], ...]]:
    """Count multiply-accumulates as ``count_macs`` does, each on the one parameter or the module that it is due to.

    Args:
        owner_of: Tells whose tensor an operand of an operation is, and ``None`` for one that has no owner. What is
            computed entry by entry from owned tensors alone, such as a cast or masked weight, has its owner, too.
        is_constant: Tells of an owner whether no pruning changes it: what is computed from such tensors alone, in any
            way, has the first one's owner.

    Returns:
        Three things. Owner -> MACs of the operations with that owner's tensor as an operand, the last one if several
        are. Module name -> MACs of the operations that have no operand with an owner (products of activations, as in
        attention) and, with a dot behind the name, of those whose operands are all constant. And (operation, module
        that runs it) of what does much work and is not counted, in the forward pass's order.
    """
    of_owner: dict[str, int] = {}
    of_module: dict[str, int] = {}

    computed = _Computed(owner_of, is_constant)

    def recording(formula: Callable[..., int], factors: tuple[int, ...] | None = None) -> Callable[..., int]:
        def record(*args: Any, **kwargs: Any) -> int:
            flops = formula(*args, **kwargs)
            if factors is None:
                operands = [operand for operand in args if isinstance(operand, torch.Tensor) and operand.ndim > 1]
            else:
                operands = [args[place] for place in factors]
            owners = [owner for owner in map(computed.owner_of, operands) if owner is not None]
            # Of learned positions and a layer that they go through, the layer comes last.
            where, counts = (owners[-1], of_owner) if owners else (_innermost(counter.mod_tracker.parents), of_module)
            if len(owners) == len(operands) > 1 and all(map(is_constant, owners)):
                where, counts = f"{_innermost(counter.mod_tracker.parents)}.", of_module
            counts[where] = counts.get(where, 0) + flops // 2
            return flops

        record._get_raw = True  # type: ignore[attr-defined]  # the counter then hands over tensors, not shapes
        return record

    formulas = {operation: recording(formula) for operation, formula in flop_registry.items()}
    formulas |= {operation: recording(_flops(counted), counted.factors) for operation, counted in COUNTED.items()}
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    with _Uncounted(counter) as uncounted, counter, computed:
        run_one_example(model, example_inputs, batch_dim)
    return of_owner, of_module, tuple(uncounted.found)


def key_of(tensor: torch.Tensor) -> int:
    """Return what a tensor and its views have in common; a sparse one has no memory to tell it by."""
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else id(tensor)


class _Computed(DispatchModeWithoutDynamo):
    """Knows the tensors that are computed from owned ones alone, and the owner of those that have one's shape."""

    def __init__(self, owner_of: Callable[[torch.Tensor], str | None], is_constant: Callable[[str], bool]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._given, self._is_constant = owner_of, is_constant
        # The tensor is kept, or its place would be used again.
        self._found: dict[int, tuple[str | None, torch.Tensor]] = {}

    def owner_of(self, tensor: torch.Tensor) -> str | None:
        found = self._found.get(key_of(tensor))
        return self._given(tensor) or (found[0] if found else None)

    def _is_known(self, tensor: torch.Tensor) -> bool:
        return self._given(tensor) is not None or key_of(tensor) in self._found

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = result[0] if isinstance(result, tuple) else result
        leaves = chain.from_iterable(arg if isinstance(arg, list | tuple) else (arg,) for arg in args)
        operands = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.numel() > 1]
        from_owned = bool(operands) and all(map(self._is_known, operands))
        if from_owned and isinstance(made, torch.Tensor) and not self._is_known(made):
            self._found[key_of(made)] = (self._owner_of_result(func, made, operands), made)
        return result

    def _owner_of_result(self, func: Any, made: torch.Tensor, operands: list[torch.Tensor]) -> str | None:
        owners = [(self.owner_of(operand), operand.shape == made.shape) for operand in operands]
        if func in _ENTRY_BY_ENTRY or torch.Tag.pointwise in func.tags:
            alike = next((owner for owner, same in owners if same and owner is not None), None)
            if alike is not None:
                return alike
        first = owners[0][0]
        return first if all(owner is not None and self._is_constant(owner) for owner, _ in owners) else None


def run_one_example(model: nn.Module, example_inputs: Inputs, batch_dim: BatchDim = 0) -> None:
    """Run the first example in eval mode, without gradients, every operation visible to a dispatch mode."""
    first = plain_inputs(example_inputs)
    if batch_dim == 0:
        first = tree_map_only(torch.Tensor, lambda tensor: tensor[:1], first)
    with _fused_kernels_off(), eval_mode(model), _gradients_off(model), torch.no_grad():
        try:
            call_model(model, to_device(first, device_of(model)))
        except Exception as error:
            raise PruningError(
                f"the forward pass fails on one example, for which costs are counted: {describe_error(error)}. Give "
                "inputs in the model's dtype, and batches of any size. If their first dimension is no batch, as the "
                "nodes of a graph, use autoprune.plan(..., batch_dim=None)."
            ) from error


@contextmanager
def _gradients_off(model: nn.Module) -> Iterator[None]:
    """torch's counter wants a gradient function of every tensor that asks for gradients, as a view of a parameter."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def _fused_kernels_off() -> Iterator[None]:
    """Let attention and recurrent layers run as the matrix products that torch's counter knows."""
    attention = torch.backends.mha
    libraries: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
    fast_attention, enabled = attention.get_fastpath_enabled(), [library.enabled for library in libraries]
    try:
        attention.set_fastpath_enabled(False)
        for library in libraries:
            library.enabled = False
        yield
    finally:
        attention.set_fastpath_enabled(fast_attention)
        for library, before in zip(libraries, enabled, strict=True):
            library.enabled = before


_ENTRY_BY_ENTRY = (
    torch.ops.aten._to_copy.default,
    torch.ops.aten.clone.default,
    torch.ops.aten._weight_norm_interface.default,
)
"""Operations that torch does not tag as pointwise."""


def _innermost(parents: set[str]) -> str:
    """Of the modules that are running, the innermost's name; the counter begins it with the class of the root."""
    return max(parents - {"Global"}, key=len, default="").partition(".")[2]
