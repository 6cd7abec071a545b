"""What reaches the layers of a network: how the inputs that their weights multiply vary together."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from autoprune.network.call import Inputs, call_model, to_device
from autoprune.network.device import device_of
from autoprune.network.frozen import adapting_norms, is_frozen
from autoprune.network.modes import eval_mode

MAX_INPUTS = 2304
"""Inputs of an output, 256 channels under a 3 x 3 kernel, above which a kernel's positions are not told apart."""

MAX_CHANNELS = 4096
"""Input channels above which a layer is not looked at: the time that it takes grows with their third power."""

N_PLACES = 16
"""Places of an example at which a layer is looked at, on average, drawn at random where it has more."""


@dataclass(frozen=True)
class InputMoments:
    """Moments of the inputs of a layer over calibration examples and places.

    Attributes:
        mean: Shape ``(n_inputs,)``, ``n_positions`` for each channel in turn; float64 on the CPU, as the covariance.
        covariance: Around the mean, where the layer ``absorbs_means``, or else around 0; shape
            ``(n_inputs, n_inputs)``.
        n_positions: Inputs that each channel has: those under the kernel, or 1 where they are not told apart.
    """

    mean: torch.Tensor
    covariance: torch.Tensor
    n_positions: int

    def by_input(self, weight: torch.Tensor) -> torch.Tensor:
        """Return a layer's weight, or some of its rows, as float64 on the CPU, the inputs in its last dimension."""
        exact = weight.detach().double().cpu()
        return exact.flatten(1) if self.n_positions > 1 else exact.movedim(1, -1)

    def columns(self, channels: torch.Tensor) -> torch.Tensor:
        """Return the inputs of some channels, of any shape: one dimension more."""
        return channels.unsqueeze(-1) * self.n_positions + torch.arange(self.n_positions)


def _may_read(module: nn.Module, dim: int) -> bool:
    """Whether each output of a layer may be a weighted sum over the channels that a dimension of its weight reads."""
    if isinstance(module, nn.Linear):
        return dim == 1 and module.in_features <= MAX_CHANNELS
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return dim == 1 and module.groups == 1 and module.in_channels <= MAX_CHANNELS
    weight = getattr(module, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.dim() == 2 and weight.shape[dim] <= MAX_CHANNELS


def _is_linear(module: nn.Module, dim: int, inputs: torch.Tensor, output: Any) -> bool:
    """Whether a layer of a kind of its own has just done what ``nn.Linear`` would do with its weight and bias."""
    weight, bias = module.get_parameter("weight"), getattr(module, "bias", None)
    try:
        expected = nn.functional.linear(inputs, weight.movedim(dim, 1), bias)
    except RuntimeError:
        return False
    if not isinstance(output, torch.Tensor) or output.shape != expected.shape:
        return False
    return bool((output - expected).abs().max() <= 1e-3 * expected.abs().max())


def absorbs_means(module: nn.Module, model: nn.Module) -> bool:
    """Whether a constant added to a layer's outputs is made up for: by its own bias, or by batch norm that adapts."""
    bias = getattr(module, "bias", None)
    if bias is not None and not is_frozen(bias):
        return True
    return isinstance(module, _ConvNd) and bool(adapting_norms(model))


class LayerInputs:
    """What some layers of a network receive when it runs on calibration inputs, in evaluation mode.

    Each layer is looked at once, when it is first asked for.

    Args:
        model: Its buffers may be written, as in any forward pass.
        batches: Gives the calibration inputs, the same ones at every call.
        seed: Of the places that are looked at.
    """

    def __init__(self, model: nn.Module, batches: Callable[[], Iterable[Inputs]], seed: int = 0) -> None:
        self._model, self._batches, self._seed = model, batches, seed
        self._found: dict[str, InputMoments | None] = {}

    def moments(self, readers: Mapping[str, int]) -> dict[str, InputMoments]:
        """Measure moments by layer, of linear layers and ungrouped convolutions that are called as modules.

        Args:
            readers: Layer -> the dimension of its weight that reads channels. Of layers of kinds of their own those
                count that do with a matrix what a linear layer does.
        """
        readers = {layer: dim for layer, dim in readers.items() if _may_read(self._model.get_submodule(layer), dim)}
        missing = {layer: dim for layer, dim in readers.items() if layer not in self._found}
        if missing:
            sums = self._sums(missing)
            self._found |= {
                layer: _moments(sums[layer], self._model.get_submodule(layer), self._model) if layer in sums else None
                for layer in missing
            }
        return {layer: found for layer in readers if (found := self._found[layer]) is not None}

    def _sums(self, layers: Mapping[str, int]) -> dict[str, torch.Tensor]:
        """Sum over places the products of two inputs each, the last input being 1."""
        generator = torch.Generator().manual_seed(self._seed)
        sums: dict[str, torch.Tensor] = {}

        others = set[str]()

        def hook_for(name: str, dim: int) -> Callable[..., None]:
            def hook(module: nn.Module, args: tuple[torch.Tensor, ...], output: Any) -> None:
                known = isinstance(module, nn.Linear | _ConvNd)
                if not args or not (known or _is_linear(module, dim, args[0], output)):
                    others.add(name)
                    return
                rows = _rows(module, args[0].detach(), generator).float()
                rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
                total = (rows.T @ rows).cpu().double()
                sums[name] = sums[name] + total if name in sums else total

            return hook

        device = device_of(self._model)
        hooks = [
            self._model.get_submodule(name).register_forward_hook(hook_for(name, dim)) for name, dim in layers.items()
        ]
        try:
            with torch.no_grad(), eval_mode(self._model):
                for inputs in self._batches():
                    call_model(self._model, to_device(inputs, device))
        finally:
            for handle in hooks:
                handle.remove()
        return {name: total for name, total in sums.items() if name not in others}


def _moments(sums: torch.Tensor, module: nn.Module, model: nn.Module) -> InputMoments:
    means = sums / sums[-1, -1]
    mean, second = means[-1, :-1], means[:-1, :-1]
    covariance = second - torch.outer(mean, mean) if absorbs_means(module, model) else second
    return InputMoments(mean, covariance, _n_positions(module))


def _n_positions(module: nn.Module) -> int:
    if not isinstance(module, _ConvNd):
        return 1
    n_positions = prod(module.kernel_size)
    return n_positions if module.in_channels * n_positions <= MAX_INPUTS else 1


def _rows(module: nn.Module, inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return the inputs of some outputs, one row a place, columns as in ``InputMoments``."""
    if not isinstance(module, _ConvNd):
        rows = inputs.reshape(-1, inputs.shape[-1])
        return rows[_some(len(rows), len(inputs), generator).to(rows.device)]
    n_dims = len(module.kernel_size)
    inputs = inputs if inputs.dim() == n_dims + 2 else inputs.unsqueeze(0)
    if _n_positions(module) == 1:
        rows = inputs.movedim(1, -1).flatten(0, -2)
        return rows[_some(len(rows), len(inputs), generator).to(rows.device)]
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = nn.functional.pad(inputs, module._reversed_padding_repeated_twice, mode=mode)
    reach = [d * (k - 1) + 1 for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    sizes = [(n - r) // s + 1 for n, r, s in zip(padded.shape[2:], reach, module.stride, strict=True)]
    chosen = _some(len(padded) * prod(sizes), len(padded), generator)
    example, *place = torch.unravel_index(chosen.to(padded.device), (len(padded), *sizes))
    columns = []
    for offsets in product(*(range(k) for k in module.kernel_size)):
        steps = zip(place, module.stride, module.dilation, offsets, strict=True)
        at = [p * s + d * o for p, s, d, o in steps]
        columns.append(padded.movedim(1, -1)[(example, *at)])
    return torch.stack(columns, dim=2).flatten(1)


def _some(n_places: int, n_examples: int, generator: torch.Generator) -> torch.Tensor:
    n = N_PLACES * n_examples
    return torch.randint(n_places, (n,), generator=generator) if n_places > n else torch.arange(n_places)
