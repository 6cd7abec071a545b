"""What a network returns: a tensor, tensors in tuples, lists and dicts, or an object that has them as attributes."""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._pytree import tree_is_leaf, tree_map

from autoprune.errors import TaskError


def map_outputs(
    function: Callable[[torch.Tensor], torch.Tensor], outputs: Any, other: Callable[[Any], Any] = lambda leaf: leaf
) -> Any:
    """Apply a function to every tensor in a network's outputs.

    Looked into are the containers that torch knows, mappings, dataclasses and ``SimpleNamespace`` at any depth, and any
    other object with attributes if it is the whole of the outputs. All keep their type but mappings that torch doesn't
    know, which become dicts.

    Args:
        other: Applied to what can't be looked into, such as a language model's cache.
    """
    return _walk([outputs], function, other, _rebuilt)


def join_outputs(outputs: Sequence[Any]) -> Any:
    """Join a network's outputs for one or more batches along the batch dimension, the first one.

    Raises:
        TaskError: If the outputs of the batches don't have the same shape for every example.
    """
    return _walk(outputs, _join, lambda first: first, _rebuilt)


def plain_outputs(outputs: Any) -> Any:
    """Reduce a network's outputs to plain containers, without what can't be looked into: see :func:`map_outputs`.

    Returns:
        Tuples, lists and dicts of tensors, numbers and ``None``; the attributes of an object are a dict.
    """
    return _walk([outputs], lambda tensor: tensor, lambda _: None, lambda _, parts: parts)


def _walk(
    outputs: Sequence[Any],
    of_tensors: Callable[..., Any],
    of_other: Callable[[Any], Any],
    rebuild: Callable[[Any, dict[Any, Any]], Any],
    *,
    whole: bool = True,
) -> Any:
    """Go through the outputs of one or more batches together; what is no tensor is taken from the first.

    Args:
        of_tensors: Gets the tensors of all batches in one place.
        of_other: Gets what can't be looked into.
        rebuild: Gets an object that torch doesn't look into, and what has become of its parts.
        whole: Whether these are all of the outputs, not a part.
    """
    whole = whole and tree_is_leaf(outputs[0])

    def visit(first: Any, *rest: Any) -> Any:
        if isinstance(first, torch.Tensor):
            return of_tensors(first, *rest)
        if first is None or isinstance(first, bool | int | float | str):
            return first
        parts = [_parts(each, whole=whole) for each in (first, *rest)]
        if parts[0] is None:
            return of_other(first)
        walked = {
            name: _walk([each[name] for each in parts if each], of_tensors, of_other, rebuild, whole=False)
            for name in parts[0]
        }
        return rebuild(first, walked)

    return tree_map(visit, *outputs)


def _parts(leaf: Any, *, whole: bool) -> dict[Any, Any] | None:
    """Return the parts of an object that torch doesn't look into, by name; ``None`` where we don't either."""
    if isinstance(leaf, Mapping):
        return dict(leaf)
    if dataclasses.is_dataclass(leaf):
        return {field.name: getattr(leaf, field.name) for field in dataclasses.fields(leaf)}
    if isinstance(leaf, SimpleNamespace) or (whole and hasattr(leaf, "__dict__")):
        return dict(vars(leaf))
    return None


def _rebuilt(leaf: Any, parts: dict[Any, Any]) -> Any:
    if isinstance(leaf, Mapping):
        return parts
    changed = copy.copy(leaf)
    for name, part in parts.items():
        object.__setattr__(changed, name, part)  # a dataclass may be frozen
    return changed


def _join(first: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
    """Concatenate one output over the batches; what has no batch dimension stays as the first batch gave it."""
    if first.dim() == 0:
        return first
    try:
        return torch.cat([first, *rest])
    except RuntimeError as error:
        raise TaskError(
            f"task.model: outputs must have the same shape for every example of a split, got {error} "
            "Pad the inputs of a split to one length."
        ) from error
