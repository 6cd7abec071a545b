"""State that modules keep beside their tensors, by ``get_extra_state`` and ``set_extra_state``, as plain values.

A file holds it as JSON, with the tensors in it beside the network's own. Nothing of it is ever run.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from autoprune.errors import SavedModelError
from autoprune.network.names import module_of

_SCALARS = (type(None), bool, int, float, str)
_TENSOR, _LIST, _TUPLE, _DICT = "tensor", "list", "tuple", "dict"
_ALLOWED = "numbers, strings, None, tensors, and lists, tuples and dicts of them"


def extra_state_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules whose class defines ``get_extra_state``, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if getattr(type(module), "get_extra_state", None) is not nn.Module.get_extra_state
    }


def encode_extra_states(model: nn.Module) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Turn the extra state of a network's modules to what a file can hold.

    Returns:
        Module name -> a JSON value, and the tensors that these name.

    Raises:
        SavedModelError: If a module's extra state holds something else, or can't be set again.
    """
    values: dict[str, Any] = {}
    tensors: dict[str, torch.Tensor] = {}
    for name, module in extra_state_modules(model).items():
        if getattr(type(module), "set_extra_state", None) is nn.Module.set_extra_state:
            raise SavedModelError(f"{module_of(name, module)} defines get_extra_state, but no set_extra_state. Add it.")
        key = f"{name}._extra_state".removeprefix(".")
        try:
            values[name] = _encoded(module.get_extra_state(), key, tensors)
        except TypeError as error:
            raise SavedModelError(
                f"get_extra_state of {module_of(name, module)} must give {_ALLOWED}, got {error}. "
                "Return it as one of these, such as float(x) or x.tolist()."
            ) from None
    return values, tensors


def decode_extra_states(values: Mapping[str, Any], tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Return module name -> what ``set_extra_state`` is to be given.

    Args:
        values: As :func:`encode_extra_states` gave them.
        tensors: Those of the file; the ones that ``values`` name are taken out.

    Raises:
        ValueError: If ``values`` are something else.
    """
    try:
        named: set[str] = set()
        states = {str(name): _decoded(value, tensors, named) for name, value in values.items()}
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its extra state can't be read: {type(error).__name__}: {error}") from error
    for name in named:
        del tensors[name]
    return states


def _encoded(value: Any, key: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Encode a value; raises TypeError with a name for what can't be."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if isinstance(value, torch.Tensor):
        if value.is_sparse or value.is_quantized:
            raise TypeError("a sparse or quantized tensor")
        name = f"{key}.{len(tensors)}"
        tensors[name] = value.detach()
        return {_TENSOR: name}
    if kind in (list, tuple):
        return {_LIST if kind is list else _TUPLE: [_encoded(item, key, tensors) for item in value]}
    if kind in (dict, OrderedDict):
        wrong = next((each for each in value if type(each) not in _SCALARS), None)
        if wrong is not None:
            raise TypeError(f"a key of type {type(wrong).__name__}")
        return {_DICT: [[each, _encoded(item, key, tensors)] for each, item in value.items()]}
    raise TypeError(f"a value of type {kind.__name__}")


def _decoded(value: Any, tensors: Mapping[str, torch.Tensor], named: set[str]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == _TENSOR:
        named.add(content)
        return tensors[content]
    if kind == _DICT:
        return {key: _decoded(item, tensors, named) for key, item in content}
    items = [_decoded(item, tensors, named) for item in content]
    if kind not in (_LIST, _TUPLE):
        raise TypeError(f"unknown kind '{kind}'")
    return tuple(items) if kind == _TUPLE else items
