"""Prunes the network of one trial, by every method: at once, or gradually while it trains."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from autoprune.network.call import Inputs
from autoprune.pruning.apply import Pruned, looks_at_data, prune
from autoprune.pruning.methods import PRUNING_METHODS
from autoprune.pruning.plan import PruningPlan
from autoprune.tasks.task import Task
from autoprune.training.loop import Trainer
from autoprune.training.memory import find_executable_batch_size
from autoprune.training.precision import Precision
from autoprune.trial import PruningConfig

N_GRADUAL_STEPS = 10
"""Steps that gradual pruning is spread over."""

N_CALIBRATION, CALIBRATION_BATCH = 512, 128
"""Training examples, and examples a batch, that data-driven importance criteria and reconstruction look at."""


class TrialPruner:
    """Prunes the network of one trial, by every method in :data:`PRUNING_METHODS`.

    Args:
        pruning: What is to be gone at the end.
        parent_widths: Group -> channels of the network that it starts from.
        seed: The trial's.
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
        self._task, self._plan, self._pruning = task, plan, pruning
        self._seed, self._device, self._precision = seed, device, precision
        self._methods = [method.in_trial(pruning, parent_widths) for method in PRUNING_METHODS.values()]
        self._example = task.example_inputs(2)
        self._n_done = 0

    @property
    def is_gradual(self) -> bool:
        """Whether the pruning is spread over the training."""
        return self._pruning.gradual_share > 0

    def prune_at_once(self, model: nn.Module) -> nn.Module:
        """Remove all that is to be gone; returns the smaller network.

        With gradual pruning, that network is only there to be measured. Its cost does not depend on which channels go,
        so they are not chosen with care.
        """
        pruning = self._pruning
        if self.is_gradual:
            pruning = replace(pruning, criterion="l1", reconstruct=False)
        return self._prune(model, pruning).model

    def begin_gradually(self, model: nn.Module) -> None:
        """Note what the network has lost already, where gradual pruning begins."""
        for method in self._methods:
            method.begin_gradually(model)

    def prune_due(self, trainer: Trainer, progress: float) -> bool:
        """Take the steps of gradual pruning that are due; ``trainer`` goes on with the smaller network.

        They follow the cubic schedule of Zhu & Gupta 2017 (https://arxiv.org/abs/1710.01878, equation 1), in
        ``N_GRADUAL_STEPS`` steps.

        Args:
            progress: Of the training, from 0 to 1.

        Returns:
            Whether anything was due.
        """
        due = min(N_GRADUAL_STEPS, 1 + int(progress / self._pruning.gradual_share * N_GRADUAL_STEPS))
        if due <= self._n_done:
            return False
        self._n_done = due
        pruned = self._prune(self._precision.to_storage_layout(trainer.model), self._pruning_at(due / N_GRADUAL_STEPS))
        trainer.resize(pruned.model, pruned.kept_indices)
        return True

    def after_step(self) -> None:
        """Undo what an optimizer step did to what is gone."""
        for method in self._methods:
            method.after_step()

    def outcome(self) -> dict[str, Any]:
        """Return what the network has and lacks, as fields that :class:`EpochReport` and :class:`TrialResult` share."""
        return {name: value for method in self._methods for name, value in method.outcome().items()}

    def left_dense(self, model: nn.Module) -> tuple[str, ...]:
        """Return the parameters that were to be pruned and could not."""
        return tuple(name for method in self._methods for name in method.left_dense(model))

    def state_dict(self) -> dict[str, Any]:
        """What a trial's checkpoint needs of it; ``torch.load(weights_only=True)`` can read it."""
        state: dict[str, Any] = {"n_cuts": self._n_done}
        for method in self._methods:
            state |= method.state_dict()
        return state

    def load_state_dict(self, model: nn.Module, state: Mapping[str, Any]) -> None:
        """Go on with a network as it was when the state was taken."""
        self._n_done = state["n_cuts"]
        for method in self._methods:
            method.load_state_dict(model, state)

    def _prune(self, model: nn.Module, pruning: PruningConfig) -> Pruned:
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
        for method in self._methods:
            method.apply(pruned, pruning)
        return pruned

    def _pruning_at(self, share: float) -> PruningConfig:
        return PruningConfig(**{name: value for method in self._methods for name, value in method.at(share).items()})

    def _calibration(self, batch_size: int) -> Iterable[tuple[Inputs, torch.Tensor]]:
        train = self._task.data.train
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(self._seed))[:N_CALIBRATION]
        return (train.batch(part) for part in torch.split(order, batch_size))
