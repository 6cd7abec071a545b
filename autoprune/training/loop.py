"""The training loop: learning rate and batch size set anew at every step, any epoch restartable."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from autoprune.errors import AutopruneError, TaskError
from autoprune.network.call import to_device
from autoprune.tasks.task import Task
from autoprune.training.distillation import Distillation
from autoprune.training.memory import find_executable_batch_size
from autoprune.training.optimizers import build_optimizer
from autoprune.training.precision import FLOAT32, Precision
from autoprune.training.prefetch import MicroBatch, Prefetcher
from autoprune.training.schedules import lr_and_batch_size
from autoprune.trial import OptimizerConfig, ScheduleConfig


class TrainingDiverged(AutopruneError):  # noqa: N818 - an outcome of a trial more than a mistake
    """A loss became infinite or NaN."""


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch of training did.

    Attributes:
        train_loss: Mean loss over the epoch's examples, each at the step that trained on it; with distillation, of both
            its parts.
        lr: Learning rate at the last step.
        batch_size: Batch size at the last full step.
        train_time_s: Wall-clock time of the epoch.
    """

    train_loss: float
    lr: float
    batch_size: int
    train_time_s: float


class Trainer:
    """Train one network, epoch by epoch.

    The order of the examples, the augmentation and torch's global random numbers (dropout) follow from ``seed`` and the
    epoch alone, so that training continued from a checkpoint gives the same network as training that was never
    interrupted (bit for bit on the CPU, unless it is compiled). For a GPU the next batch is read and augmented in a
    thread of its own while a step is computed, never by two at once.

    Where the device's memory is not enough, the step's batch is divided into parts half as large, for the rest of the
    training too, and the step begins anew. The gradients are zero again, and the random numbers and the network's
    buffers, batch norm's statistics among them, are as before the step. So the network is the one that a
    ``max_micro_batch_size`` of that size would have given. Only torch's state is restored.

    Args:
        model: Moved to ``device`` and trained in place.
        epochs: Epochs of the whole training, which the schedules are laid over.
        seed: 0 or more.
        max_micro_batch_size: Most examples in one forward pass. A larger batch is accumulated in parts of nearly equal
            size, to the same gradient if the loss is a mean over examples; batch norm, though, sees the parts.
        reference_batch_size: Batch size that the learning rate is meant for; see ``lr_and_batch_size``.
        precision: Number format and memory layout. A step whose gradients fp16 can't hold is left out.
        distillation: Draws the outputs to the dense network's; ``None`` leaves the loss to the targets.
        before_step: Called before every optimizer step with the progress in [0, 1); may call ``resize``.
        after_step: Called after every optimizer step, for example to set pruned weights to zero again.

    Attributes:
        model: The network, another one after ``resize``.
        epoch: Epochs done so far.
        validation_losses: What ``record_validation`` was told; the plateau schedule looks at it.
        micro_batch_size: Most examples in one forward pass: ``max_micro_batch_size``, or fewer after memory ran out.

    Raises:
        AutopruneError: If the optimizer's name or a setting is unknown or out of bounds.
        TaskError: If there are no training examples.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        *,
        optimizer: OptimizerConfig,
        lr_schedule: ScheduleConfig,
        batch_size_schedule: ScheduleConfig,
        epochs: int,
        seed: int,
        device: torch.device | str = "cpu",
        max_micro_batch_size: int | None = None,
        reference_batch_size: int | None = None,
        precision: Precision = FLOAT32,
        distillation: Distillation | None = None,
        before_step: Callable[[float], None] | None = None,
        after_step: Callable[[], None] | None = None,
    ) -> None:
        if len(task.data.train) == 0:
            raise TaskError("task.data: the training split must have examples, got an empty one.")
        self.epoch = 0
        self.validation_losses: list[float] = []
        self.micro_batch_size = max_micro_batch_size
        self._task = task
        self._optimizer_config = optimizer
        self._lr_schedule = lr_schedule
        self._batch_size_schedule = batch_size_schedule
        self._epochs = epochs
        self._seed = seed
        self._device = torch.device(device)
        self._precision = precision
        self._distillation = distillation
        self._scaler = precision.scaler(self._device)
        self._reference_batch_size = reference_batch_size
        self._before_step = before_step
        self._after_step = after_step
        self._set_model(model)

    def run_epoch(self) -> EpochMetrics:
        """Train on every training example once.

        Raises:
            TrainingDiverged: If a step's loss is not finite; that step is not taken.
            OutOfDeviceMemory: If a single example is too much for the device.
            CompileError: If the network can't be compiled.
            ValueError: If all epochs are done.
        """
        if self.epoch >= self._epochs:
            raise ValueError(f"`epoch < epochs` must hold, but got epoch={self.epoch}, epochs={self._epochs}.")
        start_time = time.perf_counter()
        generator = self._seed_epoch()
        steps, full_batch_size = self._plan_epoch(generator)
        self.model.train()
        total_loss = 0.0
        batches = [step.indices for step in steps]
        with Prefetcher(
            self._task, batches, self.micro_batch_size, generator, ahead=self._device.type == "cuda"
        ) as prefetcher:
            for step in steps:
                if self._before_step is not None:
                    prefetcher.wait_for_reader()
                    self._before_step(step.progress)
                total_loss += self._step(step, prefetcher) * len(step.indices)
        self.epoch += 1
        mean_loss = total_loss / len(self._task.data.train)
        return EpochMetrics(mean_loss, steps[-1].lr, full_batch_size, time.perf_counter() - start_time)

    def record_validation(self, loss: float) -> None:
        """Tell the mean validation loss of the epoch just done.

        Raises:
            TrainingDiverged: If it is not finite.
        """
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"epoch {self.epoch}: the validation loss must be finite, got {loss}. A lower learning rate may help."
            )
        self.validation_losses.append(loss)

    def resize(self, model: nn.Module, kept_indices: Mapping[str, torch.Tensor]) -> None:
        """Go on with a network that has lost channels; the optimizer keeps its state of the entries that are left.

        Args:
            model: The smaller network; may be the old one, changed in place.
            kept_indices: Parameter name -> flat indices into the old parameter, in the shape of the new one, int64.
                A parameter that is not named has kept all its entries.

        Raises:
            ValueError: If a parameter's new shape and its kept indices don't fit.
        """
        old_parameters, old_state = self._parameters, self._optimizer.state
        self._set_model(model)
        for name, parameter in self._parameters.items():
            old = old_parameters.get(name)
            if old is None or old not in old_state:
                continue
            source = kept_indices.get(name)
            if (old.shape if source is None else source.shape) != parameter.shape:
                raise ValueError(
                    f"kept indices of '{name}' must have the new parameter's shape {tuple(parameter.shape)}, "
                    f"got {None if source is None else tuple(source.shape)}."
                )
            self._optimizer.state[parameter] = {
                key: _select(value, old.shape, source) for key, value in old_state[old].items()
            }

    def state_dict(self) -> dict[str, Any]:
        """Copy to the CPU all that is needed to go on after the last whole epoch.

        Returns:
            Nested dicts of tensors and numbers that ``torch.load(weights_only=True)`` can read.
        """
        state = {
            "epoch": self.epoch,
            "validation_losses": list(self.validation_losses),
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "device_batch": self.micro_batch_size,
        }
        copied: dict[str, Any] = tree_map_only(torch.Tensor, lambda tensor: tensor.detach().cpu().clone(), state)
        return copied

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that a Trainer with the same arguments and a network of the same shapes has given.

        Raises:
            RuntimeError: If the state is of a network with other names or shapes.
        """
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self.micro_batch_size = state["device_batch"]
        self.epoch = state["epoch"]
        self.validation_losses = list(state["validation_losses"])

    def _set_model(self, model: nn.Module) -> None:
        self.model = self._precision.to_training_layout(model.to(self._device)).train()
        self._network = self._precision.for_training(self.model)
        self._parameters = dict(model.named_parameters())
        self._optimizer = build_optimizer(self._optimizer_config, self._parameters.values(), lr=0.0)

    def _seed_epoch(self) -> torch.Generator:
        """Seed torch's global generators, and make the one for the order and the augmentation."""
        own_seed, global_seed = np.random.SeedSequence([self._seed, self.epoch]).generate_state(2, np.uint64)
        torch.manual_seed(int(global_seed))
        return torch.Generator().manual_seed(int(own_seed))

    def _plan_epoch(self, generator: torch.Generator) -> "tuple[list[_Step], int]":
        """Plan the steps of the next epoch; returns them, and the batch size of the last full one."""
        n_train = len(self._task.data.train)
        order = torch.randperm(n_train, generator=generator)
        steps: list[_Step] = []
        n_seen, full_batch_size = 0, 0
        while n_seen < n_train:
            progress = (self.epoch * n_train + n_seen) / (self._epochs * n_train)
            lr, batch_size = lr_and_batch_size(
                self._lr_schedule,
                self._batch_size_schedule,
                progress,
                self._epochs,
                self.validation_losses,
                self._reference_batch_size,
                n_train,
            )
            if n_train - n_seen >= batch_size:
                full_batch_size = batch_size
            if n_train - n_seen == batch_size + 1:
                batch_size += 1  # batch norm can't normalise a last batch of one example
            steps.append(_Step(progress, lr, order[n_seen : n_seen + batch_size]))
            n_seen += len(steps[-1].indices)
        return steps, full_batch_size

    def _step(self, step: "_Step", prefetcher: Prefetcher) -> float:
        """Take one optimizer step; returns the mean loss over the batch."""
        for group in self._optimizer.param_groups:
            group["lr"] = step.lr
        before = _StepState.of(self.model, self._device)
        largest, first = prefetcher.largest_micro_batch, True

        def compute_gradients(n_at_once: int) -> float:
            nonlocal first
            read, first = (prefetcher.next_batch if first else partial(prefetcher.redivide_batch, n_at_once)), False
            micro_batches = read()
            prefetcher.prefetch_next()
            return self._compute_gradients(micro_batches, step.lr)

        batch_loss, fitting = find_executable_batch_size(
            compute_gradients,
            largest,
            self._device,
            f"epoch {self.epoch + 1}: training",
            undo=lambda: before.restore(self.model, self._device),
        )
        if fitting < largest:
            self.micro_batch_size = fitting
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._after_step is not None:
            self._after_step()
        return batch_loss

    def _compute_gradients(self, micro_batches: Iterable[MicroBatch], lr: float) -> float:
        """Accumulate the gradients of a batch over its micro-batches; returns the mean loss over the batch."""
        self._optimizer.zero_grad()
        batch_loss = 0.0
        for micro_batch in micro_batches:
            inputs = to_device(micro_batch.inputs, self._device)  # once, for both networks
            with self._precision.translate_compile_errors():
                outputs = self._precision.forward(self._network, inputs, self._device)
            loss = self._task.loss(outputs, to_device(micro_batch.targets, self._device))
            if self._distillation is not None:
                loss = self._distillation.mixed_loss(loss, outputs, inputs, self._task, self._precision, self._device)
            loss = loss * micro_batch.share
            with self._precision.translate_compile_errors():
                torch.autograd.backward(self._scaler.scale(loss))
            batch_loss += loss.item()  # only now: it waits until a GPU has computed all that it was given
            if not math.isfinite(batch_loss):
                raise TrainingDiverged(
                    f"epoch {self.epoch + 1}: the training loss must be finite, got {batch_loss} at lr={lr:.3g}. "
                    "A lower learning rate may help."
                )
        return batch_loss


@dataclass(frozen=True)
class _Step:
    """One optimizer step of an epoch's plan."""

    progress: float
    lr: float
    indices: torch.Tensor


@dataclass(frozen=True)
class _StepState:
    """The state that a step changes before its optimizer runs; a :class:`Prefetcher` restores its own generator."""

    buffers: list[torch.Tensor]
    random_state: torch.Tensor
    gpu_random_state: torch.Tensor | None

    @classmethod
    def of(cls, model: nn.Module, device: torch.device) -> "_StepState":
        gpu_random_state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(_copied(list(model.buffers())), torch.get_rng_state(), gpu_random_state)

    @torch.no_grad()
    def restore(self, model: nn.Module, device: torch.device) -> None:
        torch.set_rng_state(self.random_state)
        if self.gpu_random_state is not None:
            torch.cuda.set_rng_state(self.gpu_random_state, device)
        for buffer, before in zip(model.buffers(), self.buffers, strict=True):
            buffer.copy_(before)


@torch.no_grad()
def _copied(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Copy tensors, on a GPU those of one dtype in one kernel: a kernel for each took a tenth of a small step."""
    copies = [torch.empty_like(tensor) for tensor in tensors]
    for dtype in {tensor.dtype for tensor in tensors}:
        to, of = ([each for each in side if each.dtype == dtype] for side in (copies, tensors))
        torch._foreach_copy_(to, of)
    return copies


def _select(value: Any, shape: torch.Size, source: torch.Tensor | None) -> Any:
    """Pick the entries of one optimizer state that belong to the parameter's kept entries."""
    if source is None or not isinstance(value, torch.Tensor) or value.shape != shape:
        return value
    return value.flatten()[source.to(value.device)]
