"""A sensitivity meter of a task: it judges by the task's metric on training examples."""

from collections.abc import Iterator

import torch
from torch import nn

from autoprune.config.metric import MetricSpec
from autoprune.network.call import Inputs
from autoprune.network.copies import copy_network
from autoprune.pruning.channels.criteria import needs_data
from autoprune.pruning.plan import PruningPlan
from autoprune.pruning.sensitivity.measure import SensitivityMeter
from autoprune.tasks.splits import TensorSplit
from autoprune.tasks.task import Task
from autoprune.training.batch_norm import can_recalibrate, recalibrate_on_batches
from autoprune.training.evaluation import evaluate
from autoprune.training.memory import find_executable_batch_size

N_EXAMPLES, N_RECALIBRATION = 2048, 512
"""Training examples that a cut network is judged on, and others that its batch norm is recalibrated on."""

BATCH = 64
"""Examples in one pass that recalibrates batch norm; one figure for all devices, so that it comes out the same."""


def task_meter(
    model: nn.Module,
    plan: PruningPlan,
    task: Task,
    metric: MetricSpec,
    device: torch.device | str = "cpu",
    *,
    criterion: str = "l2",
    n_examples: int = N_EXAMPLES,
    n_recalibration: int = N_RECALIBRATION,
    seed: int = 0,
) -> SensitivityMeter:
    """Make a meter that judges by the task's metric on training examples.

    Training and not validation examples: the search chooses by the validation split, and what it is told beforehand
    must not have been fitted to it. Nothing is lost by that: on CIFAR-10 with ResNet-20, drops measured on training and
    on validation examples rank the cuts alike (Spearman's correlation with those on test examples is 0.986 for both),
    only that the former are larger by a sixth. The examples are read once and stay in memory.

    Args:
        metric: Which direction of the task's metric is better.
        n_examples: Training examples to judge on, not augmented; all if there are fewer.
        n_recalibration: Training examples for batch norm and for criteria that need data, others than those judged on
            as far as there are any; 0 leaves batch norm alone.
        seed: Decides which examples are drawn.
    """
    train = task.data.train
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    judged = TensorSplit(*train.batch(order[:n_examples]))
    rest = order[n_examples:] if len(order) >= n_examples + n_recalibration else order.flip(0)
    others = TensorSplit(*train.batch(rest[: max(1, n_recalibration)]))
    keep_frozen = task.frozen == "keep"
    adapts = n_recalibration > 0 and can_recalibrate(model, keep_frozen=keep_frozen)

    def calibration() -> Iterator[tuple[Inputs, torch.Tensor]]:
        return (others.batch(part) for part in torch.split(torch.arange(len(others)), BATCH))

    def recalibrate(candidate: nn.Module) -> None:
        def attempt(n_at_once: int) -> None:
            parts = torch.split(torch.arange(len(others)), n_at_once)
            batches = (others.batch(part)[0] for part in parts)
            recalibrate_on_batches(candidate, batches, device, keep_frozen=keep_frozen)

        find_executable_batch_size(attempt, BATCH, device, "recalibrating batch norm")

    return SensitivityMeter(
        copy_network(model).to(device),
        plan,
        lambda candidate: metric.score(evaluate(candidate, judged, task, device).metric),
        example_inputs=task.example_inputs(2),
        recalibrate=recalibrate if adapts else lambda model: None,
        criterion=criterion,
        calibration=calibration if needs_data(criterion) else None,
        loss=task.loss,
        seed=seed,
        examples_per_point=len(judged) + len(others) * (int(adapts) + int(needs_data(criterion))),
    )
