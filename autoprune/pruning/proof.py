"""Proof by a real forward and backward pass that a pruned network computes what the masked one does."""

import contextlib
import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only

from autoprune.errors import PruningError
from autoprune.tasks.forward import call_model, to_device
from autoprune.tasks.task import Inputs

_FLOAT64_TOLERANCE = 1e-8
_FLOAT32_TOLERANCE = 1e-3
_LARGE = 100_000_000
"""Parameters above which a network is proved in its own dtype: copies in float64 would not fit everywhere."""


@dataclass(frozen=True)
class Bench:
    """A copy of a network, in float64 where it runs so and evaluation mode, with inputs that it takes.

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

    def cast(self, model: nn.Module) -> nn.Module:
        """Copy another network into this one's dtype and mode."""
        clone = copy.deepcopy(model).eval()
        return clone if self.dtype is None else clone.to(self.dtype)

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
        shapes = _shapes(outputs)
        if shapes != self.shapes:
            raise PruningError(_change(self.shapes, shapes))
        _backward(pruned, outputs)
        if reference is None:
            return
        with torch.no_grad():
            expected = run(reference, self.inputs)
        scale = max(1.0, *(float(tensor.abs().max()) for tensor in expected if tensor.numel()))
        pairs = zip(outputs, expected, strict=True)
        apart = max((float((a.detach() - b).abs().max()) for a, b in pairs if a.numel()), default=0.0)
        if not apart <= self.tolerance * scale:
            raise PruningError(
                f"the output differs from the masked network's by {apart / scale:.1e} of the largest value"
            )


def bench(model: nn.Module, inputs: Inputs) -> Bench:
    """Set up a network for proofs.

    Raises:
        PruningError: If the network itself can't run on the inputs, gives no float tensor or one that is not finite.
    """
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    own = Bench(copy.deepcopy(model).eval(), to_device(inputs, device), (), None, _FLOAT32_TOLERANCE)
    if sum(parameter.numel() for parameter in model.parameters()) <= _LARGE:
        inputs64 = _to_float64(own.inputs)
        double = Bench(copy.deepcopy(own.model).double(), inputs64, (), torch.float64, _FLOAT64_TOLERANCE)
        # Some networks fix float32 inside their forward pass; there the proof is as sharp as float32 allows.
        with contextlib.suppress(PruningError):
            return replace(double, shapes=_shapes(run(double.model, double.inputs)))
    return replace(own, shapes=_shapes(run(own.model, own.inputs)))


def run(model: nn.Module, inputs: Inputs) -> list[torch.Tensor]:
    """List the float tensors in the network's output; raises PruningError if it fails or one is not finite."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # a network that draws random numbers draws the same ones each time
            outputs = [tensor for tensor in tensors_in(call_model(model, inputs)) if tensor.is_floating_point()]
    except Exception as error:
        raise PruningError(f"the forward pass fails ({shortened(error)})") from error
    if not outputs:
        raise PruningError("the forward pass gives no float tensor")
    if not all(bool(tensor.isfinite().all()) for tensor in outputs):
        raise PruningError("the forward pass gives values that are not finite")
    return outputs


def tensors_in(outputs: Any) -> list[torch.Tensor]:
    """List the tensors in a network's output, whatever holds them."""
    plain = dict(outputs) if isinstance(outputs, Mapping) else outputs
    return [leaf for leaf in tree_leaves(plain) if isinstance(leaf, torch.Tensor)]


def shortened(error: Exception, limit: int = 160) -> str:
    """The first line of an error's text, with its type."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def batch_of_two(inputs: Inputs) -> Inputs:
    """Repeat inputs of one example, so that the batch dimension can't be mistaken for another."""
    return tree_map_only(
        torch.Tensor, lambda x: x.repeat(2, *[1] * (x.dim() - 1)) if x.dim() and x.shape[0] == 1 else x, inputs
    )


def randomised(model: nn.Module, seed: int) -> nn.Module:
    """Copy a network with random weights, norm parameters and batch-norm statistics.

    A trained network can hide a wrong cut: a weight that is zero, a fresh batch norm, a unit that is dead. Biases and
    norm scales are drawn from [0.5, 1.5), larger weights from a normal distribution over the square root of their
    fan-in.
    """
    clone = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor) -> torch.Tensor:
        return 0.5 + torch.rand(tensor.shape, generator=generator, dtype=torch.float64)

    with torch.no_grad():
        for tensor in clone.parameters():
            if not tensor.is_floating_point() or tensor.dim() == 0:
                continue
            if tensor.dim() == 1:
                tensor.copy_(uniform(tensor))
            else:
                drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.copy_(drawn / math.sqrt(max(1, tensor[0].numel())))
        for name, buffer in clone.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(uniform(buffer))
    return clone


def _to_float64(inputs: Inputs) -> Inputs:
    return tree_map_only(torch.Tensor, lambda x: x.double() if x.is_floating_point() else x, inputs)


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
    if not all(bool(gradient.isfinite().all()) for gradient in gradients if gradient is not None):
        raise PruningError("the backward pass gives gradients that are not finite")
