"""Contract of the registries, and the messages for values that break it."""

import subprocess
import sys

import pytest

from autoprune.config.optimizers import OPTIMIZERS
from autoprune.errors import AutopruneError
from autoprune.training.schedules import BATCH_SIZE_SCHEDULES, LR_SCHEDULES, KindSpec, ParameterSpec, resolve_params

FAMILIES = {"lr": LR_SCHEDULES, "batch size": BATCH_SIZE_SCHEDULES, "optimizer": OPTIMIZERS}
PARAMS = [
    pytest.param(kind, id=f"{family}-{name}-{param}")
    for family, kinds in FAMILIES.items()
    for name, member in kinds.items()
    for param, kind in member.params.items()
]


@pytest.mark.parametrize("kind", PARAMS)
def test_defaults_and_choices_are_allowed(kind: ParameterSpec) -> None:
    for value in (*kind.choices, *(() if kind.required else (kind.default,))):
        assert kind.allows(value)
    assert bool(kind.choices) == (kind.type == "choice")


@pytest.mark.parametrize("kind", PARAMS)
def test_bounds_are_held(kind: ParameterSpec) -> None:
    for value in (float("nan"), float("inf"), "x", None):
        assert not kind.allows(value)
    if kind.type == "choice":
        return
    assert not kind.allows(True)
    if kind.low is not None:
        low = int(kind.low) if kind.type == "int" else kind.low
        assert kind.allows(low) != kind.low_open
        assert not kind.allows(low - 1)
    if kind.high is not None:
        high = int(kind.high) if kind.type == "int" else kind.high
        assert kind.allows(high) != kind.high_open
        assert not kind.allows(high + 1)
    if kind.type == "int":
        assert not kind.allows(2.5)


KINDS = {
    "cosine": KindSpec(
        "", {"lr": ParameterSpec("float", low=0, low_open=True), "every": ParameterSpec("int", low=1, default=2)}
    )
}


def test_defaults_are_filled_in() -> None:
    assert resolve_params("schedule", KINDS, "cosine", {"lr": 1}) == {"lr": 1, "every": 2}


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("cosin", {}, "unknown schedule 'cosin' (did you mean 'cosine'?). Known: cosine."),
        (
            "cosine",
            {"evry": 1},
            "schedule 'cosine': unknown parameter 'evry' (did you mean 'every'?). Known: every, lr.",
        ),
        ("cosine", {"lr": 0.0}, "schedule 'cosine': lr must be a number in (0, inf), got 0.0."),
        ("cosine", {"lr": 1.0, "every": 1.5}, "schedule 'cosine': every must be an integer in [1, inf), got 1.5."),
        ("cosine", {}, "schedule 'cosine': lr is required; give a number in (0, inf)."),
    ],
)
def test_mistakes_are_named(name: str, params: dict[str, float], message: str) -> None:
    with pytest.raises(AutopruneError) as caught:
        resolve_params("schedule", KINDS, name, params)
    assert str(caught.value) == message


def test_registries_load_no_torch() -> None:
    code = "import sys, autoprune.training.schedules, autoprune.config.optimizers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
