"""The registry of rules, and what a rule is given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from autoprune.pruning.graph.dependency_graph import DependencyGraph
from autoprune.pruning.graph.trace import Operation
from autoprune.pruning.graph.values import Dim, Value, static


@dataclass(frozen=True)
class Call:
    """One operation on its way through a rule.

    Attributes:
        shapes: Shapes of its results; ``()`` stands for a result that is no tensor.
    """

    graph: DependencyGraph
    operation: Operation
    shapes: tuple[tuple[int, ...], ...]

    def first_result(self, dims: Sequence[Dim], *, zero: bool, weight: bool = False) -> Value:
        """Return the first result."""
        return Value(self.shapes[0], tuple(dims), zero, weight)

    def other_results(self) -> tuple[Value, ...]:
        """Return the results after the first, of constant size."""
        return tuple(static(shape) for shape in self.shapes[1:])


Rule = Callable[..., Value | Sequence[Value]]
RULES: dict[str, Rule] = {}
"""Operation name -> rule. A rule gets the call, then the operation's arguments with each tensor as a ``Value``."""

RuleType = TypeVar("RuleType", bound=Callable[..., Any])


def rule(*names: str) -> Callable[[RuleType], RuleType]:
    """Register a rule for operations; an operation that writes in place (``add_``) shares the rule of ``add``."""

    def register(function: RuleType) -> RuleType:
        for name in names:
            RULES[name] = function
        return function

    return register


def normalised(dims: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Return dimensions as non-negative numbers; none named means all."""
    if dims is None or (isinstance(dims, list | tuple) and not dims):
        return tuple(range(ndim))
    listed = [dims] if isinstance(dims, int) else list(dims)
    return tuple(dim % ndim if ndim else 0 for dim in listed)


def carried(call: Call, value: Value, dims: Sequence[Dim], *, zero: bool | None = None) -> Value:
    """Return the first result, which holds a tensor's entries in another arrangement."""
    return call.first_result(dims, zero=value.zero if zero is None else zero, weight=value.weight)
