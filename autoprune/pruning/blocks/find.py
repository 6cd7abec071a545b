"""Find the residual blocks of a network by a probe of what its modules do."""

import contextlib
import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from autoprune.errors import PruningError
from autoprune.network.call import Inputs
from autoprune.pruning.copies import shareable_tensors, weight_sharing_copy
from autoprune.pruning.plan import Block, Key, Passthrough, Unprunable
from autoprune.pruning.proof import run

_TOLERANCE = 1e-3
"""Largest difference, for a stream whose entries are about 1; a norm's epsilon makes one of about 1e-5."""


@dataclass
class _Call:
    """The first call of a module.

    Attributes:
        args: Tensors as they were given, other objects, such as a cache, copied before the module could change them.
        stream: The first tensor among the arguments, as it was before the call.
        key: Where in the arguments it stands.
        passthrough: What :class:`RemovedBlock` has to return; ``None`` where that can't be.
        makes_tensors: Whether the output holds tensors that the module makes, beside the stream.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    stream: torch.Tensor
    key: Key
    passthrough: Passthrough | None = None
    makes_tensors: bool = False
    count: int = 1


def find_blocks(model: nn.Module, example_inputs: Inputs) -> tuple[list[Block], list[Unprunable]]:
    """Find the modules that compute ``x + f(x)``, or a norm of it as in BERT, by a probe of what they do.

    The stream ``x`` is the first tensor that the module is called with; its output, or the first tensor of a tuple,
    has the stream's shape. With all parameters at zero, a block returns the stream (one that ends in a ReLU does where
    the stream comes from another ReLU). A block with a norm behind the sum passes too: with its norms at scale 1,
    shift 0 and all else at zero, it returns a stream that is normalised already, as it is in a network of such blocks.

    Where passing modules nest, the items of a stack, a list of modules of the same class, count: whole transformer
    layers, not the attention inside nor the stage around. Of items of stacks in each other, and where there is no
    stack, it is the innermost.

    Args:
        example_inputs: Inputs on the network's device, for which its activations are not all zero.

    Returns:
        The blocks in module order, and those that can't be replaced with the reason: called more than once, or making
        a second tensor that the rest of the network reads.

    Raises:
        PruningError: If the network can't run on the inputs.
    """
    probed = weight_sharing_copy(model, shareable_tensors(model)).eval()
    with torch.no_grad():
        calls, outputs = _calls(probed, example_inputs)
        chosen = _units(probed, calls)
        found = [name for name in chosen if calls[name].count == 1]
        by_maker = {name: calls[name].passthrough for name in found if calls[name].makes_tensors}
        needed = _needed(probed, example_inputs, outputs, by_maker)
    blocks = [Block(name, gives=calls[name].passthrough or 0) for name in found if name not in needed]
    reasons = {name: f"block: it is called {calls[name].count} times" for name in chosen if name not in found}
    reasons |= dict.fromkeys(needed, "block: other layers read a second tensor that it makes")
    return blocks, [Unprunable(name, reason) for name, reason in reasons.items()]


def _calls(model: nn.Module, inputs: Inputs) -> tuple[dict[str, _Call], list[torch.Tensor]]:
    """Record the first call of every module that may be a block, in module order, and the network's output."""
    calls: dict[str, _Call] = {}

    def before(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if name in calls:
                calls[name].count += 1
                return
            named: list[tuple[Key, Any]] = [*enumerate(args), *kwargs.items()]
            key, stream = next(((k, v) for k, v in named if isinstance(v, torch.Tensor)), (0, None))
            if stream is not None and stream.is_floating_point():
                # A clone, because the module may write into its input.
                calls[name] = _Call(*_with_copies((args, kwargs)), stream.detach().clone(), key)

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if name in calls and calls[name].count == 1:
                _record_passthrough(calls[name], output)

        return hook

    candidates = [
        (name, module)
        for name, module in model.named_modules()
        if name and not _is_plain_layer(module) and any(parameter.dim() > 1 for parameter in module.parameters())
    ]
    hooks = [module.register_forward_pre_hook(before(name), with_kwargs=True) for name, module in candidates]
    hooks += [module.register_forward_hook(after(name), with_kwargs=True) for name, module in candidates]
    outputs = run(model, inputs)
    for handle in hooks:
        handle.remove()
    return {name: calls[name] for name, _ in candidates if name in calls}, outputs


def _with_copies(arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Keep the tensors, and copy whatever else can be copied."""

    def copied(value: Any) -> Any:
        if isinstance(value, torch.Tensor | nn.Module):
            return value
        with contextlib.suppress(Exception):
            return copy.deepcopy(value)
        return value

    args, kwargs = arguments
    return tuple(map(copied, args)), {key: copied(value) for key, value in kwargs.items()}


def _is_plain_layer(module: nn.Module) -> bool:
    """Whether it is a layer of torch's own such as a convolution."""
    return type(module).__module__.startswith("torch.nn.") and next(module.children(), None) is None


def _record_passthrough(call: _Call, output: Any) -> None:
    """Record how to return the stream in the form of this output."""
    leaves = output if type(output) is tuple else (output,)
    first = next((place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)), None)
    if first is None or leaves[first].shape != call.stream.shape or leaves[first].dtype != call.stream.dtype:
        return
    named: list[tuple[Key, Any]] = [*enumerate(call.args), *call.kwargs.items()]
    keys: list[Key | None] = []
    for place, leaf in enumerate(leaves):
        same = next((key for key, value in named if value is leaf and isinstance(leaf, torch.Tensor)), None)
        keys.append(call.key if place == first else same)
        call.makes_tensors |= keys[-1] is None and leaf is not None
    call.passthrough = tuple(keys) if type(output) is tuple else call.key


def _passes(model: nn.Module, name: str, call: _Call) -> bool:
    module = model.get_submodule(name)
    size = float(call.stream.square().mean().sqrt())
    if not 0 < size < float("inf"):
        return False
    zeros = {key: torch.zeros_like(parameter) for key, parameter in module.named_parameters()}
    if _returns_stream(module, zeros, call, call.stream / size):
        return True
    norms = {
        f"{path}.weight".lstrip("."): torch.ones_like(norm.weight)
        for path, norm in module.named_modules()
        if type(norm).__name__.endswith("Norm") and isinstance(getattr(norm, "weight", None), torch.Tensor)
    }
    if not norms.keys() & zeros.keys() or call.stream.dim() < 2:
        return False
    return _returns_stream(module, zeros | norms, call, F.layer_norm(call.stream / size, call.stream.shape[-1:]))


def _returns_stream(module: nn.Module, parameters: dict[str, torch.Tensor], call: _Call, stream: torch.Tensor) -> bool:
    given = stream.clone()
    args, kwargs = _with_copies((call.args, call.kwargs))
    args = tuple(given if key == call.key else value for key, value in enumerate(args))
    kwargs = {key: given if key == call.key else value for key, value in kwargs.items()}
    try:
        output = functional_call(module, parameters, args, kwargs)
    except Exception:
        return False
    leaves = output if type(output) is tuple else (output,)
    first = next((leaf for leaf in leaves if isinstance(leaf, torch.Tensor)), None)
    if first is None or first.shape != stream.shape or first.dtype != stream.dtype:
        return False
    return torch.allclose(first, stream, rtol=_TOLERANCE, atol=_TOLERANCE)


def _units(model: nn.Module, calls: Mapping[str, _Call]) -> list[str]:
    """Choose the modules that a user would call a layer, among those that pass and nest, in module order."""

    def passing(names: Iterable[str]) -> list[str]:
        return [name for name in names if calls[name].passthrough is not None and _passes(model, name, calls[name])]

    items = _innermost(passing(name for name in calls if _in_stack(model, name)))
    # Whatever is in an item or around one is none of its own; a pass through each of them would be for nothing.
    loose = [name for name in calls if not any(_within(name, item) or _within(item, name) for item in items)]
    chosen = {*items, *_innermost(passing(name for name in loose if not _in_stack(model, name)))}
    return [name for name in calls if name in chosen]


def _innermost(names: Iterable[str]) -> list[str]:
    every = list(names)
    return [name for name in every if not any(_within(other, name) for other in every)]


def _within(inner: str, outer: str) -> bool:
    return inner.startswith(outer + ".")


def _in_stack(model: nn.Module, name: str) -> bool:
    parent = model.get_submodule(name.rpartition(".")[0])
    return isinstance(parent, nn.ModuleList | nn.Sequential) and len({type(item) for item in parent}) == 1


def _needed(
    model: nn.Module, inputs: Inputs, expected: list[torch.Tensor], by_maker: Mapping[str, Passthrough | None]
) -> list[str]:
    """Find the blocks with an output that the network reads and their replacement can't return."""

    def without(passthrough: Passthrough | None) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: tuple[Any, ...]) -> tuple[Any, ...]:
            keys = passthrough if isinstance(passthrough, tuple) else (passthrough,)
            return tuple(None if key is None else leaf for key, leaf in zip(keys, output, strict=True))

        return hook

    def does_without(some: Iterable[str]) -> bool:
        hooks = [model.get_submodule(name).register_forward_hook(without(by_maker[name])) for name in some]
        try:
            outputs = run(model, inputs)
        except PruningError:
            return False
        finally:
            for handle in hooks:
                handle.remove()
        return len(outputs) == len(expected) and all(map(torch.equal, outputs, expected))

    return [] if not by_maker or does_without(by_maker) else [name for name in by_maker if not does_without([name])]
