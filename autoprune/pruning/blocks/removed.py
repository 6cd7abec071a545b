"""Layer pruning: a block is replaced by a module that gives its input back, in the form that the block's output had."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from torch import nn

from autoprune.pruning.plan import Block, Gives, Key


class RemovedBlock(nn.Module):
    """Stands where a block was: takes whatever the block took and gives the stream back.

    Plain attributes of the block, and of the modules in it, can still be read, since networks ask their layers for
    such things as ``attention_type`` or ``self_attn.batch_first``.

    Args:
        block: The module that it replaces.
        gives: Which argument it returns, or a tuple of them; see :class:`autoprune.pruning.plan.Block`.
    """

    def __init__(self, block: nn.Module, gives: Gives = 0) -> None:
        super().__init__()
        vars(self).update(_attributes(block))
        self._gives = gives

    @property
    def gives(self) -> Gives:
        """Which argument it returns, or a tuple of them."""
        return self._gives

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Give arguments back; what else the block returned is ``None``."""

        def argument(key: Key | None) -> Any:
            return None if key is None else kwargs[key] if isinstance(key, str) else args[key]

        return tuple(map(argument, self._gives)) if isinstance(self._gives, tuple) else argument(self._gives)

    def extra_repr(self) -> str:
        """What the module gives back."""
        return f"gives={self._gives!r}"


def remove_blocks(model: nn.Module, blocks: Iterable[Block]) -> None:
    """Replace blocks by :class:`RemovedBlock`, in place."""
    for block in blocks:
        model.set_submodule(block.name, RemovedBlock(model.get_submodule(block.name), block.gives))


def is_removed(model: nn.Module, name: str) -> bool:
    """Whether the block of this name is no longer there."""
    return isinstance(model.get_submodule(name), RemovedBlock)


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Public attributes that are no tensors; a child becomes a namespace of its own."""
    own = {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "forward"}
    children = {name: SimpleNamespace(**_attributes(child)) for name, child in module.named_children()}
    return own | children
