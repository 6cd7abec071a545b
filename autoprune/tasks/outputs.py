"""What a network returns: a tensor, tensors in tuples, lists and dicts, or an object that has them as attributes."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_is_leaf, tree_map, tree_map_only

from autoprune.errors import TaskError


def map_outputs(function: Callable[[torch.Tensor], torch.Tensor], outputs: Any) -> Any:
    """Apply a function to every tensor in a network's outputs; they keep their type."""
    if _is_object(outputs):
        return _with_attributes(outputs, map_outputs(function, vars(outputs)))
    return tree_map_only(torch.Tensor, function, outputs)


def join_outputs(outputs: Sequence[Any]) -> Any:
    """Join a network's outputs for one or more batches along the batch dimension, the first one; they keep their type.

    Raises:
        TaskError: If the outputs of the batches don't have the same shape for every example.
    """
    if _is_object(outputs[0]):
        return _with_attributes(outputs[0], join_outputs([vars(each) for each in outputs]))
    return tree_map(_join, *outputs)


def plain_outputs(outputs: Any) -> Any:
    """A network's outputs without what torch can't look into, such as a language model's cache.

    Returns:
        Tuples, lists and dicts of tensors, numbers and ``None``; the attributes of an object are a dict.
    """
    outputs = dict(vars(outputs)) if _is_object(outputs) else outputs
    return tree_map(lambda leaf: leaf if isinstance(leaf, torch.Tensor | bool | int | float | str) else None, outputs)


def _is_object(outputs: Any) -> bool:
    """Whether torch doesn't look into it, and it has attributes, as a dataclass has."""
    return not isinstance(outputs, torch.Tensor) and tree_is_leaf(outputs) and hasattr(outputs, "__dict__")


def _with_attributes(outputs: Any, attributes: dict[str, Any]) -> Any:
    changed = copy.copy(outputs)
    vars(changed).update(attributes)
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
