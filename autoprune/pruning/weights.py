"""Weight pruning: single weights of least magnitude or score set to zero, and kept there while training."""

from collections.abc import Mapping
from typing import get_args

import torch
from torch import nn

from autoprune.errors import PruningError
from autoprune.network.frozen import is_frozen
from autoprune.trial import WeightPattern, WeightScope

N_LOST, N_GROUP = 2, 4
"""The 2:4 pattern: of every four consecutive weights, two are zero."""


class WeightMasks:
    """Which single weights of a network stay zero; ``masks`` is true where a weight stays, by parameter name.

    Of a parameter, exactly ``round(ratio * numel)`` weights go; of equal scores, the first go. A frozen parameter, one
    without ``requires_grad``, keeps them all and has no mask.

    With pattern ``"2:4"``, the two smallest of every four consecutive input channels (input features, for a linear
    layer) go, for each output channel and each place in the kernel, which is the order that NVIDIA's sparse tensor
    cores take. A ratio below one half takes the smallest of those weights only, so that gradual pruning ends in the
    pattern and prunes nothing else. A parameter that the pattern does not fit is left dense and has no mask: one of
    another layer than a linear layer or a convolution (transposed ones are others), or one whose input size, divided by
    the convolution's groups, is not a multiple of four.

    Args:
        ratios: Parameter name -> share of its present weights to zero, in [0, 1). Names that the network lacks,
            because a removed block took them, are ignored.
        scope: ``"layer"`` ranks magnitudes within each parameter. ``"global"`` ranks the magnitudes of all named
            parameters together, at the overall share that the ratios amount to; ``"lamp"`` ranks their LAMP scores.
        pattern: ``"2:4"``, which takes no scope but ``"layer"`` and no ratio above one half, or ``"none"``.

    Raises:
        PruningError: If a ratio is outside [0, 1), the scope or the pattern is unknown, or they don't go together.

    Source:
        Han et al. 2015, arXiv 1506.02626; LAMP: Lee et al. 2021, arXiv 2010.07611; 2:4: Mishra et al. 2021,
        arXiv 2104.08378
    """

    def __init__(
        self,
        model: nn.Module,
        ratios: Mapping[str, float],
        scope: WeightScope = "layer",
        pattern: WeightPattern = "none",
    ) -> None:
        _check(ratios, scope, pattern)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self._parameters = {
            name: parameters[name]
            for name in ratios
            if name in parameters
            and not is_frozen(parameters[name])
            and (pattern == "none" or _takes_pattern(model, name))
        }
        n_lost = {name: ratios[name] * parameter.numel() for name, parameter in self._parameters.items()}
        scores = {name: _scores(parameter, scope, pattern) for name, parameter in self._parameters.items()}
        if scope == "layer":
            lost = {name: _smallest(scores[name], round(n_lost[name])) for name in scores}
        else:
            lost = _smallest_of_all(scores, round(sum(n_lost.values())))
        self.masks = {name: ~lost[name].view(parameter.shape) for name, parameter in self._parameters.items()}

    @classmethod
    def from_masks(cls, model: nn.Module, masks: Mapping[str, torch.Tensor]) -> "WeightMasks":
        """Take up masks that were saved.

        Args:
            masks: Parameter name -> boolean tensor of the parameter's shape, true where a weight stays.

        Raises:
            PruningError: If the network lacks a parameter, or its shape differs from the mask's.
        """
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for name, mask in masks.items():
            shape = tuple(parameters[name].shape) if name in parameters else None
            if shape != tuple(mask.shape):
                raise PruningError(
                    f"the mask of {name} must have its shape {shape or '(no such name)'}, got {tuple(mask.shape)}. "
                    "Masks fit the network that they were made for and no other."
                )
        restored = cls(model, {})
        restored._parameters = {name: parameters[name] for name in masks}
        restored.masks = {name: mask.to(parameters[name].device) for name, mask in masks.items()}
        return restored

    @torch.no_grad()
    def apply_(self) -> None:
        """Set the masked weights to zero; call it at the start and after each optimizer step."""
        for name, parameter in self._parameters.items():
            parameter.masked_fill_(~self.masks[name], 0)


def _check(ratios: Mapping[str, float], scope: str, pattern: str) -> None:
    if scope not in get_args(WeightScope):
        raise PruningError(f"weight_scope must be one of {', '.join(get_args(WeightScope))}, got '{scope}'.")
    if pattern not in get_args(WeightPattern):
        raise PruningError(f"weight_pattern must be one of {', '.join(get_args(WeightPattern))}, got '{pattern}'.")
    if pattern != "none" and scope != "layer":
        raise PruningError(f"weight_scope must be 'layer' with weight_pattern '{pattern}', got '{scope}'.")
    for name, ratio in ratios.items():
        if not 0 <= ratio < 1:
            raise PruningError(f"weight_ratios['{name}'] must be in [0, 1), got {ratio}.")
        if pattern != "none" and ratio > N_LOST / N_GROUP:
            most = N_LOST / N_GROUP
            raise PruningError(
                f"weight_ratios['{name}'] must be at most {most} with weight_pattern '{pattern}', got {ratio}."
            )


def _takes_pattern(model: nn.Module, name: str) -> bool:
    owner, _, own_name = name.rpartition(".")
    layer = model.get_submodule(owner)
    if own_name != "weight" or not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return False
    return layer.weight.shape[1] % N_GROUP == 0


def _scores(parameter: torch.Tensor, scope: str, pattern: str) -> torch.Tensor:
    """Score a parameter's weights, the lowest go first; shape ``(numel,)``."""
    magnitudes = parameter.detach().abs()
    if pattern != "none":
        inputs_last = magnitudes.movedim(1, -1)
        groups = inputs_last.reshape(-1, N_GROUP)
        kept = groups.argsort(dim=1, stable=True)[:, N_LOST:]
        return groups.scatter(1, kept, torch.inf).view(inputs_last.shape).movedim(-1, 1).flatten()
    return _lamp(magnitudes.flatten()) if scope == "lamp" else magnitudes.flatten()


def _lamp(magnitudes: torch.Tensor) -> torch.Tensor:
    """Score each weight by its square over the sum of the squares that are no smaller (eq. 2).

    Of equal weights, one alone enters the sum of the other, by their order. A layer of zeros has scores of 0.
    """
    squares, order = magnitudes.double().square().sort(stable=True)
    no_smaller = squares.flip(0).cumsum(0).flip(0)
    return torch.empty_like(squares).scatter_(0, order, torch.where(squares > 0, squares / no_smaller, 0))


def _smallest(scores: torch.Tensor, n_lost: int) -> torch.Tensor:
    lost = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    lost[torch.argsort(scores, stable=True)[:n_lost]] = True
    return lost


def _smallest_of_all(scores: Mapping[str, torch.Tensor], n_lost: int) -> dict[str, torch.Tensor]:
    if not scores:
        return {}
    lost = _smallest(torch.cat(list(scores.values())), n_lost)
    return dict(zip(scores, torch.split(lost, [len(each) for each in scores.values()]), strict=True))
