"""Reading a dense network's weights from a file."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from autoprune.config.paths import expand
from autoprune.errors import TaskError

N_NAMES_SHOWN = 3
_EXTRA_STATE = "_extra_state"
"""End of the names under which a state dict holds what ``get_extra_state`` of a module gives."""


def load_weights(model: nn.Module, path: Path | str) -> None:
    """Load weights into a network, in place.

    Args:
        path: A ``.safetensors``, ``.pt`` or ``.pth`` file with tensors by name, or one whose key ``state_dict`` holds
            them. Environment variables in it (``${NAME}``) are expanded. Pickled code is never run.

    Raises:
        TaskError: If the file is missing or unreadable, or its tensors are not exactly those of the network.
    """
    path = expand(path)
    stored = _read(path)
    expected = model.state_dict()
    mis_shaped = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
        for name, tensor in stored.items()
        if name in expected and not name.endswith(_EXTRA_STATE) and tensor.shape != expected[name].shape
    ]
    missing = [name for name in expected if name not in stored and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in stored if name not in expected]
    problems = [
        f"{len(names)} {kind} ({', '.join(names[:N_NAMES_SHOWN])}{', ...' if len(names) > N_NAMES_SHOWN else ''})"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", mis_shaped))
        if names
    ]
    if problems:
        raise TaskError(
            f"task.weights: {path} doesn't fit the model: {'; '.join(problems)}. It must hold the {len(expected)} "
            f"tensors of the model that task.model builds."
        )
    model.load_state_dict(stored, strict=False)


def _read(path: Path) -> dict[str, Any]:
    if path.suffix not in (".safetensors", ".pt", ".pth"):
        raise TaskError(f"task.weights must be a .safetensors, .pt or .pth file, got {path}.")
    if not path.is_file():
        raise TaskError(f"task.weights: no file {path}.")
    try:
        content: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except pickle.UnpicklingError as error:
        raise TaskError(
            f"task.weights: {path} holds more than tensors, or is damaged. Save model.state_dict() and name that file."
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise TaskError(f"task.weights: {path} can't be read: {error}") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(
        isinstance(value, torch.Tensor) or str(name).endswith(_EXTRA_STATE) for name, value in content.items()
    ):
        raise TaskError(f"task.weights: {path} must hold tensors by name, as model.state_dict() gives them.")
    return dict(content)
