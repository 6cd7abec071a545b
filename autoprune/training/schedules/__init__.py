"""Learning-rate and batch-size schedules as pure functions of training progress; loads no torch."""

from autoprune.training.schedules.batch_size import BATCH_SIZE_SCHEDULES, batch_size_at
from autoprune.training.schedules.joint import lr_and_batch_size
from autoprune.training.schedules.lr import LR_SCHEDULES, lr_at
from autoprune.training.schedules.parameters import KindSpec, ParameterSpec, resolve_params
from autoprune.training.schedules.stretch import stretched

__all__ = [
    "BATCH_SIZE_SCHEDULES",
    "LR_SCHEDULES",
    "KindSpec",
    "ParameterSpec",
    "batch_size_at",
    "lr_and_batch_size",
    "lr_at",
    "resolve_params",
    "stretched",
]
