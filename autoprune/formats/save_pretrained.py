"""Keep ``save_pretrained`` of transformers from writing a pruned network that would not come back.

``from_pretrained`` builds a network from its config, and initialises anew what the file lacks, such as a layer that was
removed.
"""

import copy
from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch import nn

from autoprune.config.task import CallableRef
from autoprune.errors import ExportError, describe_error
from autoprune.formats.architecture import Architecture, architecture_diff
from autoprune.formats.outputs import TOLERANCE, relative_difference, reproducible_outputs
from autoprune.network.call import to_device
from autoprune.network.device import device_of

_ITSELF = CallableRef(callable="itself:itself")


def guard_save_pretrained(model: nn.Module, architecture: Architecture) -> None:
    """Replace ``save_pretrained`` where the network, or a part of it that has one, was pruned; in place.

    The method then raises ExportError unless the network's config, as it is when the method is called, builds a network
    of the same parts and shapes.

    Args:
        architecture: How the network differs from the dense one.
    """
    changed = (*architecture.removed_blocks, *architecture.modules, *architecture.shapes)
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if callable(getattr(module, "save_pretrained", None)) and any(
            each == name or each.startswith(prefix) for each in changed
        ):
            module.save_pretrained = MethodType(save_pretrained, module)


def guard_pruned(model: nn.Module, dense: nn.Module) -> nn.Module:
    """Guard a network that was pruned from another, as :func:`guard_save_pretrained` does; returns it."""
    guard_save_pretrained(model, architecture_diff(dense, model, _ITSELF))
    return model


def save_pretrained(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Save the network by its own method, if it would come back as it is.

    Raises:
        ExportError: If it would not.
    """
    problem = next(_problems(self), None)
    if problem is not None:
        raise ExportError(
            f"save_pretrained: from_pretrained would not give this pruned {type(self).__name__} back: {problem}. Save "
            "it whole by torch.save(model, path), or change model.config first where that can express its shape. "
            "`autoprune export` writes a trial of a study."
        )
    return type(self).save_pretrained(self, *args, **kwargs)


def _problems(model: Any) -> Iterator[str]:
    """Yield what differs between a network and the one that its config builds."""
    try:
        with torch.device("meta"):
            built = _built(model)
    except Exception as error:
        yield f"its class can't be built from its config alone ({describe_error(error)})"
        return
    own, fresh = model.state_dict().keys(), built.state_dict().keys()
    diff = architecture_diff(built, model, _ITSELF)
    yield from (f"'{name}' was removed and would be initialised anew" for name in diff.removed_blocks)
    yield from (f"its config builds '{name}' in another shape than {shape}" for name, shape in diff.shapes.items())
    yield from (f"only one of both has '{name}'" for name in sorted(own ^ fresh))
    for name, sizes in diff.modules.items():  # a number may be there that no code reads
        if not _gives_the_same(model):
            yield f"its config builds '{name}' with other sizes than {sizes}"


def _built(model: Any) -> Any:
    return type(model)(copy.deepcopy(model.config))


def _gives_the_same(model: Any) -> bool:
    """Build the network from its config, load the weights, and compare on the class's own example inputs."""
    try:
        with torch.random.fork_rng(devices=[]):
            built = _built(model).to(device=device_of(model), dtype=model.dtype)
        built.load_state_dict(model.state_dict())
        inputs = to_device(dict(model.dummy_inputs), device_of(model))
        expected, found = reproducible_outputs(model, inputs), reproducible_outputs(built, inputs)
    except Exception:
        return False
    return expected is not None and found is not None and relative_difference(found, expected) <= TOLERANCE
