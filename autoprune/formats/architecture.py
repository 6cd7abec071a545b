"""How a pruned network differs from the dense one: found, applied to a new dense network, and kept as plain values."""

import copy
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, TypeGuard

import torch
from pydantic import Field, TypeAdapter
from torch import nn

from autoprune.config.task import CallableRef
from autoprune.errors import SavedModelError
from autoprune.pruning.blocks.removed import RemovedBlock, remove_blocks
from autoprune.pruning.graph.attributes import refresh, set_own
from autoprune.pruning.plan import Block, Passthrough


@dataclass(frozen=True)
class Architecture:
    """How a pruned network differs from the dense one; plain, and turned to JSON and back without loss.

    Attributes:
        model: The callable that builds the dense network: ``{"callable": "module:name", "args": {...}}``.
        removed_blocks: Blocks that are no longer there.
        modules: Module name -> attribute -> value, for the whole numbers (and lists of them) that differ, such as
            ``out_channels``, or ``config.num_attention_heads`` of a config that the module then has for itself.
        shapes: Parameter or buffer name -> shape, for those that differ.
        passthrough: Removed block -> what comes out in its place (``autoprune.pruning.Block``), for those that
            return another than their first argument, or a tuple.
    """

    model: Mapping[str, Any]
    removed_blocks: Sequence[str]
    modules: Mapping[str, Mapping[str, int | list[int]]]
    shapes: Mapping[str, list[int]]
    passthrough: Annotated[Mapping[str, Passthrough], Field(alias="gives")] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Turn it to plain values, under the names that ``architecture.json`` has."""
        record = asdict(self)
        record["gives"] = record.pop("passthrough")
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Architecture":
        """Make it from what :meth:`to_dict` gave; raises ``pydantic.ValidationError`` if the record is not that."""
        return _ADAPTER.validate_python(record)


_ADAPTER = TypeAdapter(Architecture)


def architecture_diff(dense: nn.Module, pruned: nn.Module, model_ref: CallableRef) -> Architecture:
    """Find how a pruned network differs from the dense one.

    Args:
        dense: As the callable builds it.
    """
    dense_modules, pruned_modules = dict(dense.named_modules()), dict(pruned.named_modules())
    removed = {name: module.passthrough for name, module in pruned_modules.items() if isinstance(module, RemovedBlock)}
    dense_shapes = {name: tensor.shape for name, tensor in named_tensors(dense).items()}
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
            for name, tensor in named_tensors(pruned).items()
            if tensor.shape != dense_shapes.get(name, tensor.shape)
        },
        passthrough={name: passthrough for name, passthrough in removed.items() if passthrough != 0},
    )


def apply_architecture(dense: nn.Module, architecture: Architecture) -> nn.Module:
    """Give a freshly built dense network the pruned one's structure, in place.

    Parameters and buffers of another shape are left unfilled; all keep dtype and device, and tied ones stay tied.

    Raises:
        SavedModelError: If the network has no such module or tensor, so is not the one that was saved.
    """
    for block in architecture.removed_blocks:
        if block not in dict(dense.named_modules()):
            raise other_network(architecture, f"it has no module '{block}'")
    remove_blocks(
        dense, (Block(name, gives=architecture.passthrough.get(name, 0)) for name in architecture.removed_blocks)
    )
    _reshape(dense, architecture)
    for module in dense.modules():
        refresh(module)
    modules = dict(dense.named_modules())
    for name, sizes in architecture.modules.items():
        if name not in modules:
            raise other_network(architecture, f"it has no module '{name}'")
        for attribute, value in sizes.items():
            try:
                kind: Any = type(operator.attrgetter(attribute)(modules[name]))
            except AttributeError as error:
                raise other_network(architecture, f"'{name}' has no attribute '{attribute}'") from error
            set_own(modules[name], attribute, kind(value))
    return dense


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return every parameter and buffer by name, tied ones under each of their names."""
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
    tensors = named_tensors(model)
    made: dict[int, torch.Tensor] = {}
    for name, shape in architecture.shapes.items():
        if name not in tensors:
            raise other_network(architecture, f"it has no parameter or buffer '{name}'")
        old = tensors[name]
        if id(old) not in made:
            new = torch.empty(shape, dtype=old.dtype, device=old.device)
            made[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, made[id(old)])


def other_network(architecture: Architecture, problem: str) -> SavedModelError:
    """Return the error for a dense network that the architecture does not fit."""
    return SavedModelError(
        f"the network that {architecture.model['callable']} builds now is not the one that was saved: {problem}. "
        f"Restore its code and arguments as they were then."
    )
