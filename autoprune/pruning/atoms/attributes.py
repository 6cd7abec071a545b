"""The sizes that a network's code states: attributes of its modules that hold a width or count heads follow a cut."""

import copy
import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import is_parametrized

from autoprune.pruning.atoms.analysis import Analysis, CountedSize
from autoprune.pruning.atoms.attention import follow_heads, is_known
from autoprune.pruning.atoms.flow import SLICES, SizeKind
from autoprune.tasks.modes import eval_mode

_COUNTS = re.compile(r"(^|_)(n|num|number)_|heads?$|groups?$")
_PARTS = re.compile(
    r"(?<!all_)head_?(dim|size|width|features|channels)|(dim|size|channels)_?(per|of)_?(head|group)|^d_(kv|head|k|v)$"
)
_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
_NEVER = re.compile(
    r"window|shift|kernel|stride|pad|dilat|patch|image|layer|depth|idx|index|block|pos|max_|min_|bucket|dropout|prob"
    r"|batch|step|scale|factor|token|length|seq|vocab|label|class|^dim$|^training$|version"
)


def follow_sizes(model: nn.Module, analysis: Analysis, gone: Mapping[str, set[int]]) -> None:
    """Set the attributes whose values changed with a cut."""
    modules = dict(model.named_modules())
    changes = [(size, size.after(gone)) for size in analysis.sizes]
    changed = [(size, after) for size, after in changes if after != size.size]
    slicing = {
        key[0].removeprefix(SLICES) for key, taken in analysis.choices.items() if key[0].startswith(SLICES) and taken
    }
    for size, after in sorted(changed, key=lambda change: change[0].kind):
        _follow(modules, size, after, slicing)
    for module in modules.values():
        refresh(module)


def _follow(modules: Mapping[str, nn.Module], size: CountedSize, after: int, slicing: Collection[str]) -> None:
    """Set the attributes that hold this size, in the module whose code states it or else in the one around it.

    Args:
        slicing: Classes whose modules slice at places that follow from sizes; these may stand in their config.
    """
    name = size.module
    if name not in modules:
        return  # it went with a removed block
    if size.kind == "count" and type(modules[name]).__name__ in slicing:
        _set_in_config(modules[name], size.size, after)
    while True:
        module = modules.get(name)
        if module is not None and _set_equal(module, size, after):
            return
        if not name:
            return
        name = name.rpartition(".")[0]


def _set_equal(module: nn.Module, size: CountedSize, after: int) -> bool:
    if isinstance(module, _ConvNd):
        if size.kind == "count" and module.groups == size.size:
            module.groups = after
        return True
    if isinstance(module, nn.GroupNorm):
        if size.kind == "count" and module.num_groups == size.size:
            module.num_groups = after
        return True
    if is_known(module):
        return True
    found = False
    originals = module.__dict__.setdefault("_atoms_sizes", {})
    for attribute, value in list(vars(module).items()):
        value = originals.get(attribute, value)
        if attribute.startswith("_") or type(value) is not int or value != size.size:
            continue
        if size.kind != "padding" and (_NEVER.search(attribute) or _kind_of(attribute) != size.kind):
            continue
        originals[attribute] = value
        setattr(module, attribute, after)
        found = True
    return found


def _set_in_config(module: nn.Module, size: int, after: int) -> None:
    """Set the numbers of heads in a module's config, which becomes its own: others share it."""
    originals = module.__dict__.setdefault("_atoms_sizes", {})
    for attribute, value in list(getattr(getattr(module, "config", None), "__dict__", {}).items()):
        key = f"config.{attribute}"
        if attribute.endswith("heads") and type(value) is int and originals.get(key, value) == size:
            originals[key] = size
            set_own(module, key, after)


def set_own(module: nn.Module, attribute: str, value: object) -> None:
    """Set an attribute of a module, or as ``config.name`` one of a config that it does not share from then on."""
    owner, _, name = attribute.rpartition(".")
    if owner:
        setattr(module, owner, copy.copy(getattr(module, owner)))
    setattr(getattr(module, owner) if owner else module, name, value)


def _kind_of(attribute: str) -> SizeKind:
    if _PARTS.search(attribute):
        return "part"
    return "count" if _COUNTS.search(attribute) else "width"


def refresh(module: nn.Module) -> None:
    """Attributes of torch's own layers follow from the shapes of their tensors."""
    module.__dict__.pop("_atoms_sizes", None)
    weight = _weight_of(module)
    if isinstance(module, _ConvTransposeNd) and weight is not None:
        module.in_channels, module.out_channels = weight.shape[0], int(weight.shape[1]) * module.groups
    elif isinstance(module, _ConvNd) and weight is not None:
        module.out_channels, module.in_channels = weight.shape[0], weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear) and weight is not None:
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.Bilinear) and weight is not None:
        module.out_features, module.in1_features, module.in2_features = weight.shape
    elif isinstance(module, _NormBase):
        tensor = weight if weight is not None else module.running_mean
        if tensor is not None:
            module.num_features = tensor.shape[0]
    elif isinstance(module, nn.GroupNorm) and weight is not None:
        module.num_channels = weight.shape[0]
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm) and weight is not None:
        module.normalized_shape = tuple(weight.shape)
    elif isinstance(module, nn.Embedding | nn.EmbeddingBag) and weight is not None:
        module.num_embeddings, module.embedding_dim = weight.shape
    elif is_known(module):
        follow_heads(module)
    elif isinstance(module, nn.RNNBase):
        _refresh_recurrent(module)
    elif isinstance(module, nn.PReLU) and weight is not None:
        module.num_parameters = weight.shape[0]
    elif type(module).__name__ == "Conv1D" and weight is not None and hasattr(module, "nf"):
        module.nf = weight.shape[1]
        if hasattr(module, "nx"):
            module.nx = weight.shape[0]


def _weight_of(module: nn.Module) -> Any:
    """A module's weight, or a tensor of its shape that the weight is computed from."""
    for name in ("weight_v", "weight_orig"):  # of weight_norm; of spectral_norm and torch.nn.utils.prune
        if name in module._parameters:
            return module._parameters[name]
    if not is_parametrized(module, "weight"):
        return getattr(module, "weight", None)
    with eval_mode(module):  # a spectral norm that is looked at in training goes on iterating
        return module.weight


def _refresh_recurrent(module: nn.RNNBase) -> None:
    shapes = {name: parameter.shape for name, parameter in module.named_parameters(recurse=False)}
    module.hidden_size = shapes["weight_hh_l0"][0] // _GATES[module.mode]
    module.input_size = shapes["weight_ih_l0"][1]
    if module.proj_size:
        module.proj_size = shapes["weight_hr_l0"][0]
    module._init_flat_weights()
