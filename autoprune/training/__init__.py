"""Training a network under schedules, and judging it. The names that need torch are loaded at first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from autoprune.spec.optimizers import OPTIMIZERS

if TYPE_CHECKING:
    from autoprune.training.batch_norm import has_running_statistics, recalibrate_batch_norm, recalibrate_on_batches
    from autoprune.training.checkpoint import load_checkpoint, save_checkpoint
    from autoprune.training.distillation import Distillation
    from autoprune.training.evaluation import Evaluation, evaluate
    from autoprune.training.loop import EpochMetrics, Trainer, TrainingDiverged
    from autoprune.training.memory import OutOfDeviceMemory, free_memory, with_fewer_at_once
    from autoprune.training.numerics import FLOAT32, CompileError, Numerics
    from autoprune.training.optimizers import build_optimizer

__all__ = [
    "FLOAT32",
    "OPTIMIZERS",
    "CompileError",
    "Distillation",
    "EpochMetrics",
    "Evaluation",
    "Numerics",
    "OutOfDeviceMemory",
    "Trainer",
    "TrainingDiverged",
    "build_optimizer",
    "evaluate",
    "free_memory",
    "has_running_statistics",
    "load_checkpoint",
    "recalibrate_batch_norm",
    "recalibrate_on_batches",
    "save_checkpoint",
    "with_fewer_at_once",
]

_MODULES = {
    "FLOAT32": "numerics",
    "CompileError": "numerics",
    "Distillation": "distillation",
    "EpochMetrics": "loop",
    "Evaluation": "evaluation",
    "Numerics": "numerics",
    "OutOfDeviceMemory": "memory",
    "Trainer": "loop",
    "TrainingDiverged": "loop",
    "build_optimizer": "optimizers",
    "evaluate": "evaluation",
    "free_memory": "memory",
    "has_running_statistics": "batch_norm",
    "load_checkpoint": "checkpoint",
    "recalibrate_batch_norm": "batch_norm",
    "recalibrate_on_batches": "batch_norm",
    "save_checkpoint": "checkpoint",
    "with_fewer_at_once": "memory",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
