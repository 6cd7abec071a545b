"""Weight pruning: single weights of smallest magnitude set to zero, and kept there while training."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from autoprune.errors import PruningError


class WeightMasks:
    """Which single weights of a network stay zero; ``masks`` is true where a weight stays, by parameter name.

    Of a parameter, exactly ``round(ratio * numel)`` weights go; of equal magnitudes, the first go.

    Args:
        ratios: Parameter name -> share of its present weights to zero, in [0, 1). Names that the network lacks,
            because a removed block took them, are ignored.
        scope: ``"layer"`` ranks within each parameter. ``"global"`` ranks all named parameters together, at the
            overall share that the ratios amount to.

    Raises:
        PruningError: If a ratio is outside [0, 1) or the scope is unknown.

    Source:
        Han et al. 2015, arXiv 1506.02626
    """

    def __init__(
        self, model: nn.Module, ratios: Mapping[str, float], scope: Literal["layer", "global"] = "layer"
    ) -> None:
        for name, ratio in ratios.items():
            if not 0 <= ratio < 1:
                raise PruningError(f"weight_ratios['{name}'] must be in [0, 1), got {ratio}.")
        if scope not in ("layer", "global"):
            raise PruningError(f"weight_scope must be 'layer' or 'global', got '{scope}'.")
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self._parameters = {name: parameters[name] for name in ratios if name in parameters}
        sizes = {name: parameter.numel() for name, parameter in self._parameters.items()}
        if scope == "layer":
            lost = {
                name: _smallest(parameter.detach().flatten(), round(ratios[name] * sizes[name]))
                for name, parameter in self._parameters.items()
            }
        else:
            lost = self._rank_together(round(sum(ratios[name] * size for name, size in sizes.items())))
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

    @property
    def n_zero(self) -> int:
        """Weights that the masks keep at zero."""
        return sum(int((~mask).sum()) for mask in self.masks.values())

    @torch.no_grad()
    def apply_(self) -> None:
        """Set the masked weights to zero; call it at the start and after each optimizer step."""
        for name, parameter in self._parameters.items():
            parameter.masked_fill_(~self.masks[name], 0)

    def _rank_together(self, n_lost: int) -> dict[str, torch.Tensor]:
        if not self._parameters:
            return {}
        weights = torch.cat([parameter.detach().flatten() for parameter in self._parameters.values()])
        sizes = [parameter.numel() for parameter in self._parameters.values()]
        return dict(zip(self._parameters, torch.split(_smallest(weights, n_lost), sizes), strict=True))


def _smallest(weights: torch.Tensor, n_lost: int) -> torch.Tensor:
    lost = torch.zeros(weights.shape, dtype=torch.bool, device=weights.device)
    lost[torch.argsort(weights.abs(), stable=True)[:n_lost]] = True
    return lost
