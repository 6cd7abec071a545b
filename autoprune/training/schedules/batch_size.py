"""Batch-size schedules: pure functions from training progress to the number of examples in an optimizer step."""

import math
from typing import Any

from autoprune.training.schedules.lr import whole_epochs
from autoprune.training.schedules.parameters import KindSpec, ParameterSpec, resolve_params
from autoprune.trial import ScheduleConfig

MAX_START = 4096

_SIZE = ParameterSpec("int", low=1, high=MAX_START)
_FACTOR = ParameterSpec("float", low=0, low_open=True)
_LIMITS = {
    "min_size": ParameterSpec("int", low=1, default=1),
    "max_size": ParameterSpec("int", low=1, default=MAX_START),
}
BATCH_SIZE_SCHEDULES: dict[str, KindSpec] = {
    "constant": KindSpec("stays at size", {"size": _SIZE, **_LIMITS}),
    "step": KindSpec(
        "multiplied by factor after every `every` epochs",
        {"start": _SIZE, "factor": _FACTOR, "every": ParameterSpec("int", low=1), **_LIMITS},
    ),
    "exponential": KindSpec("multiplied by gamma after every epoch", {"start": _SIZE, "gamma": _FACTOR, **_LIMITS}),
    "with_lr": KindSpec(
        "changes where the learning-rate schedule lowers the rate: grows instead of it, or shrinks with it",
        {"start": _SIZE, "mode": ParameterSpec("choice", choices=("grow", "shrink"), default="grow"), **_LIMITS},
    ),
}
"""Kind -> its parameters. Every size is kept within ``[min_size, max_size]``; ``max_size`` wins if they cross."""


def batch_size_at(
    config: ScheduleConfig, progress: float, epochs: int, lr_decay: float = 1.0, n_train: int | None = None
) -> int:
    """Return the batch size of the optimizer step that starts at ``progress``.

    Fractions are rounded to the nearest integer; in with_lr's grow mode down, so that its rate never exceeds the peak.

    Args:
        progress: Share of all training examples seen before the step, in [0, 1).
        epochs: Epochs of the whole training.
        lr_decay: For with_lr: what the learning-rate schedule has left of its peak rate, in [0, 1].
        n_train: Training examples; no batch is larger.

    Raises:
        AutopruneError: If the kind or a parameter is not one of ``BATCH_SIZE_SCHEDULES``.

    Source:
        grow: Smith et al. 2018, https://arxiv.org/abs/1711.00489, section 3.
    """
    params: dict[str, Any] = resolve_params("batch-size schedule", BATCH_SIZE_SCHEDULES, config.kind, config.params)
    low: int = params["min_size"]
    high: int = params["max_size"] if n_train is None else min(params["max_size"], n_train)

    def clamp(size: float) -> int:
        return round(min(max(size, low), high))

    match config.kind:
        case "constant":
            return clamp(params["size"])
        case "step":
            return clamp(params["start"] * _power(params["factor"], whole_epochs(progress, epochs) // params["every"]))
        case "exponential":
            return clamp(params["start"] * _power(params["gamma"], whole_epochs(progress, epochs)))
    start = clamp(params["start"])
    if params["mode"] == "shrink":
        return clamp(start * lr_decay)
    if start >= high * lr_decay:
        return high
    return int(start / lr_decay * (1 + 1e-12))


def _power(base: float, exponent: int) -> float:
    try:
        return float(base) ** exponent
    except OverflowError:
        return math.inf
