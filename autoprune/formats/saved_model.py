"""A network on disk without pickle: ``model.safetensors`` holds its tensors, ``architecture.json`` how it is built.

The architecture names the callable that builds the dense network and lists in what the pruned one differs from it.
"""

import copy
import hashlib
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from autoprune.config.task import CallableRef
from autoprune.errors import AutopruneError, TaskError
from autoprune.files import replacing
from autoprune.formats.tensor_file import encode_tensors, read_tensors
from autoprune.pruning.blocks.removed import RemovedBlock, remove_blocks
from autoprune.pruning.graph.attributes import refresh, set_own
from autoprune.pruning.plan import Block, Passthrough
from autoprune.tasks.build import model_builder

WEIGHTS_FILE = "model.safetensors"
ARCHITECTURE_FILE = "architecture.json"
FORMAT_VERSION = 1


class SavedModelError(AutopruneError):
    """A saved network is missing, damaged, or of another kind."""


@dataclass(frozen=True)
class Architecture:
    """How a pruned network differs from the dense one; plain, and turned to JSON and back without loss.

    Attributes:
        model: The callable that builds the dense network: ``{"callable": "module:name", "args": {...}}``.
        removed_blocks: Blocks that are no longer there.
        modules: Module name -> attribute -> value, for the whole numbers (and lists of them) that differ, such as
            ``out_channels``, or ``config.num_attention_heads`` of a config that the module then has for itself.
        shapes: Parameter or buffer name -> shape, for those that differ.
        gives: Removed block -> what comes out in its place (``autoprune.pruning.Block``), for those that give back
            another than their first argument, or a tuple.
    """

    model: Mapping[str, Any]
    removed_blocks: Sequence[str]
    modules: Mapping[str, Mapping[str, int | list[int]]]
    shapes: Mapping[str, list[int]]
    gives: Mapping[str, Passthrough] = field(default_factory=dict)


_ADAPTER = TypeAdapter(Architecture)


def describe(dense: nn.Module, pruned: nn.Module, model_ref: CallableRef) -> Architecture:
    """Find in what a pruned network differs from the dense one.

    Args:
        dense: As the callable builds it.
    """
    dense_modules, pruned_modules = dict(dense.named_modules()), dict(pruned.named_modules())
    removed = {name: module.passthrough for name, module in pruned_modules.items() if isinstance(module, RemovedBlock)}
    dense_shapes = {name: tensor.shape for name, tensor in _tensors(dense).items()}
    return Architecture(
        model={"callable": model_ref.callable, "args": copy.deepcopy(dict(model_ref.args))},
        removed_blocks=list(removed),
        modules={
            name: sizes
            for name, module in pruned_modules.items()
            if name in dense_modules and (sizes := _changed_sizes(dense_modules[name], module))
        },
        shapes={
            name: list(tensor.shape)
            for name, tensor in _tensors(pruned).items()
            if tensor.shape != dense_shapes.get(name, tensor.shape)
        },
        gives={name: gives for name, gives in removed.items() if gives != 0},
    )


def rebuild(dense: nn.Module, architecture: Architecture) -> nn.Module:
    """Give a freshly built dense network the pruned one's structure, in place.

    Parameters and buffers of another shape are left unfilled; all keep dtype and device, and tied ones stay tied.

    Raises:
        SavedModelError: If the network has no such module or tensor, so is not the one that was saved.
    """
    for block in architecture.removed_blocks:
        if block not in dict(dense.named_modules()):
            raise _other_network(architecture, f"it has no module '{block}'")
    remove_blocks(dense, (Block(name, gives=architecture.gives.get(name, 0)) for name in architecture.removed_blocks))
    _reshape(dense, architecture)
    for module in dense.modules():
        refresh(module)
    modules = dict(dense.named_modules())
    for name, sizes in architecture.modules.items():
        if name not in modules:
            raise _other_network(architecture, f"it has no module '{name}'")
        for attribute, value in sizes.items():
            try:
                kind: Any = type(operator.attrgetter(attribute)(modules[name]))
            except AttributeError as error:
                raise _other_network(architecture, f"'{name}' has no attribute '{attribute}'") from error
            set_own(modules[name], attribute, kind(value))
    return dense


def save_model(folder: Path, model: nn.Module, architecture: Architecture, *, pack_zeros: bool = True) -> int:
    """Write a network to a folder, made if need be; each file appears whole or not at all, ``architecture.json`` last.

    Args:
        architecture: What ``describe`` says of this network.
        pack_zeros: Whether tensors with many zeros may be stored compactly, in a form that only autoprune reads.

    Returns:
        Size of ``model.safetensors`` in bytes.
    """
    state = model.state_dict()
    # Buffers outside the state dict are built anew, but not in a pruned shape.
    stored = {name: tensor for name, tensor in _tensors(model).items() if name in state or name in architecture.shapes}
    content = encode_tensors(stored, pack_zeros=pack_zeros)
    record = {
        "format_version": FORMAT_VERSION,
        **asdict(architecture),
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
    model = rebuild(build_model(), architecture)
    try:
        tensors = read_tensors(folder / WEIGHTS_FILE, sha256)
    except ValueError as error:
        raise SavedModelError(f"{folder / WEIGHTS_FILE} can't be used: {error}.") from error
    own = _tensors(model)
    misfits = sorted(
        {name for name, tensor in tensors.items() if name not in own or own[name].shape != tensor.shape}
        | (model.state_dict().keys() - tensors.keys())
    )
    if misfits:
        raise _other_network(architecture, f"{len(misfits)} tensors don't fit, the first one '{misfits[0]}'")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].data = own[name].data.to(tensor.dtype)
            own[name].copy_(tensor)
    return model


def load(folder: Path | str, base_dir: Path | str | None = None) -> nn.Module:
    """Read a network from a folder that ``autoprune export`` or a study wrote.

    Args:
        folder: Holds ``model.safetensors`` and ``architecture.json``.
        base_dir: Where the module that builds the dense network is looked for before the Python path; ``None`` is the
            current directory.

    Returns:
        The network on the CPU, in evaluation mode.

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
    return load_model(Path(folder), build_model).eval()


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
        architecture = _ADAPTER.validate_python(record)
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


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer by name, tied ones under each of their names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _changed_sizes(dense: nn.Module, pruned: nn.Module) -> dict[str, int | list[int]]:
    changed: dict[str, int | list[int]] = {}
    configs: Any = [getattr(getattr(module, "config", None), "__dict__", {}) for module in (dense, pruned)]
    for name, value in configs[1].items():
        if name.endswith("heads") and isinstance(value, int) and value != configs[0].get(name, value):
            changed[f"config.{name}"] = value
    for attribute, value in vars(pruned).items():
        if attribute == "training" or attribute.startswith("_"):
            continue
        before: Any = vars(dense).get(attribute)
        if isinstance(value, int) and isinstance(before, int) and value != before:
            changed[attribute] = value
        elif _is_integers(value) and _is_integers(before) and tuple(value) != tuple(before):
            changed[attribute] = list(value)
    return changed


def _is_integers(value: Any) -> TypeGuard[Sequence[int]]:
    return isinstance(value, tuple | list) and all(isinstance(item, int) for item in value)


def _reshape(model: nn.Module, architecture: Architecture) -> None:
    """Put unfilled tensors of the pruned shapes in place of the dense ones."""
    tensors = _tensors(model)
    made: dict[int, torch.Tensor] = {}
    for name, shape in architecture.shapes.items():
        if name not in tensors:
            raise _other_network(architecture, f"it has no parameter or buffer '{name}'")
        old = tensors[name]
        if id(old) not in made:
            new = torch.empty(shape, dtype=old.dtype, device=old.device)
            made[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, made[id(old)])


def _other_network(architecture: Architecture, problem: str) -> SavedModelError:
    return SavedModelError(
        f"the network that {architecture.model['callable']} builds now is not the one that was saved: {problem}. "
        f"Restore its code and arguments as they were then."
    )
