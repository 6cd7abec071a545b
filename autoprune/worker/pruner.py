"""What one trial cuts: all at once, or bit by bit while it trains."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from autoprune.network.call import Inputs
from autoprune.pruning.apply import Pruned, looks_at_data, prune
from autoprune.pruning.channels.gradual import gradual_weight_ratios, gradual_widths
from autoprune.pruning.plan import PruningPlan
from autoprune.pruning.weights import WeightMasks
from autoprune.tasks.task import Task
from autoprune.training.loop import Trainer
from autoprune.training.memory import find_executable_batch_size
from autoprune.training.precision import Precision
from autoprune.trial import PruningConfig

N_GRADUAL_CUTS = 10
"""Cuts that gradual pruning is spread over."""

N_CALIBRATION, CALIBRATION_BATCH = 512, 128
"""Training examples, and examples a batch, that data-driven importance criteria and reconstruction look at."""


class TrialCuts:
    """The cuts of one trial, and what they have left.

    Args:
        pruning: What is to be gone at the end.
        parent_widths: Group -> channels of the network that it starts from.
        seed: The trial's.

    Attributes:
        kept: Group -> channels left.
        removed_blocks: Blocks that are gone.
    """

    def __init__(
        self,
        task: Task,
        plan: PruningPlan,
        pruning: PruningConfig,
        parent_widths: Mapping[str, int],
        *,
        seed: int,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.kept: dict[str, int] = {}
        self.removed_blocks: tuple[str, ...] = ()
        self._task, self._plan, self._pruning = task, plan, pruning
        self._parent_widths = parent_widths
        self._parent_weight_ratios: dict[str, float] = {}
        self._seed, self._device, self._precision = seed, device, precision
        self._example = task.example_inputs(2)
        self._masks: WeightMasks | None = None
        self._n_done = 0

    @property
    def is_gradual(self) -> bool:
        """Whether the cuts are spread over the training."""
        return self._pruning.gradual_share > 0

    def cut_all(self, model: nn.Module) -> nn.Module:
        """Cut all that is to be gone at once; returns the smaller network.

        Where the cuts are gradual, that one is only there to be measured: what it costs does not depend on which
        channels go, so they are not chosen with care.
        """
        pruning = self._pruning
        if self.is_gradual:
            pruning = replace(pruning, criterion="l1", reconstruct=False)
        return self._cut(model, pruning).model

    def begin_gradually(self, model: nn.Module) -> None:
        """Look at what the network has lost already, where the gradual cuts begin."""
        self._masks = None
        self._parent_weight_ratios = _zero_shares(model, self._pruning.weight_ratios)

    def cut_due(self, trainer: Trainer, progress: float) -> bool:
        """Make the gradual cuts that are due; ``trainer`` goes on with the smaller network.

        They follow the cubic schedule of Zhu & Gupta 2017 (https://arxiv.org/abs/1710.01878, equation 1), in
        ``N_GRADUAL_CUTS`` steps.

        Args:
            progress: Of the training, from 0 to 1.

        Returns:
            Whether anything was due.
        """
        due = min(N_GRADUAL_CUTS, 1 + int(progress / self._pruning.gradual_share * N_GRADUAL_CUTS))
        if due <= self._n_done:
            return False
        self._n_done = due
        pruned = self._cut(self._precision.to_storage_layout(trainer.model), self._pruning_at(due / N_GRADUAL_CUTS))
        trainer.resize(pruned.model, pruned.kept_indices)
        return True

    def apply_masks(self) -> None:
        """Set the single weights that are gone to zero again."""
        if self._masks is not None:
            self._masks.apply_()

    def left_dense(self, model: nn.Module) -> tuple[str, ...]:
        """Parameters that were to lose weights and have no mask, as the pattern does not fit them."""
        masks = self._masks.masks if self._masks else {}
        present = dict(model.named_parameters(remove_duplicate=False))
        return tuple(name for name in self._pruning.weight_ratios if name in present and name not in masks)

    def state_dict(self) -> dict[str, Any]:
        """What a trial's checkpoint needs of it; ``torch.load(weights_only=True)`` can read it."""
        return {
            "masks": self._masks.masks if self._masks else {},
            "kept": dict(self.kept),
            "removed_blocks": list(self.removed_blocks),
            "n_cuts": self._n_done,
            "parent_weight_ratios": self._parent_weight_ratios,
        }

    def load_state_dict(self, model: nn.Module, state: Mapping[str, Any]) -> None:
        """Go on with a network as it was when the state was taken."""
        if state["masks"]:
            self._masks = WeightMasks.from_masks(model, state["masks"])
        self.kept = state["kept"]
        self.removed_blocks = tuple(state["removed_blocks"])
        self._n_done = state["n_cuts"]
        self._parent_weight_ratios = state["parent_weight_ratios"]

    def _cut(self, model: nn.Module, pruning: PruningConfig) -> Pruned:
        with_data = looks_at_data(pruning)

        def attempt(batch_size: int) -> Pruned:
            return prune(
                model,
                self._plan,
                pruning,
                example_inputs=self._example,
                calibration=partial(self._calibration, batch_size) if with_data else None,
                loss=self._task.loss,
                seed=self._seed,
            )

        pruned, _ = find_executable_batch_size(attempt, CALIBRATION_BATCH if with_data else 1, self._device, "pruning")
        self.kept, self.removed_blocks = pruned.widths, pruned.removed_blocks
        self._masks = (
            WeightMasks(pruned.model, pruning.weight_ratios, pruning.weight_scope, pruning.weight_pattern)
            if pruning.weight_ratios
            else None
        )
        self.apply_masks()
        return pruned

    def _pruning_at(self, t: float) -> PruningConfig:
        final = self._pruning
        return PruningConfig(
            widths=gradual_widths(self._parent_widths, final.widths, t),
            criterion=final.criterion,
            reconstruct=final.reconstruct,
            removed_blocks=final.removed_blocks,
            weight_ratios=gradual_weight_ratios(self._parent_weight_ratios, final.weight_ratios, t),
            weight_scope=final.weight_scope,
            weight_pattern=final.weight_pattern,
        )

    def _calibration(self, batch_size: int) -> Iterable[tuple[Inputs, torch.Tensor]]:
        train = self._task.data.train
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(self._seed))[:N_CALIBRATION]
        return (train.batch(part) for part in torch.split(order, batch_size))


def _zero_shares(model: nn.Module, at_most: Mapping[str, float]) -> dict[str, float]:
    """Parameter name -> share of its single weights that are zero, for the parameters named in ``at_most``."""
    return {
        name: min(at_most[name], float((parameter == 0).float().mean()))
        for name, parameter in model.named_parameters()
        if name in at_most
    }
