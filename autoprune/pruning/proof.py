"""Prove by a forward and backward pass that a pruned network computes what the masked one does."""

import contextlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only

from autoprune.errors import PruningError
from autoprune.network.call import Inputs, call_model, to_device
from autoprune.network.device import device_of
from autoprune.pruning.copies import shareable_tensors, weight_sharing_copy
from autoprune.pruning.kept_indices import KeptIndices, masked_copy
from autoprune.pruning.plan import FORWARD_FAILS, Block

_FLOAT64_TOLERANCE = 1e-8
_FLOAT32_TOLERANCE = 1e-3
_LARGE = 100_000_000
"""Parameters above which a plan is proved in the network's own dtype: copies in float64 would not fit everywhere."""
_SMALL = 5_000_000
"""Parameters up to which every pruned network is compared in float64 at once: it costs next to nothing."""


@dataclass(frozen=True)
class Bench:
    """A network that computes with a given one's weights, in float64 where it runs so and evaluation mode.

    Attributes:
        shapes: Shapes of its output tensors.
        dtype: ``None`` where the network runs in its own dtypes only.
        tolerance: Largest difference between two outputs that counts as none, relative to the largest output (at
            least 1).
    """

    model: nn.Module
    inputs: Inputs
    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype | None
    tolerance: float

    def prove(self, pruned: nn.Module, reference: nn.Module | None) -> None:
        """Run a pruned network forward and backward, and compare its output with a reference's.

        Args:
            pruned: A network in this bench's dtype and mode.
            reference: The masked network; ``None`` compares the shapes with the dense network's and nothing else.

        Raises:
            PruningError: If a pass fails, or the output's shapes or values differ or are not finite; the message is a
                reason that fits behind a module's name.
        """
        outputs = run(pruned, self.inputs)
        _check_shapes(outputs, self.shapes)
        _backward(pruned, outputs)
        if reference is not None:
            with torch.no_grad():
                expected = run(reference, self.inputs)
            _check_values(outputs, expected, self.tolerance)


def bench(model: nn.Module, inputs: Inputs) -> Bench:
    """Set up a network for proofs.

    Raises:
        PruningError: If the network itself can't run on the inputs, gives no float tensor or one that is not finite.
    """

    def stand(dtype: torch.dtype | None) -> Bench:
        network, cast = in_dtype(model, inputs, dtype)
        with torch.no_grad():
            return Bench(network, cast, _shapes(run(network, cast)), dtype, _tolerance(dtype))

    if _n_parameters(model) <= _LARGE:
        # Some networks fix float32 inside their forward pass; there the proof is as sharp as float32 allows.
        with contextlib.suppress(PruningError):
            return stand(torch.float64)
    return stand(None)


def prove_pruned(
    pruned: nn.Module,
    model: nn.Module,
    kept_indices: KeptIndices,
    removed_blocks: Collection[Block],
    inputs: Inputs,
    *,
    exact: bool = True,
) -> None:
    """Compare a pruned network with the masked network, forward only.

    A network of at most 5 million parameters is compared in float64, where wrong pruning shows beyond all rounding. A
    larger one is compared in float32, to a tolerance of 1e-3 of the largest output; only if that fails does float64
    decide. Where a network runs in its own dtypes only, they are taken.

    Args:
        pruned: It is not touched.
        model: The network that was pruned, before it was; it is not touched.
        removed_blocks: Blocks of ``model`` that ``pruned`` lacks.
        exact: Whether the values must be equal; otherwise only the shapes are compared, and the values must be finite.

    Raises:
        PruningError: If a pass fails, or the output's shapes or values differ or are not finite.
    """
    is_small = _n_parameters(model) <= _SMALL
    failure: PruningError | None = None
    for dtype in (torch.float64, None) if is_small else (torch.float32, torch.float64, None):
        network, cast = in_dtype(pruned, inputs, dtype)
        try:
            with torch.no_grad():
                expected = run(masked_copy(model, kept_indices, removed_blocks, dtype).eval(), cast)
        except PruningError as error:
            failure = failure or error
            continue
        try:
            with torch.no_grad():
                outputs = run(network, cast)
            _check_shapes(outputs, _shapes(expected))
            if exact:
                _check_values(outputs, expected, _tolerance(dtype))
            return
        except PruningError as error:
            failure = error
            if dtype is torch.float64:
                break
    if failure is not None:
        raise failure


def in_dtype(model: nn.Module, inputs: Inputs, dtype: torch.dtype | None) -> tuple[nn.Module, Inputs]:
    """Copy a network in evaluation mode, sharing its weights, and move inputs to its device.

    Args:
        dtype: What float tensors are cast to; ``None`` leaves them.
    """
    device = device_of(model)
    cast = tree_map_only(
        torch.Tensor, lambda x: x.to(dtype) if x.is_floating_point() and dtype else x, to_device(inputs, device)
    )
    return weight_sharing_copy(model, shareable_tensors(model, dtype)).eval(), cast


def run(model: nn.Module, inputs: Inputs) -> list[torch.Tensor]:
    """List the float tensors in the network's output; raises PruningError if it fails or one is not finite."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # a network that draws random numbers draws the same ones each time
            outputs = [tensor for tensor in tensors_in(call_model(model, inputs)) if tensor.is_floating_point()]
    except Exception as error:
        raise PruningError(f"{FORWARD_FAILS} ({shortened(error)})") from error
    if not outputs:
        raise PruningError("the forward pass gives no float tensor")
    if not all(map(_is_finite, outputs)):
        raise PruningError("the forward pass gives values that are not finite")
    return outputs


def tensors_in(outputs: Any) -> list[torch.Tensor]:
    """List the tensors in a network's output, whatever holds them."""
    plain = dict(outputs) if isinstance(outputs, Mapping) else outputs
    return [leaf for leaf in tree_leaves(plain) if isinstance(leaf, torch.Tensor)]


def shortened(error: Exception, limit: int = 160) -> str:
    """Return the first line of an error's text, with its type."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def batch_of_two(inputs: Inputs) -> Inputs:
    """Replicate inputs of one example, so that the batch dimension can't be mistaken for another."""
    return tree_map_only(
        torch.Tensor, lambda x: x.repeat(2, *[1] * (x.dim() - 1)) if x.dim() and x.shape[0] == 1 else x, inputs
    )


def randomised(model: nn.Module, seed: int) -> nn.Module:
    """Copy a network with random weights, norm parameters and batch-norm statistics.

    A trained network can hide wrong pruning: a weight that is zero, a fresh batch norm, a unit that is dead. Biases and
    norm scales are drawn from [0.5, 1.5), larger weights from a normal distribution over the square root of their
    fan-in.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn: dict[str, torch.Tensor] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        values = torch.empty(tensor.shape)
        if isinstance(tensor, nn.Parameter) and tensor.dim() > 1 and tensor.is_floating_point():
            values.normal_(std=1 / math.sqrt(max(1, tensor[0].numel())), generator=generator)
        elif name.endswith(("running_mean", "running_var")) or (
            isinstance(tensor, nn.Parameter) and tensor.dim() == 1 and tensor.is_floating_point()
        ):
            values.uniform_(0.5, 1.5, generator=generator)
        else:
            continue
        drawn[name] = values.to(tensor)
    return weight_sharing_copy(model, drawn)


def _n_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _tolerance(dtype: torch.dtype | None) -> float:
    return _FLOAT64_TOLERANCE if dtype is torch.float64 else _FLOAT32_TOLERANCE


def _is_finite(tensor: torch.Tensor) -> bool:
    """Test ``tensor.isfinite().all()`` in one pass and without a mask as large as the tensor."""
    if not tensor.numel():
        return True
    values = tensor.detach()
    least, largest = torch.aminmax(torch.view_as_real(values) if values.is_complex() else values)
    return math.isfinite(least) and math.isfinite(largest)


def _check_shapes(outputs: list[torch.Tensor], expected: tuple[tuple[int, ...], ...]) -> None:
    shapes = _shapes(outputs)
    if shapes != expected:
        raise PruningError(_change(expected, shapes))


def _check_values(outputs: list[torch.Tensor], expected: list[torch.Tensor], tolerance: float) -> None:
    scale = max(1.0, *(float(tensor.abs().max()) for tensor in expected if tensor.numel()))
    pairs = zip(outputs, expected, strict=True)
    apart = max((float((a.detach() - b).abs().max()) for a, b in pairs if a.numel()), default=0.0)
    if not apart <= tolerance * scale:
        raise PruningError(f"the output differs from the masked network's by {apart / scale:.1e} of the largest value")


def _shapes(outputs: list[torch.Tensor]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(tensor.shape) for tensor in outputs)


def _change(before: tuple[tuple[int, ...], ...], after: tuple[tuple[int, ...], ...]) -> str:
    if len(before) != len(after):
        return f"the network's output becomes {len(after)} tensors, from {len(before)}"
    old, new = next((old, new) for old, new in zip(before, after, strict=True) if old != new)
    if len(old) == len(new) and old[0] == new[0]:
        return f"its width is the network's output, whose shape {old} becomes {new}"
    return f"the shape of the network's output, {old}, becomes {new}"


def _backward(model: nn.Module, outputs: list[torch.Tensor]) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    differentiable = [tensor for tensor in outputs if tensor.requires_grad]
    if not trained or not differentiable:
        return
    try:
        total = torch.stack([tensor.square().mean() for tensor in differentiable]).sum()
        gradients = torch.autograd.grad(total, trained, allow_unused=True)
    except Exception as error:
        raise PruningError(f"the backward pass fails ({shortened(error)})") from error
    if not all(_is_finite(gradient) for gradient in gradients if gradient is not None):
        raise PruningError("the backward pass gives gradients that are not finite")
