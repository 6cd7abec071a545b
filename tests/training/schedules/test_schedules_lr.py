"""Learning-rate schedules against torch's own schedulers, closed forms and their general properties."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from autoprune.errors import AutopruneError
from autoprune.training.schedules import LR_SCHEDULES, lr_at
from autoprune.trial import ScheduleConfig

LR = 0.2
EXAMPLES = {
    "constant": {},
    "exponential": {"gamma": 0.8},
    "step": {"factor": 0.3, "every": 3},
    "cosine": {"min_factor": 0.05},
    "one_cycle": {"rise": 0.25},
    "polynomial": {"power": 1.7},
    "plateau": {"factor": 0.5, "patience": 1, "threshold": 0.01},
}
LOSSES = [1.0, 0.9, 0.895, 0.893, 0.95, 0.5, 0.6, 0.7, math.nan, 0.49, 0.499, 0.4, 0.41]


def config(kind: str, **params: float) -> ScheduleConfig:
    return ScheduleConfig(kind, {"lr": LR, **EXAMPLES[kind], **params})


def torch_rates(make_scheduler: type, n_steps: int, **params: float) -> list[float]:
    """Rates that a torch scheduler sets, one per step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = make_scheduler(optimizer, **params)
    rates = []
    for _ in range(n_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_every_kind_has_an_example() -> None:
    assert set(EXAMPLES) == set(LR_SCHEDULES)


@pytest.mark.parametrize(
    ("kind", "scheduler", "params"),
    [
        ("constant", lr_scheduler.ConstantLR, {"factor": 1.0}),
        ("exponential", lr_scheduler.ExponentialLR, {"gamma": 0.8}),
        ("step", lr_scheduler.StepLR, {"gamma": 0.3, "step_size": 3}),
        ("cosine", lr_scheduler.CosineAnnealingLR, {"T_max": 12, "eta_min": 0.05 * LR}),
        ("polynomial", lr_scheduler.PolynomialLR, {"total_iters": 12, "power": 1.7}),
    ],
)
def test_rate_at_epoch_starts_is_that_of_torch(kind: str, scheduler: type, params: dict[str, float]) -> None:
    ours = [lr_at(config(kind), epoch / 12, 12) for epoch in range(12)]
    assert ours == pytest.approx(torch_rates(scheduler, 12, **params), rel=1e-9)


def test_one_cycle_is_that_of_torch() -> None:
    n_steps, rise = 40, 0.25
    peak = rise * n_steps - 1  # torch's own convention: the peak lies one step early, the end at the last step
    theirs = torch_rates(
        lr_scheduler.OneCycleLR,
        n_steps,
        max_lr=LR,
        total_steps=n_steps + 1,
        pct_start=(peak + 1) / (n_steps + 1),
        div_factor=25,
        final_div_factor=400,
        cycle_momentum=False,
    )
    for step, rate in enumerate(theirs):
        share = rise * step / peak if step <= peak else rise + (1 - rise) * (step - peak) / (n_steps - peak)
        assert lr_at(config("one_cycle"), min(share, 1 - 1e-12), 10) == pytest.approx(rate, rel=1e-9)


@pytest.mark.parametrize("patience", [0, 1, 3])
def test_plateau_is_that_of_torch(patience: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience, threshold=0.01)
    for n_losses, loss in enumerate(LOSSES, start=1):
        scheduler.step(loss)
        ours = lr_at(config("plateau", patience=patience), 0.5, 20, LOSSES[:n_losses])
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)


@pytest.mark.parametrize("kind", sorted(LR_SCHEDULES))
def test_warmup_is_a_line_to_the_first_rate(kind: str) -> None:
    first = lr_at(config(kind), 0.0, 10, LOSSES)
    if kind == "plateau":
        first = LR
    for share in (0.0, 0.25, 0.5, 0.999):
        assert lr_at(config(kind, warmup=0.4), share * 0.4, 10, LOSSES) == pytest.approx(first * share)


def test_clock_starts_after_the_warmup() -> None:
    assert lr_at(config("step", warmup=0.2), 0.49, 10) == pytest.approx(LR)
    assert lr_at(config("step", warmup=0.2), 0.5, 10) == pytest.approx(0.3 * LR)
    middle = lr_at(config("cosine", warmup=0.2, min_factor=0.0), 0.6, 10)
    assert middle == pytest.approx(LR / 2)
    bad = [1.0] * 10
    assert lr_at(config("plateau", warmup=0.3), 0.9, 10, bad[:5]) == pytest.approx(LR)
    assert lr_at(config("plateau", warmup=0.3), 0.9, 10, bad[:6]) == pytest.approx(LR / 2)


@given(
    kind=st.sampled_from(sorted(LR_SCHEDULES)),
    progress=st.floats(0, 1, exclude_max=True),
    warmup=st.floats(0, 0.99),
    epochs=st.integers(1, 200),
    losses=st.lists(st.floats(0, 10), max_size=20),
)
def test_rate_is_never_negative_nor_above_its_peak(
    kind: str, progress: float, warmup: float, epochs: int, losses: list[float]
) -> None:
    assert 0 <= lr_at(config(kind, warmup=warmup), progress, epochs, losses) <= LR * (1 + 1e-12)


@given(
    kind=st.sampled_from(sorted(set(LR_SCHEDULES) - {"one_cycle", "plateau"})),
    shares=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
)
def test_rate_never_rises_without_warmup(kind: str, shares: tuple[float, float]) -> None:
    early, late = sorted(shares)
    assert lr_at(config(kind), late, 10) <= lr_at(config(kind), early, 10) * (1 + 1e-12)


@given(epochs=st.integers(1, 300), n_train=st.integers(1, 10**6), data=st.data())
def test_an_epoch_begins_at_its_first_step(epochs: int, n_train: int, data: st.DataObject) -> None:
    epoch = data.draw(st.integers(0, epochs - 1))
    n_seen = data.draw(st.sampled_from([0, n_train - 1]))
    progress = (epoch * n_train + n_seen) / (epochs * n_train)
    assert lr_at(config("step", every=1, factor=0.99), progress, epochs) == pytest.approx(LR * 0.99**epoch)


@pytest.mark.parametrize("progress", [-0.1, 1.0, math.nan])
def test_progress_outside_training_is_refused(progress: float) -> None:
    with pytest.raises(ValueError, match="0 <= progress < 1"):
        lr_at(config("constant"), progress, 10)


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(AutopruneError, match="did you mean 'cosine'"):
        lr_at(ScheduleConfig("cosinus", {"lr": 0.1}), 0.0, 10)
