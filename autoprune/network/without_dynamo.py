"""torch's compiler, kept from loading where nothing is compiled: it takes a process a second or two and 70 MiB.

With ``training.compile`` it loads at the first network that is trained. torch wraps a few of its functions so that the
compiler leaves them alone, and each wrapper loads it in its first call. Each of the three parts here is needed: without
one of them the compiler loads. A torch that does so otherwise, or not at all, is taken as it is; a test names the part.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

_METHODS = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


@cache
def optimizer_without_dynamo(kind: type[Optimizer]) -> type[Optimizer]:
    """Return the same kind of optimizer with its methods unwrapped."""
    methods: dict[str, Any] = {name: getattr(getattr(Optimizer, name), "__wrapped__", None) for name in _METHODS}
    step = getattr(kind.step, "__wrapped__", None)
    methods["step"] = torch.no_grad()(step) if step is not None else None
    return type(kind.__name__, (kind,), {name: method for name, method in methods.items() if method is not None})


class DispatchModeWithoutDynamo(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A dispatch mode whose handler is not wrapped."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


def call_without_dynamo(wrapper: Callable[..., Any]) -> None:
    """Let a wrapper call its function as it is, by the mark that the wrapper leaves on it in its first call."""
    function = getattr(wrapper, "__wrapped__", None)
    if function is not None and not hasattr(function, "__dynamo_disable"):
        function.__dynamo_disable = function
