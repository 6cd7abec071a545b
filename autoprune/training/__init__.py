"""Training a network under schedules, and judging it. The names that need torch are loaded at first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from autoprune.spec.optimizers import OPTIMIZERS

if TYPE_CHECKING:
    from autoprune.training.batch_norm import has_running_statistics, recalibrate_batch_norm, recalibrate_on_batches
    from autoprune.training.checkpoint import load_checkpoint, save_checkpoint
    from autoprune.training.evaluation import Evaluation, evaluate
    from autoprune.training.loop import EpochMetrics, Trainer, TrainingDiverged
    from autoprune.training.optimizers import build_optimizer

__all__ = [
    "OPTIMIZERS",
    "EpochMetrics",
    "Evaluation",
    "Trainer",
    "TrainingDiverged",
    "build_optimizer",
    "evaluate",
    "has_running_statistics",
    "load_checkpoint",
    "recalibrate_batch_norm",
    "recalibrate_on_batches",
    "save_checkpoint",
]

_MODULES = {
    "EpochMetrics": "loop",
    "Evaluation": "evaluation",
    "Trainer": "loop",
    "TrainingDiverged": "loop",
    "build_optimizer": "optimizers",
    "evaluate": "evaluation",
    "has_running_statistics": "batch_norm",
    "load_checkpoint": "checkpoint",
    "recalibrate_batch_norm": "batch_norm",
    "recalibrate_on_batches": "batch_norm",
    "save_checkpoint": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
