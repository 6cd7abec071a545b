"""Load a network that was just saved, and compare it with the one in memory: what is judged is what was saved."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.errors import SavedModelError
from autoprune.formats.outputs import TOLERANCE, outputs_of, relative_difference, reproducible_outputs
from autoprune.formats.saved_model import load_model
from autoprune.network.call import Inputs
from autoprune.network.names import attribute_of, module_of
from autoprune.tasks.task import Task

N_EXAMPLES = 8
"""Validation inputs on which a network is compared with its file, and with what is exported of it."""

WAY_OUT = (
    "Make it a persistent buffer (self.register_buffer), changed in place, or give the module get_extra_state and "
    "set_extra_state."
)
_MOST_TRIED, _MOST_NAMED, _DEPTH = 50, 3, 6
_OWN = frozenset(vars(nn.Module()))


def reference_inputs(task: Task) -> Inputs:
    """Read the inputs that networks of a task are compared on: the first ones of the validation split."""
    validation = task.data.validation
    return validation.batch(torch.arange(min(N_EXAMPLES, len(validation))))[0]


def load_judged(
    folder: Path, model: nn.Module, build_model: Callable[[], nn.Module], inputs: Inputs
) -> tuple[nn.Module, list[torch.Tensor] | None]:
    """Load a network from the file that it was just saved in, and prove that it is the one in memory.

    Args:
        folder: Where it was saved.
        model: The network in memory, on the CPU.
        build_model: Builds the dense network.
        inputs: What both are run on, in evaluation mode.

    Returns:
        The loaded network, on the CPU and in training mode, and its output tensors; ``None`` for these if the network
        gives other outputs at each call, so that nothing can be compared.

    Raises:
        SavedModelError: If the outputs differ beyond float rounding; it names what the file lacks, where that is found.
    """
    expected = reproducible_outputs(model, inputs)
    loaded = load_model(folder, build_model)
    if expected is None:
        return loaded, None
    found = outputs_of(loaded, inputs)
    difference = relative_difference(found, expected)
    if difference > TOLERANCE:
        lost = lost_state(model, loaded, inputs, expected)
        raise SavedModelError(
            f"the network loaded from its file gives other outputs than the one in memory (by {difference:.2g} of the "
            f"largest): its file lacks {lost or 'something that the forward pass uses'}. {WAY_OUT}"
        )
    return loaded, found


def lost_state(model: nn.Module, loaded: nn.Module, inputs: Inputs, expected: Sequence[torch.Tensor]) -> str | None:
    """Name what makes a loaded network differ from the one in memory, among what no ``state_dict`` holds.

    Each attribute and buffer that differs is put into the loaded network alone, then all together.

    Args:
        loaded: Is changed.
        expected: Output tensors of ``model``.

    Returns:
        What brings the loaded network to the expected outputs; ``None`` if nothing does.
    """
    candidates = list(_differences(model, loaded))[:_MOST_TRIED]
    for candidate in candidates:
        with candidate.in_place():
            if _gives(loaded, inputs, expected):
                return candidate.name
    for candidate in candidates:
        setattr(candidate.module, candidate.attribute, candidate.value)
    if not _gives(loaded, inputs, expected):
        return None
    named = [candidate.name for candidate in candidates[:_MOST_NAMED]]
    return ", ".join(named) + (", ..." if len(candidates) > len(named) else "")


@dataclass(frozen=True)
class _Difference:
    """An attribute or buffer of a loaded network, and the value that it has in memory."""

    name: str
    module: nn.Module
    attribute: str
    value: Any

    @contextmanager
    def in_place(self) -> Iterator[None]:
        missing = object()
        before = getattr(self.module, self.attribute, missing)
        setattr(self.module, self.attribute, self.value)
        try:
            yield
        finally:
            if before is missing:
                delattr(self.module, self.attribute)
            else:
                setattr(self.module, self.attribute, before)


def _differences(model: nn.Module, loaded: nn.Module) -> Iterator[_Difference]:
    others = dict(loaded.named_modules())
    for name, module in model.named_modules():
        if name not in others:
            continue
        other = others[name]
        saved = module.state_dict()
        for attribute, value in vars(module).items():
            if attribute not in _OWN and not _same(value, vars(other).get(attribute, ...)):
                yield _Difference(attribute_of(name, module, attribute), other, attribute, value)
        for attribute, buffer in module.named_buffers(recurse=False):
            if attribute not in saved and not _same(buffer, getattr(other, attribute, ...)):
                where = f"buffer '{attribute}' (persistent=False) of {module_of(name, module)}"
                yield _Difference(where, other, attribute, buffer)


def _gives(model: nn.Module, inputs: Inputs, expected: Sequence[torch.Tensor]) -> bool:
    try:
        return relative_difference(outputs_of(model, inputs), expected) <= TOLERANCE
    except Exception:
        return False


def _same(left: Any, right: Any, depth: int = 0) -> bool:
    """Whether two values are the same, as far as can be told; what can't be looked into is."""
    if left is right or depth > _DEPTH:
        return True
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        return (
            left.shape == right.shape
            and left.dtype == right.dtype
            and torch.equal(left.nan_to_num(), right.nan_to_num())
        )
    if isinstance(left, np.ndarray):
        return left.shape == right.shape and bool(np.array_equal(left, right))
    if isinstance(left, Mapping):
        return left.keys() == right.keys() and all(_same(value, right[key], depth + 1) for key, value in left.items())
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(_same(*pair, depth + 1) for pair in zip(left, right, strict=True))
    if isinstance(left, bool | int | float | complex | str | bytes | set | frozenset):
        return bool(left == right) or (left != left and right != right)
    if isinstance(left, nn.Module):  # one that is hidden from the network's own, in a list
        return _same(left.state_dict(), right.state_dict(), depth + 1)
    if isinstance(left, type) or inspect.isroutine(left):
        return True
    return _same(_content(left), _content(right), depth + 1)


def _content(value: Any) -> Any:
    """What an object of any class holds, by the protocol that copies it; its attributes where it can't be copied."""
    try:
        _, arguments, state, items, pairs = (*value.__reduce_ex__(4), None, None, None)[:5]
        return arguments, state, list(items or ()), list(pairs or ())
    except Exception:
        return getattr(value, "__dict__", None)
