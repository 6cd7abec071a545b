"""Learning-rate schedules: pure functions from training progress to the learning rate."""

import math
from collections.abc import Sequence
from typing import Any

from autoprune.training.schedules.parameters import KindSpec, ParameterSpec, resolve_params
from autoprune.trial import ScheduleConfig

ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = 1e-4

_COMMON = {
    "lr": ParameterSpec("float", low=0, low_open=True),
    "warmup": ParameterSpec("float", low=0, high=1, high_open=True, default=0.0),
}
_FACTOR = ParameterSpec("float", low=0, high=1, low_open=True)
LR_SCHEDULES: dict[str, KindSpec] = {
    "constant": KindSpec("stays at lr", _COMMON),
    "exponential": KindSpec("multiplied by gamma after every epoch", {**_COMMON, "gamma": _FACTOR}),
    "step": KindSpec(
        "multiplied by factor after every `every` epochs",
        {**_COMMON, "factor": _FACTOR, "every": ParameterSpec("int", low=1)},
    ),
    "cosine": KindSpec(
        "half a cosine from lr to lr * min_factor",
        {**_COMMON, "min_factor": ParameterSpec("float", low=0, high=1, default=0.0)},
    ),
    "one_cycle": KindSpec(
        "rises from lr / 25 to lr over the share `rise`, then falls to lr / 10000, half a cosine each",
        {**_COMMON, "rise": ParameterSpec("float", low=0, high=1, low_open=True, high_open=True, default=0.3)},
    ),
    "polynomial": KindSpec(
        "lr * (1 - progress) ** power",
        {**_COMMON, "power": ParameterSpec("float", low=0, low_open=True, default=1.0)},
    ),
    "plateau": KindSpec(
        "multiplied by factor when the validation loss has not improved for more than `patience` epochs",
        {
            **_COMMON,
            "factor": ParameterSpec("float", low=0, high=1, low_open=True, high_open=True, default=0.1),
            "patience": ParameterSpec("int", low=0, default=2),
            "threshold": ParameterSpec("float", low=0, high=1, high_open=True, default=1e-4),
        },
    ),
}
"""Kind -> its parameters. ``lr`` is the peak rate, ``warmup`` the share of training over which the rate rises to it."""


def lr_at(config: ScheduleConfig, progress: float, epochs: int, validation_losses: Sequence[float] = ()) -> float:
    """Return the learning rate of the optimizer step that starts at ``progress``.

    During the warm-up the rate rises linearly from 0 to the schedule's first rate (``lr``; ``lr / 25`` for one_cycle).
    The schedule's own clock starts when the warm-up ends, for every kind: the smooth ones (cosine, one_cycle,
    polynomial) run over the share that is left, the stepwise ones (exponential, step) count whole epochs from there,
    and plateau looks at the losses of the epochs that began after it.

    Args:
        progress: Share of all training examples seen before the step, in [0, 1).
        epochs: Epochs of the whole training.
        validation_losses: One loss per epoch done, oldest first; only plateau looks at them.

    Raises:
        AutopruneError: If the kind or a parameter is not one of ``LR_SCHEDULES``.
        ValueError: If ``progress`` is outside [0, 1).

    Source:
        cosine: Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983, equation 5, without restarts.
        one_cycle: Smith & Topin 2018, https://arxiv.org/abs/1708.07120, in the form of torch's ``OneCycleLR``.
        polynomial: Chen et al. 2017, https://arxiv.org/abs/1606.00915, section 4.1.2.
        warm-up: Goyal et al. 2017, https://arxiv.org/abs/1706.02677, section 2.2.
    """
    rise, decay = rise_and_decay(config, progress, epochs, validation_losses)
    return float(config.params["lr"]) * rise * decay


def rise_and_decay(
    config: ScheduleConfig, progress: float, epochs: int, validation_losses: Sequence[float] = ()
) -> tuple[float, float]:
    """Split the rate into its way up and its way down: ``lr_at`` is ``lr * rise * decay``.

    Args:
        progress: As for ``lr_at``.
        epochs: As for ``lr_at``.
        validation_losses: As for ``lr_at``.

    Returns:
        ``(rise, decay)``, both in [0, 1]. ``decay`` is 1 until the rate has reached its peak, ``rise`` from there on.
    """
    if not 0 <= progress < 1:
        raise ValueError(f"`0 <= progress < 1` must hold, but got progress={progress}.")
    params: dict[str, Any] = resolve_params("learning-rate schedule", LR_SCHEDULES, config.kind, config.params)
    warmup = params["warmup"]
    if progress < warmup:
        first = ONE_CYCLE_START if config.kind == "one_cycle" else 1.0
        return first * progress / warmup, 1.0
    own_progress = (progress - warmup) / (1 - warmup)
    match config.kind:
        case "exponential":
            return 1.0, params["gamma"] ** whole_epochs(progress - warmup, epochs)
        case "step":
            return 1.0, params["factor"] ** (whole_epochs(progress - warmup, epochs) // params["every"])
        case "cosine":
            return 1.0, _half_cosine(1.0, params["min_factor"], own_progress)
        case "one_cycle":
            peak = params["rise"]
            if own_progress < peak:
                return _half_cosine(ONE_CYCLE_START, 1.0, own_progress / peak), 1.0
            return 1.0, _half_cosine(1.0, ONE_CYCLE_END, (own_progress - peak) / (1 - peak))
        case "polynomial":
            return 1.0, (1 - own_progress) ** params["power"]
        case "plateau":
            counted = validation_losses[math.ceil(warmup * epochs - 1e-9) :]
            return 1.0, params["factor"] ** n_reductions(counted, params["patience"], params["threshold"])
    return 1.0, 1.0


def whole_epochs(progress: float, epochs: int) -> int:
    """Count whole epochs in a share of training; an epoch's first step counts as inside, whatever float rounding."""
    return math.floor(progress * epochs + 1e-9)


def n_reductions(losses: Sequence[float], patience: int, threshold: float) -> int:
    """Count how often torch's ``ReduceLROnPlateau`` (min mode, relative threshold) lowers the rate over ``losses``.

    A loss is an improvement if it is below ``best * (1 - threshold)``; NaN never is.
    """
    best, n_bad, reductions = math.inf, 0, 0
    for loss in losses:
        if loss < best * (1 - threshold):
            best, n_bad = loss, 0
        else:
            n_bad += 1
        if n_bad > patience:
            reductions, n_bad = reductions + 1, 0
    return reductions


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
