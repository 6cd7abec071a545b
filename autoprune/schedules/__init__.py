"""Learning-rate and batch-size schedules as pure functions of training progress; loads no torch."""

from autoprune.schedules.batch_size import BATCH_SIZE_SCHEDULES, batch_size_at
from autoprune.schedules.joint import rate_and_batch
from autoprune.schedules.lr import LR_SCHEDULES, lr_at
from autoprune.schedules.parameters import Kind, ParamKind, resolve_params
from autoprune.schedules.stretch import stretched

__all__ = [
    "BATCH_SIZE_SCHEDULES",
    "LR_SCHEDULES",
    "Kind",
    "ParamKind",
    "batch_size_at",
    "lr_at",
    "rate_and_batch",
    "resolve_params",
    "stretched",
]
