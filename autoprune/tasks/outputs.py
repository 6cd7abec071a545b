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
    return _map(function, outputs, other, whole=True)


def _map(
    function: Callable[[torch.Tensor], torch.Tensor], outputs: Any, other: Callable[[Any], Any], *, whole: bool
) -> Any:
    def visit(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return function(leaf)
        if _is_plain(leaf):
            return leaf
        parts = _parts(leaf, whole=whole and leaf is outputs)
        if parts is None:
            return other(leaf)
        return _rebuilt(leaf, {name: _map(function, part, other, whole=False) for name, part in parts.items()})

    return visit(outputs) if tree_is_leaf(outputs) else tree_map(visit, outputs)


def join_outputs(outputs: Sequence[Any]) -> Any:
    """Join a network's outputs for one or more batches along the batch dimension, the first one.

    Raises:
        TaskError: If the outputs of the batches don't have the same shape for every example.
    """
    return _join_all(outputs, whole=True)


def _join_all(outputs: Sequence[Any], *, whole: bool) -> Any:
    def visit(first: Any, *rest: Any) -> Any:
        if isinstance(first, torch.Tensor) or _is_plain(first):
            return _join(first, *rest)
        parts = [_parts(leaf, whole=whole and first is outputs[0]) for leaf in (first, *rest)]
        if parts[0] is None:
            return first
        return _rebuilt(
            first, {name: _join_all([each[name] for each in parts if each], whole=False) for name in parts[0]}
        )

    return visit(*outputs) if tree_is_leaf(outputs[0]) else tree_map(visit, *outputs)


def plain_outputs(outputs: Any) -> Any:
    """A network's outputs without what can't be looked into: see :func:`map_outputs`.

    Returns:
        Tuples, lists and dicts of tensors, numbers and ``None``; the attributes of an object are a dict.
    """
    return _plain(outputs, whole=True)


def _plain(outputs: Any, *, whole: bool) -> Any:
    def visit(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor) or _is_plain(leaf):
            return leaf
        parts = _parts(leaf, whole=whole and leaf is outputs)
        return None if parts is None else {name: _plain(part, whole=False) for name, part in parts.items()}

    return visit(outputs) if tree_is_leaf(outputs) else tree_map(visit, outputs)


def _is_plain(leaf: Any) -> bool:
    return leaf is None or isinstance(leaf, bool | int | float | str)


def _parts(leaf: Any, *, whole: bool) -> dict[Any, Any] | None:
    """What is in an object that torch doesn't look into, by name; ``None`` where we don't either."""
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


def _join(first: Any, *rest: Any) -> Any:
    """Concatenate one output over the batches; what has no batch dimension stays as the first batch gave it."""
    if not isinstance(first, torch.Tensor) or first.dim() == 0:
        return first
    try:
        return torch.cat([first, *rest])
    except RuntimeError as error:
        raise TaskError(
            f"task.model: outputs must have the same shape for every example of a split, got {error} "
            "Pad the inputs of a split to one length."
        ) from error
