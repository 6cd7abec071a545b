"""The sizes that a network's code states: attributes of its modules that hold a width or count heads follow pruning."""

import copy
import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import is_parametrized

from autoprune.network.modes import eval_mode
from autoprune.pruning.graph.attention import follow_heads, is_known
from autoprune.pruning.graph.dependency_graph import SizeKind
from autoprune.pruning.graph.sizes import CountedSize, Places

_COUNTS = re.compile(r"(^|_)(n|num|number)_|heads?$|groups?$")
_NUMBERED_WIDTHS = re.compile(
    r"(^|_)(n|num|number)_(\w+_)?(hid|embd?|embed|feat|chan|filter|unit|neuron|inner|inter|dim|plane|map|ch$|inputs?$)"
)
_COUNT_OR_WIDTH = re.compile(r"^n?h$")
_PARTS = re.compile(
    r"(?<!all_)head_?(dim|size|width|features|channels)|(dim|size|channels)_?(per|of)_?(head|group)|^d_(kv|head|k|v)$"
)
_OWN_SIZES = _ConvNd | nn.Linear | nn.Bilinear | _NormBase | nn.GroupNorm | nn.LayerNorm | nn.RMSNorm | nn.Embedding
_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
_NEVER = re.compile(
    r"window|shift|kernel|stride|pad|dilat|patch|image|layer|depth|idx|index|block|pos|max_|min_|bucket|dropout|prob"
    r"|batch|step|scale|factor|token|length|seq|vocab|label|class|^dim$|^training$|version"
)


Coincidence = tuple[str, str, str]
"""(group, module, attribute): the attribute has the value of a size that counts the group's channels by chance."""


def with_holders(
    model: nn.Module,
    sizes: Sequence[tuple[CountedSize, Places]],
    slicing: Collection[str],
    reads: Sequence[Mapping[tuple[str, str], int]],
    coincidences: Collection[Coincidence],
) -> tuple[CountedSize, ...]:
    """Find the attributes that hold each size: of the module whose code states it, or else of one around it.

    Which these are is told by their values, so it is decided once, on the dense network: in one that is already pruned,
    another attribute may have the same value by chance. Code must have read them before it states the size; where none
    of the module itself was, those that it never reads follow too.

    Args:
        sizes: Each with where the code states it.
        slicing: Classes whose modules slice at places that follow from sizes; these may stand in their config.
        reads: For each trace, (module, attribute) -> number of operations before its first read.
        coincidences: Attributes that don't hold a size although their values say so.
    """
    modules = dict(model.named_modules())
    found = []
    for size, places in sizes:

        def held(
            name: str, attributes: Sequence[str], size: CountedSize = size, places: Places = places
        ) -> Sequence[str]:
            possible = [
                a for a in attributes if not any((group, name, a) in coincidences for group, _ in size.channels)
            ]
            read = [a for a in possible if any(reads[trace].get((name, a), n + 1) <= n for trace, n in places)]
            unread = [a for a in possible if not any((name, a) in every for every in reads)]
            return read or (unread if name == size.module else [])

        found.append(replace(size, holders=tuple(_holders(modules, size, slicing, held))))
    return tuple(found)


def follow_sizes(model: nn.Module, sizes: Sequence[CountedSize], gone: Mapping[str, set[int]]) -> None:
    """Set the attributes whose values changed by pruning."""
    modules = dict(model.named_modules())
    changes = [
        (size, size.size_after(gone)) for size in sizes if size.module in modules
    ]  # else a removed block took it
    changed = [(size, after) for size, after in changes if after != size.size]
    before: dict[tuple[str, str], int] = {}  # several sizes may share an attribute
    for size, after in sorted(changed, key=lambda change: change[0].kind):
        for name, attribute in size.holders:
            if name not in modules:
                continue
            module = modules[name]
            if before.setdefault((name, attribute), operator.attrgetter(attribute)(module)) == size.size:
                set_own(module, attribute, after)
    for module in modules.values():
        refresh(module)


def _holders(
    modules: Mapping[str, nn.Module],
    size: CountedSize,
    slicing: Collection[str],
    held_of: Callable[[str, Sequence[str]], Sequence[str]],
) -> Iterator[tuple[str, str]]:
    """Yield the modules and their attributes that hold a size; ``held_of`` picks from those with its value."""
    name = size.module
    if size.kind == "count" and type(modules[name]).__name__ in slicing:
        for attribute, value in getattr(getattr(modules[name], "config", None), "__dict__", {}).items():
            if attribute.endswith("heads") and type(value) is int and value == size.size:
                yield name, f"config.{attribute}"
    while True:
        if name in modules:
            module = modules[name]
            held = held_of(name, list(_equal(module, size)))
            yield from ((name, attribute) for attribute in held)
            # torch's own layers have their sizes from their tensors (`refresh`), none from a module around them.
            if held or isinstance(module, _OWN_SIZES) or type(module).__module__.startswith("torch.nn."):
                return
            if is_known(module):
                return
        if not name:
            return
        name = name.rpartition(".")[0]


def _equal(module: nn.Module, size: CountedSize) -> Iterator[str]:
    """Yield a module's attributes that have the value of a size and a name that goes with its kind."""
    if isinstance(module, _ConvNd | nn.GroupNorm):
        attribute = "groups" if isinstance(module, _ConvNd) else "num_groups"
        if size.kind == "count" and getattr(module, attribute) == size.size:
            yield attribute
    elif not is_known(module):
        equal = [a for a, value in vars(module).items() if type(value) is int and value == size.size and a[0] != "_"]
        if size.kind == "padding":
            yield from equal
            return
        kinds = {attribute: _kinds_of(attribute) for attribute in equal if not _NEVER.search(attribute)}
        named = [attribute for attribute, possible in kinds.items() if size.kind in possible]
        # Of equal parts, as the two directions of a recurrent layer, each may be called a width.
        parts = [attribute for attribute, possible in kinds.items() if size.kind == "part" and "width" in possible]
        yield from named or parts


def set_own(module: nn.Module, attribute: str, value: object) -> None:
    """Set an attribute of a module, or as ``config.name`` one of a config that it does not share from then on."""
    owner, _, name = attribute.rpartition(".")
    if owner:
        setattr(module, owner, copy.copy(getattr(module, owner)))
    setattr(getattr(module, owner) if owner else module, name, value)


def _kinds_of(attribute: str) -> tuple[SizeKind, ...]:
    if _PARTS.search(attribute):
        return ("part",)
    if _COUNT_OR_WIDTH.search(attribute):
        return "count", "width"
    return ("count",) if _COUNTS.search(attribute) and not _NUMBERED_WIDTHS.search(attribute) else ("width",)


def refresh(module: nn.Module) -> None:
    """Refresh the attributes of torch's own layers, which follow from the shapes of their tensors."""
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
    """Return a module's weight, or a tensor of its shape that the weight is computed from."""
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
