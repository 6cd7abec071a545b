"""Batch-size schedules, alone and joined with the learning rate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.training.schedules import BATCH_SIZE_SCHEDULES, LR_SCHEDULES, batch_size_at, lr_and_batch_size, lr_at
from autoprune.trial import Scalar, ScheduleConfig

LR_EXAMPLES: dict[str, dict[str, Scalar]] = {
    "constant": {},
    "exponential": {"gamma": 0.7},
    "step": {"factor": 0.1, "every": 2},
    "cosine": {},
    "one_cycle": {},
    "polynomial": {"power": 2.0},
    "plateau": {"factor": 0.3, "patience": 0},
}
EXAMPLES: dict[str, dict[str, Scalar]] = {
    "constant": {"size": 48},
    "step": {"start": 48, "factor": 2, "every": 3},
    "exponential": {"start": 48, "gamma": 0.6},
    "with_lr": {"start": 48},
}
LOSSES = [0.5, 0.6, 0.4, 0.7]


def batch_size(kind: str, **params: Scalar) -> ScheduleConfig:
    return ScheduleConfig(kind, {**EXAMPLES[kind], **params})


def lr(kind: str, **params: Scalar) -> ScheduleConfig:
    return ScheduleConfig(kind, {"lr": 0.1, **LR_EXAMPLES[kind], **params})


def test_every_kind_has_an_example() -> None:
    assert set(EXAMPLES) == set(BATCH_SIZE_SCHEDULES)
    assert set(LR_EXAMPLES) == set(LR_SCHEDULES)


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (batch_size("constant"), [48] * 8),
        (batch_size("step", max_size=150), [48, 48, 48, 96, 96, 96, 150, 150]),
        (batch_size("step", factor=0.5, every=2, min_size=10), [48, 48, 24, 24, 12, 12, 10, 10]),
        (batch_size("exponential", gamma=2.0), [48, 96, 192, 384, 768, 1536, 3072, 4096]),
        (batch_size("exponential", gamma=0.1), [48, 5, 1, 1, 1, 1, 1, 1]),
        (batch_size("exponential", gamma=1e200), [48] + [4096] * 7),
    ],
)
def test_sizes_epoch_by_epoch(config: ScheduleConfig, sizes: list[int]) -> None:
    assert [batch_size_at(config, epoch / 8, 8) for epoch in range(8)] == sizes
    assert [batch_size_at(config, epoch / 8, 8, n_train=100) for epoch in range(8)] == [min(s, 100) for s in sizes]


@given(
    kind=st.sampled_from(sorted(BATCH_SIZE_SCHEDULES)),
    mode=st.sampled_from(["grow", "shrink"]),
    lr_kind=st.sampled_from(sorted(LR_SCHEDULES)),
    progress=st.floats(0, 1, exclude_max=True),
    warmup=st.floats(0, 0.9),
    limits=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    n_train=st.integers(1, 5000),
)
def test_sizes_are_integers_within_the_limits(
    kind: str, mode: str, lr_kind: str, progress: float, warmup: float, limits: tuple[int, int], n_train: int
) -> None:
    low, high = sorted(limits)
    params: dict[str, Scalar] = {"min_size": low, "max_size": high, **({"mode": mode} if kind == "with_lr" else {})}
    rate, size = lr_and_batch_size(
        lr(lr_kind, warmup=warmup), batch_size(kind, **params), progress, 10, LOSSES, n_train=n_train
    )
    assert type(size) is int
    assert min(low, high, n_train) <= size <= min(high, n_train)
    assert 0 <= rate <= 0.1 * (1 + 1e-9)


@given(
    lr_kind=st.sampled_from(sorted(LR_SCHEDULES)),
    progress=st.floats(0, 1, exclude_max=True),
    warmup=st.floats(0, 0.9),
    start=st.integers(1, 512),
    max_size=st.integers(1, 8192),
)
def test_growing_keeps_the_noise_scale_on_the_rates_path(
    lr_kind: str, progress: float, warmup: float, start: int, max_size: int
) -> None:
    schedule = lr(lr_kind, warmup=warmup)
    grow = batch_size("with_lr", start=start, max_size=max_size)
    rate, size = lr_and_batch_size(schedule, grow, progress, 10, LOSSES)
    scheduled = lr_at(schedule, progress, 10, LOSSES)
    assert rate / size == pytest.approx(scheduled / min(start, max_size), rel=1e-9)
    assert scheduled * (1 - 1e-9) <= rate
    assert size >= min(start, max_size)


def test_growing_takes_the_place_of_a_lower_rate() -> None:
    schedule, grow = lr("step"), batch_size("with_lr", start=32, max_size=1000)
    steps = [lr_and_batch_size(schedule, grow, epoch / 8, 8) for epoch in range(0, 8, 2)]
    assert [size for _, size in steps] == [32, 320, 1000, 1000]
    assert [rate for rate, _ in steps] == pytest.approx([0.1, 0.1, 0.1 * 0.3125, 0.1 * 0.03125])


def test_shrinking_follows_the_rate() -> None:
    schedule, shrink = lr("step", factor=0.5), batch_size("with_lr", start=32, mode="shrink", min_size=8)
    steps = [lr_and_batch_size(schedule, shrink, epoch / 8, 8) for epoch in range(0, 8, 2)]
    assert [size for _, size in steps] == [32, 16, 8, 8]
    assert [rate for rate, _ in steps] == pytest.approx([0.1, 0.05, 0.025, 0.0125])


@pytest.mark.parametrize("mode", ["grow", "shrink"])
@pytest.mark.parametrize("lr_kind", sorted(LR_SCHEDULES))
def test_batch_stays_at_its_start_while_the_rate_rises(lr_kind: str, mode: str) -> None:
    schedule, joined = lr(lr_kind, warmup=0.5), batch_size("with_lr", mode=mode)
    for progress in (0.0, 0.2, 0.49):
        rate, size = lr_and_batch_size(schedule, joined, progress, 10, LOSSES)
        assert size == 48
        assert rate == pytest.approx(lr_at(schedule, progress, 10, LOSSES))


def test_linear_scaling() -> None:
    step = batch_size("step", every=1, start=32)
    assert lr_and_batch_size(lr("constant"), step, 0.0, 4, (), 128) == (pytest.approx(0.025), 32)
    assert lr_and_batch_size(lr("constant"), step, 0.5, 4, (), 128) == (pytest.approx(0.1), 128)
    grow = batch_size("with_lr", start=32)
    assert lr_and_batch_size(lr("step"), grow, 0.5, 4, (), 128) == (pytest.approx(0.025), 320)
    assert lr_and_batch_size(lr("constant"), batch_size("constant"), 0.0, 4, (), 64, n_train=16) == (
        pytest.approx(0.025),
        16,
    )
