"""Trace a network: every ATen operation of one forward pass, with the module that ran it.

A dispatch mode sees the operations below autograd, where compositions such as ``linear``, ``einsum``, ``chunk`` or
``nn.MultiheadAttention`` have become a few primitive ones. Unlike ``torch.export`` it takes any network that runs.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from autoprune.network.without_dynamo import DispatchModeWithoutDynamo


@dataclass(frozen=True)
class Ref:
    """A tensor of the trace."""

    id: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """One ATen call; tensors in the arguments and results are ``Ref``.

    Attributes:
        module: Name of the innermost module that was running.
        number: How many operations the trace has before it.
    """

    func: torch._ops.OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[Ref | None, ...]
    module: str
    number: int

    @property
    def name(self) -> str:
        """The operation's name without namespace and overload, e.g. ``convolution``."""
        return str(self.func._schema.name).rpartition("::")[2]

    def inputs(self) -> Iterator[Ref]:
        """Yield the tensors among the arguments."""
        for leaf in tree_flatten((self.args, self.kwargs))[0]:
            if isinstance(leaf, Ref):
                yield leaf


@dataclass
class Trace:
    """Operations in order.

    Attributes:
        tensors: Ref id -> name of the parameter or buffer.
        outputs: What the network returned.
        reads_values_in: Names of the modules whose code looked at a value, as to branch on it.
        reads: (module, attribute) -> how many operations came before the code first read it, for whole numbers.
    """

    operations: list[Operation] = field(default_factory=list)
    tensors: dict[int, str] = field(default_factory=dict)
    outputs: list[Ref] = field(default_factory=list)
    reads_values_in: list[str] = field(default_factory=list)
    reads: dict[tuple[str, str], int] = field(default_factory=dict)

    def live_operations(self) -> list[Operation]:
        """Find the operations that the outputs depend on, and those that write into a tensor."""
        wanted = {ref.id for ref in self.outputs}
        kept: list[Operation] = []
        for operation in reversed(self.operations):
            if _writes(operation) or any(ref is not None and ref.id in wanted for ref in operation.results):
                wanted.update(ref.id for ref in operation.inputs())
                kept.append(operation)
        return kept[::-1]


class _TraceRecorder(DispatchModeWithoutDynamo):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = Trace()
        self.stack: list[str] = [""]
        self._ids = WeakTensorKeyDictionary()
        self._next = 0
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            self.trace.tensors[self.ref(tensor).id] = name

    def ref(self, tensor: torch.Tensor) -> Ref:
        key: int | None = self._ids.get(tensor)  # type: ignore[no-untyped-call]
        if key is None:
            key = self._ids[tensor] = self._next
            self._next += 1
        return Ref(key, tuple(tensor.shape))

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # Before the call, as it may change a tensor's shape in place.
        plain_args, plain_kwargs = tree_map_only(torch.Tensor, self.ref, (args, kwargs))
        result = func(*args, **kwargs)
        leaves = list(result) if isinstance(result, tuple | list) else [result]
        if any(isinstance(leaf, torch.Tensor) for leaf in leaves):
            refs = tuple(self.ref(leaf) if isinstance(leaf, torch.Tensor) else None for leaf in leaves)
            number = len(self.trace.operations)
            self.trace.operations.append(Operation(func, plain_args, plain_kwargs, refs, self.stack[-1], number))
        elif func is torch.ops.aten._local_scalar_dense.default:
            self.trace.reads_values_in.append(self.stack[-1])
        return result


def trace_model(
    model: nn.Module, call: Callable[[nn.Module], Any], tensors_of: Callable[[Any], list[torch.Tensor]]
) -> Trace:
    """Run a network once and record its operations.

    Args:
        call: Runs the network, e.g. ``lambda model: model(x)``.
        tensors_of: The tensors in what the network returns.
    """
    recorder = _TraceRecorder(model)
    with ExitStack() as stack:
        stack.enter_context(_named_calls(model, recorder.stack))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_primitive_operations(model))
        stack.enter_context(_recorded_reads(model, recorder.trace))
        stack.enter_context(recorder)
        outputs = call(model)
    recorder.trace.outputs = [recorder.ref(tensor) for tensor in tensors_of(outputs)]
    return recorder.trace


def _writes(operation: Operation) -> bool:
    """Whether the operation writes into one of its own arguments and gives it back."""
    given = {ref.id for ref in operation.inputs()}
    return any(ref is not None and ref.id in given for ref in operation.results)


@contextmanager
def _named_calls(model: nn.Module, stack: list[str]) -> Iterator[None]:
    """Keep the name of the running module on top of the stack."""
    handles = []

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: stack.append(name)

    def leave(*_: Any) -> None:
        stack.pop()

    try:
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            handles.append(module.register_forward_pre_hook(enter(name), prepend=True))
            handles.append(module.register_forward_hook(leave, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _recorded_reads(model: nn.Module, trace: Trace) -> Iterator[None]:
    """Record when code reads whole numbers that are attributes of the network's modules."""
    names = {id(module): name for name, module in model.named_modules()}

    def read(module: nn.Module, attribute: str) -> Any:
        value = object.__getattribute__(module, attribute)
        if type(value) is int and id(module) in names:
            trace.reads.setdefault((names[id(module)], attribute), len(trace.operations))
        return value

    # Of the class of all modules, which has no such method: those that have one of their own are not recorded.
    nn.Module.__getattribute__ = read  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        del nn.Module.__getattribute__


@contextmanager
def _primitive_operations(model: nn.Module) -> Iterator[None]:
    """Switch off the fused kernels that hide a whole layer in one operation."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    mkldnn: Any = torch.backends.mkldnn  # torch types the flag as its descriptor
    enabled = mkldnn.enabled
    try:
        mkldnn.enabled = enabled and not recurrent
        yield
    finally:
        mkldnn.enabled = enabled
        torch.backends.mha.set_fastpath_enabled(fast_path)
