"""The pruning plan: what of a network can be pruned, and what can't and why. Importing this loads no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

Key = int | str
"""An argument of a call: its position, or its name."""

Passthrough = Key | tuple[Key | None, ...]
"""An argument, or a tuple of arguments and ``None``."""


OUTPUT = "is the network's output"
"""The reason of a network's last layer, which is never pruned."""


UNUSED = "takes no part in the forward pass"
"""The reason of a layer that does not run on the example inputs."""


FORWARD_FAILS = "the forward pass fails"
"""The beginning of a reason: the code can't run without the channels."""


@dataclass(frozen=True)
class Group:
    """Channels that must leave together, across layers.

    Attributes:
        name: The first layer, in module order, whose output channels these are.
        width: Channels in the dense network.
        layers: Modules that lose parameters or buffers with the channels, in module order.
        multiple: The number of channels kept must be a multiple of this; some kernels know no other.
        exact: Whether the network without the channels equals the masked one; it does not where a norm takes its
            statistics over them.
    """

    name: str
    width: int
    layers: tuple[str, ...]
    multiple: int = 1
    exact: bool = True

    def multiple_of(self, round_to: int) -> int:
        """Return what the number of kept channels must be a multiple of, if it is to be one of ``round_to`` as well."""
        return math.lcm(self.multiple, round_to)

    def width_at(self, kept_share: float, round_to: int = 1) -> int:
        """Return the channels kept at a share of the width: the nearest allowed number, at least one multiple."""
        multiple = self.multiple_of(round_to)
        return min(self.width, max(multiple, multiple * round(kept_share * self.width / multiple)))


@dataclass(frozen=True)
class Block:
    """A residual block that can be replaced by its input.

    Attributes:
        importance: Rise of the loss when this block alone is removed, or the angle by which it turns its input; 0
            where neither was measured.
        gives: Which of the block's arguments comes out in its place; a tuple where the block returned one.
    """

    name: str
    importance: float = 0.0
    gives: Passthrough = 0


@dataclass(frozen=True)
class Unprunable:
    """A module that can't be pruned, and why; an empty name is the network as a whole.

    Attributes:
        option: Name of the option with which it can be; empty if there is none.
    """

    module: str
    reason: str
    option: str = ""

    @property
    def advice(self) -> str:
        """What in the network's code would let it be pruned; empty if that is not known."""
        if FORWARD_FAILS not in self.reason:
            return ""
        return "If a width is written in the code as a number, take it from the layer or from a tensor's shape."


@dataclass(frozen=True)
class PruningPlan:
    """What of a dense network was proved to be prunable.

    Attributes:
        blocks: Least important first.
        weight_layers: Parameter name of a convolution's or linear layer's weight -> its number of elements.
        graph: Which entries of which tensors leave with each channel, and which sizes in the code follow, as plain
            values (``autoprune.pruning.graph.to_plain``).
    """

    groups: tuple[Group, ...]
    blocks: tuple[Block, ...]
    weight_layers: Mapping[str, int]
    left_out: tuple[Unprunable, ...]
    graph: Mapping[str, Any]

    @property
    def shrink(self) -> dict[str, dict[int, dict[str, int]]]:
        """Parameter or buffer name -> dimension -> group -> entries that it loses for each channel of the group.

        A dimension may lose to several groups; the losses add up. A tied tensor stands under each of its names.
        """
        table: dict[str, dict[int, dict[str, int]]] = {}
        for group in self.graph["groups"]:
            for name, dim, _, columns in group["members"]:
                table.setdefault(name, {}).setdefault(dim, {})[group["name"]] = len(columns)
        return {alias: table[name] for alias, name in self.graph["same"].items() if name in table}

    @property
    def products(self) -> list[tuple[str, list[tuple[int, dict[str, int]]]]]:
        """Products of activations, such as queries with keys: (module, dimensions that the product runs over).

        Each dimension is its size, for the example batch, and group -> entries that it loses for each channel.
        """
        return [(module, [(size, dict(losses)) for size, losses in runs]) for module, runs in self.graph["products"]]

    @property
    def positions(self) -> dict[str, list[list[tuple[int, dict[str, int]]]]]:
        """Parameter or buffer name -> for each product with it, the dimensions that are not the tensor's own.

        Each dimension is as in ``products``. Only tensors stand here whose products lose channels along one; a tied
        tensor stands under each of its names.
        """
        plain = {
            name: [[(size, dict(losses)) for size, losses in runs] for runs in found]
            for name, found in self.graph.get("positions", {}).items()
        }
        return {alias: plain[name] for alias, name in self.graph["same"].items() if name in plain}

    @property
    def group_widths(self) -> dict[str, int]:
        """Group name -> channels in the dense network."""
        return {group.name: group.width for group in self.groups}

    @property
    def main_obstacle(self) -> Unprunable | None:
        """What most likely keeps a network without groups from being pruned; ``None`` if nothing is left out."""
        inner = [item for item in self.left_out if OUTPUT not in item.reason]
        used = [item for item in inner if UNUSED not in item.reason]
        return next(iter([item for item in used if item.option] or used or inner or self.left_out), None)

    @property
    def block_names(self) -> tuple[str, ...]:
        """The blocks' names, least important first."""
        return tuple(block.name for block in self.blocks)

    def to_dict(self) -> dict[str, Any]:
        """Turn the plan into plain JSON values."""
        plain: dict[str, Any] = to_jsonable_python(self)
        return plain

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "PruningPlan":
        """Rebuild a plan from ``to_dict``'s values; raises ``pydantic.ValidationError`` if they are not a plan."""
        return _ADAPTER.validate_python(record)


_ADAPTER = TypeAdapter(PruningPlan)
