"""A network on disk without pickle: ``model.safetensors`` holds its tensors, ``architecture.json`` how it is built.

The architecture names the callable that builds the dense network and lists in what the pruned one differs from it.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import nn

from autoprune.config.task import CallableRef
from autoprune.errors import SavedModelError, TaskError
from autoprune.files import replacing
from autoprune.formats.architecture import Architecture, apply_architecture, named_tensors, other_network
from autoprune.formats.extra_state import decode_extra_states, encode_extra_states, extra_state_modules
from autoprune.formats.save_pretrained import guard_save_pretrained
from autoprune.formats.tensor_file import encode_tensors, read_tensors
from autoprune.network.modes import train_mode
from autoprune.tasks.build import model_builder

WEIGHTS_FILE = "model.safetensors"
ARCHITECTURE_FILE = "architecture.json"
FORMAT_VERSION = 1


def save_model(folder: Path, model: nn.Module, architecture: Architecture, *, pack_zeros: bool = True) -> int:
    """Write a network to a folder, made if need be; each file appears whole or not at all, ``architecture.json`` last.

    Args:
        architecture: What ``architecture_diff`` found for this network.
        pack_zeros: Whether tensors with many zeros may be stored compactly, in a form that only autoprune reads.

    Returns:
        Size of ``model.safetensors`` in bytes.

    Raises:
        SavedModelError: If the extra state of a module, or the state dict, holds what a file can't.
    """
    with train_mode(model):  # one that merges weights for evaluation is loaded unmerged
        state, own = _plain_state(model), named_tensors(model)
        # Buffers outside the state dict are built anew, but not in a pruned shape.
        stored = {name: tensor for name, tensor in own.items() if name in state or name in architecture.shapes}
        values, extra = encode_extra_states(model)
        rest = {name: tensor for name, tensor in state.items() if name not in own}  # a module's own way to save itself
        content = encode_tensors(stored | rest | extra, pack_zeros=pack_zeros, values=values)
    record = {
        "format_version": FORMAT_VERSION,
        **architecture.to_dict(),
        "weights_sha256": hashlib.sha256(content).hexdigest(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS_FILE) as file:
        file.write(content)
    with replacing(folder / ARCHITECTURE_FILE) as file:
        file.write(json.dumps(record, indent=1).encode())
    return len(content)


def load_model(folder: Path, build_model: Callable[[], nn.Module]) -> nn.Module:
    """Read a network from a folder, bit for bit as it was saved, on the CPU and in training mode.

    Args:
        build_model: Builds the dense network.

    Raises:
        SavedModelError: If a file is missing or damaged, or the dense network is another one.
    """
    architecture, sha256 = _read_architecture(folder)
    model = apply_architecture(build_model(), architecture)
    try:
        tensors, values = read_tensors(folder / WEIGHTS_FILE, sha256)
        states = decode_extra_states(values, tensors)
    except ValueError as error:
        raise SavedModelError(f"{folder / WEIGHTS_FILE} can't be used: {error}.") from error
    own, stateful = named_tensors(model), extra_state_modules(model)
    rest = {name: tensor for name, tensor in tensors.items() if name not in own}
    misfits = {name for name, tensor in tensors.items() if name in own and own[name].shape != tensor.shape}
    misfits |= _plain_state(model).keys() - tensors.keys()
    if rest and not misfits:
        try:
            misfits = rest.keys() & set(model.load_state_dict(tensors, strict=False).unexpected_keys)
        except RuntimeError as error:
            raise other_network(architecture, f"{error}") from error
    if misfits:
        raise other_network(architecture, f"{len(misfits)} tensors don't fit, the first one '{min(misfits)}'")
    if states.keys() != stateful.keys():
        name = min(states.keys() ^ stateful.keys())
        raise other_network(architecture, f"only one of both has extra state in module '{name}'")
    with torch.no_grad():
        for name in tensors.keys() - rest.keys():
            own[name].data = own[name].data.to(tensors[name].dtype)
            own[name].copy_(tensors[name])
    for name, state in states.items():
        stateful[name].set_extra_state(state)
    return model


def _plain_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a network's state dict without the extra state of its modules; raises SavedModelError if it can't be."""
    extra = {f"{name}._extra_state".removeprefix(".") for name in extra_state_modules(model)}
    state = {name: value for name, value in model.state_dict().items() if name not in extra}
    wrong = next((name for name, value in state.items() if not isinstance(value, torch.Tensor)), None)
    if wrong is not None:
        raise SavedModelError(
            f"the state dict of {type(model).__name__} must hold tensors, got a {type(state[wrong]).__name__} under "
            f"'{wrong}'. Save it as a tensor, or by get_extra_state and set_extra_state."
        )
    return state


def load(folder: Path | str, base_dir: Path | str | None = None) -> nn.Module:
    """Read a network from a folder that ``autoprune export`` or a study wrote.

    Args:
        folder: Holds ``model.safetensors`` and ``architecture.json``.
        base_dir: Where the module that builds the dense network is looked for before the Python path; ``None`` is the
            current directory.

    Returns:
        The network on the CPU, in evaluation mode. ``save_pretrained`` of a transformers model raises ExportError where
        the config can't express what was pruned.

    Raises:
        SavedModelError: If a file is missing or damaged.
        TaskError: If the callable that builds the dense network can't be imported or raises.
    """
    reference = CallableRef.model_validate(read_architecture(Path(folder)).model)
    try:
        build_model = model_builder(reference, Path(base_dir or Path.cwd()))
    except TaskError as error:
        module = reference.callable.partition(":")[0]
        cause = error.__cause__
        if not isinstance(cause, ModuleNotFoundError) or cause.name not in (module, module.partition(".")[0]):
            raise  # it is there, but imports what is not
        raise TaskError(
            f'{error} Name the folder that {module} is in: autoprune.load("{folder}", base_dir="folder of the module").'
        ) from error
    model = load_model(Path(folder), build_model).eval()
    guard_save_pretrained(model, read_architecture(Path(folder)))
    return model


def read_architecture(folder: Path) -> Architecture:
    """Read how the network in a folder is built.

    Raises:
        SavedModelError: If ``architecture.json`` is missing or damaged.
    """
    return _read_architecture(folder)[0]


def _read_architecture(folder: Path) -> tuple[Architecture, str]:
    """Read ``architecture.json``: what it says of the network, and the SHA-256 of the file of its tensors."""
    path = folder / ARCHITECTURE_FILE
    try:
        record = json.loads(path.read_bytes())
        version = record.pop("format_version")
        if version != FORMAT_VERSION:
            raise ValueError(f"format_version must be {FORMAT_VERSION}, got {version}")
        sha256 = str(record.pop("weights_sha256"))
        architecture = Architecture.from_dict(record)
        CallableRef.model_validate(architecture.model)
    except FileNotFoundError as error:
        raise SavedModelError(f"no saved network in {folder}: {ARCHITECTURE_FILE} is missing.") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise SavedModelError(
            f"{path} describes no network saved by autoprune: {'.'.join(map(str, first['loc']))}: {first['msg']}."
        ) from error
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise SavedModelError(f"{path} describes no network saved by autoprune: {error}.") from error
    return architecture, sha256
