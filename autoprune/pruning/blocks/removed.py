"""Layer pruning: a block is replaced by a module that returns its input, in the form of the block's output."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from torch import nn

from autoprune.pruning.plan import Block, Key, Passthrough


class RemovedBlock(nn.Module):
    """Stands where a block was: takes whatever the block took and returns the stream.

    Plain attributes of the block, and of the modules in it, can still be read, since networks ask their layers for
    such things as ``attention_type`` or ``self_attn.batch_first``.

    Args:
        block: The module that it replaces.
        passthrough: Which argument it returns, or a tuple of them; see :class:`autoprune.pruning.plan.Block`.
    """

    def __init__(self, block: nn.Module, passthrough: Passthrough = 0) -> None:
        super().__init__()
        vars(self).update(_attributes(block))
        self._passthrough = passthrough

    @property
    def passthrough(self) -> Passthrough:
        """Which argument it returns, or a tuple of them."""
        return self._passthrough

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the arguments that pass through; what else the block returned is ``None``."""

        def argument(key: Key | None) -> Any:
            return None if key is None else kwargs[key] if isinstance(key, str) else args[key]

        keys = self._passthrough
        return tuple(map(argument, keys)) if isinstance(keys, tuple) else argument(keys)

    def extra_repr(self) -> str:
        """Return which arguments pass through."""
        return f"passthrough={self._passthrough!r}"


def remove_blocks(model: nn.Module, blocks: Iterable[Block]) -> None:
    """Replace blocks by :class:`RemovedBlock`, in place."""
    for block in blocks:
        model.set_submodule(block.name, RemovedBlock(model.get_submodule(block.name), block.gives))


def is_removed(model: nn.Module, name: str) -> bool:
    """Whether the block of this name is no longer there."""
    return isinstance(model.get_submodule(name), RemovedBlock)


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Collect public attributes that are no tensors; a child becomes a namespace of its own."""
    own = {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "forward"}
    children = {name: SimpleNamespace(**_attributes(child)) for name, child in module.named_children()}
    return own | children
