"""A stretched schedule does over a long training what the original does over a short one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.training.schedules import batch_size_at, lr_at, stretched
from autoprune.trial import ScheduleConfig

EPOCHS = 6
RATES = [
    ScheduleConfig("constant", {"lr": 0.2}),
    ScheduleConfig("exponential", {"lr": 0.2, "gamma": 0.8}),
    ScheduleConfig("step", {"lr": 0.2, "factor": 0.3, "every": 2}),
    ScheduleConfig("cosine", {"lr": 0.2, "warmup": 0.25, "min_factor": 0.05}),
    ScheduleConfig("one_cycle", {"lr": 0.2}),
    ScheduleConfig("polynomial", {"lr": 0.2, "power": 1.7}),
]
SIZES = [
    ScheduleConfig("constant", {"size": 64}),
    ScheduleConfig("step", {"start": 32, "factor": 2, "every": 3}),
    ScheduleConfig("exponential", {"start": 32, "gamma": 1.5}),
]


@given(st.sampled_from(RATES), st.integers(1, 7), st.integers(0, EPOCHS - 1))
def test_the_rate_is_that_of_the_original_where_its_epochs_begin(
    schedule: ScheduleConfig, factor: int, epoch: int
) -> None:
    progress = epoch / EPOCHS
    long = lr_at(stretched(schedule, factor), progress, factor * EPOCHS)
    assert long == pytest.approx(lr_at(schedule, progress, EPOCHS))


@given(st.sampled_from(SIZES), st.integers(1, 7), st.integers(0, EPOCHS - 1))
def test_the_batch_size_too(schedule: ScheduleConfig, factor: int, epoch: int) -> None:
    progress = epoch / EPOCHS
    long = batch_size_at(stretched(schedule, factor), progress, factor * EPOCHS)
    assert long == batch_size_at(schedule, progress, EPOCHS)


def test_a_plateau_waits_for_longer() -> None:
    plateau = ScheduleConfig("plateau", {"lr": 0.2, "factor": 0.5, "patience": 2})
    assert stretched(plateau, 2.4).params == {"lr": 0.2, "factor": 0.5, "patience": 5}
    assert stretched(plateau, 1) == plateau
