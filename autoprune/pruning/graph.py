"""Torch-Pruning's dependency graph of one network, kept quiet, and cut through it with provenance."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch_pruning as tp
from torch import nn
from torch.nn.modules.conv import _ConvNd

from autoprune.errors import PruningError
from autoprune.pruning.proof import float_tensors, shortened
from autoprune.pruning.provenance import Provenance, cut
from autoprune.tasks.forward import call_model
from autoprune.tasks.task import Inputs


def width_of(module: nn.Module) -> int:
    """Output channels of a convolution or output features of a linear layer."""
    if isinstance(module, _ConvNd):
        return module.out_channels
    if isinstance(module, nn.Linear):
        return module.out_features
    raise TypeError(f"a convolution or linear layer has a width, {type(module).__name__} has none")


def output_dim(module: nn.Module) -> int:
    """The dimension of a convolution's or linear layer's weight that runs over its outputs."""
    return 1 if isinstance(module, _ConvNd) and module.transposed else 0


class ChannelGraph:
    """Which channels of a network leave together, as Torch-Pruning sees it.

    The network is the graph's own: it is put into evaluation mode and all its float parameters ask for gradients
    until channels are removed.

    Args:
        example_inputs: Inputs on the network's device.

    Raises:
        PruningError: If the network can't be traced.
    """

    def __init__(self, model: nn.Module, example_inputs: Inputs) -> None:
        self.model = model
        self._training = {name: module.training for name, module in model.named_modules()}
        self._requires_grad = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(True)
        self._graph = tp.DependencyGraph()
        try:
            with _quiet(), torch.enable_grad():
                self._graph.build_dependency(
                    model, example_inputs, forward_fn=call_model, output_transform=float_tensors, verbose=False
                )
        except Exception as error:
            raise PruningError(f"Torch-Pruning can't trace the network ({shortened(error)})") from error

    def traces(self, name: str) -> bool:
        """Whether the module of this name took part in the traced forward pass."""
        return self.model.get_submodule(name) in self._graph.module2node

    def group(self, name: str, channels: Sequence[int] | None = None) -> Any:
        """Torch-Pruning's group rooted at the outputs of the named layer; by default all its channels."""
        module = self.model.get_submodule(name)
        handler = self._graph.get_pruner_of_module(module).prune_out_channels
        indices = list(range(width_of(module))) if channels is None else list(channels)
        try:
            with _quiet():
                return self._graph.get_pruning_group(module, handler, indices)
        except Exception as error:
            raise PruningError(f"{name}: Torch-Pruning can't follow its channels ({shortened(error)})") from error

    def layers(self, name: str) -> dict[str, bool]:
        """The group's modules -> whether each is a convolution or linear layer that loses outputs."""
        names = {module: name for name, module in self.model.named_modules()}
        found: dict[str, bool] = {}
        for item in self.group(name):
            layer = item.dep.layer
            if layer in names:
                loses_outputs = self._graph.is_out_channel_pruning_fn(item.dep.handler)
                is_producer = isinstance(layer, _ConvNd | nn.Linear) and loses_outputs
                found[names[layer]] = found.get(names[layer], False) or is_producer
        return found

    def remove(self, lost: Mapping[str, Sequence[int]]) -> Provenance:
        """Remove channels from the network in place, and give it back its modes and ``requires_grad``.

        Args:
            lost: Layer at the root of a group -> indices of the channels to remove.

        Returns:
            Where each surviving element comes from.

        Raises:
            PruningError: If Torch-Pruning can't cut; the network is then useless.
        """
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self._requires_grad[name])
        try:
            provenance = cut(self.model, lambda: self._cut(lost))
        except PruningError:
            raise
        except Exception as error:
            raise PruningError(f"Torch-Pruning can't cut its layers ({shortened(error)})") from error
        for name, module in self.model.named_modules():
            module.training = self._training[name]
        return provenance

    def _cut(self, lost: Mapping[str, Sequence[int]]) -> None:
        with _quiet():
            for name, channels in lost.items():
                self.group(name, channels).prune(record_history=False)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
