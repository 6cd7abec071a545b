"""Name parts of a network for messages."""

from torch import nn


def module_of(name: str, module: nn.Module) -> str:
    """Name a module with its class: ``module 'body.scale' (Scale)``, or ``the network (Net)`` for the root."""
    kind = type(module).__name__
    return f"module '{name}' ({kind})" if name else f"the network ({kind})"


def attribute_of(name: str, module: nn.Module, attribute: str) -> str:
    """Name an attribute of a module: ``attribute 'cache' of module 'body' (Body)``."""
    return f"attribute '{attribute}' of {module_of(name, module)}"
