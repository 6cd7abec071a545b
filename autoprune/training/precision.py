"""Precision of training and evaluation: number format, memory layout, compiled or not."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from autoprune.config.training import PrecisionName, Training
from autoprune.errors import AutopruneError
from autoprune.network.call import Inputs, call_model, to_device
from autoprune.network.outputs import map_outputs

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class CompileError(AutopruneError):
    """``torch.compile`` can't compile a network."""


@dataclass(frozen=True)
class Precision:
    """Number format and memory layout of a network's forward pass. Its weights, and what is saved of it, stay float32.

    Attributes:
        precision: Of the forward pass, under torch's autocast; the loss and the metric see float32 outputs.
        channels_last: Whether the network and 4-d inputs have the channels last in memory.
        compile: Whether the forward pass of the training is compiled.
    """

    precision: PrecisionName = "float32"
    channels_last: bool = False
    compile: bool = False

    @classmethod
    def of(cls, training: Training) -> "Precision":
        """Return the precision that a space file asks for."""
        return cls(training.precision, training.channels_last, training.compile)

    def forward(self, network: Callable[..., Any], inputs: Inputs, device: torch.device | str) -> Any:
        """Run a network, or what :meth:`for_training` made of one, on inputs that lie anywhere."""
        inputs = to_device(inputs, device)
        if self.channels_last:
            inputs = tree_map_only(torch.Tensor, _channels_last, inputs)
        with self._autocast(torch.device(device)):
            outputs = call_model(network, inputs)
        return outputs if self.precision == "float32" else map_outputs(_widened, outputs)

    def to_training_layout(self, model: nn.Module) -> nn.Module:
        """Put a network's parameters and buffers into the memory layout of training, in place."""
        return model.to(memory_format=torch.channels_last) if self.channels_last else model  # type: ignore[call-overload]

    def to_storage_layout(self, model: nn.Module) -> nn.Module:
        """Undo :meth:`to_training_layout`, in place: a network is pruned, measured and saved in torch's own layout."""
        return model.to(memory_format=torch.contiguous_format) if self.channels_last else model  # type: ignore[call-overload]

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Make the scaler that keeps small gradients from becoming zero in fp16; it does nothing otherwise."""
        return torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")

    def for_training(self, model: nn.Module) -> Callable[..., Any]:
        """Return the forward pass to train with: the network itself, or its compiled form with the same parameters.

        Networks that this process compiled before are released: torch keeps only so many forms of one class, and then
        compiles no more.
        """
        if not self.compile:
            return model
        self.release_compiled()
        compiled: Callable[..., Any] = torch.compile(model)
        return compiled

    def release_compiled(self) -> None:
        """Release the networks that were compiled in this process."""
        if self.compile:
            torch.compiler.reset()

    def translate_compile_errors(self) -> AbstractContextManager[None]:
        """Raise CompileError for the compiler's own errors, around forward and backward passes of the training."""
        return _translate_compile_errors() if self.compile else nullcontext()

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device.type, _AUTOCAST[self.precision])


FLOAT32 = Precision()
"""torch's own default."""


@contextmanager
def _translate_compile_errors() -> Iterator[None]:
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError

    try:
        yield
    except (TorchDynamoException, CppCompileError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        cause = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
        raise CompileError(
            f"training.compile: torch.compile can't compile this network: {cause.rstrip('.')}. "
            "Set training.compile to false."
        ) from error


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype in _AUTOCAST.values() else tensor
