"""Stretch a schedule over a training of another length."""

from dataclasses import replace

from autoprune.trial import Scalar, ScheduleConfig

_COUNTS = ("every", "patience")
"""Parameters that count epochs."""
_PER_EPOCH = "gamma"
"""The parameter that is a factor for each epoch."""


def stretched(schedule: ScheduleConfig, factor: float) -> ScheduleConfig:
    """Return a schedule of the same shape over a training of ``factor`` times as many epochs.

    What depends on progress alone stays. Epochs that are counted (``every``, ``patience``) become ``factor`` times as
    many, rounded, and a factor an epoch (``gamma``) becomes its root, so that as much is left at the end.

    Args:
        factor: At least 1.
    """

    def change(name: str, value: Scalar) -> Scalar:
        if name in _COUNTS:
            return round(int(value) * factor)
        return float(value) ** (1 / factor) if name == _PER_EPOCH else value

    return replace(schedule, params={name: change(name, value) for name, value in schedule.params.items()})
