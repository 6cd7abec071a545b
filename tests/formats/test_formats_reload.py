"""A network loaded from its file is the one in memory, or what the file lacks is named."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from autoprune.config.task import CallableRef
from autoprune.errors import SavedModelError
from autoprune.formats.architecture import architecture_diff
from autoprune.formats.outputs import relative_difference
from autoprune.formats.reload import load_judged
from autoprune.formats.saved_model import save_model

REF = CallableRef(callable="somewhere:net")


class Shifting(nn.Module):
    """Shifts its inputs by what it has seen in training, kept in a place that a subclass chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.begin()

    def begin(self) -> None:
        self.shift = 0.0

    def see(self, mean: torch.Tensor) -> None:
        self.shift += float(mean)

    def value(self) -> Any:
        return self.shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.see(x.detach().mean())
        return x - self.value()


class InDict(Shifting):
    def begin(self) -> None:
        self._seen: dict[str, list[float]] = {"means": [0.0]}

    def see(self, mean: torch.Tensor) -> None:
        self._seen["means"].append(float(mean))

    def value(self) -> Any:
        return sum(self._seen["means"])


class InTensor(Shifting):
    def begin(self) -> None:
        self.offset = torch.zeros(())

    def see(self, mean: torch.Tensor) -> None:
        self.offset = self.offset + mean

    def value(self) -> Any:
        return self.offset


class InObject(Shifting):
    def begin(self) -> None:
        self.memory = SimpleNamespace(total=0.0)

    def see(self, mean: torch.Tensor) -> None:
        self.memory.total += float(mean)

    def value(self) -> Any:
        return self.memory.total


class InDeque(Shifting):
    def begin(self) -> None:
        self.recent = deque([0.0], maxlen=9)

    def see(self, mean: torch.Tensor) -> None:
        self.recent.append(float(mean))

    def value(self) -> Any:
        return sum(self.recent)


class InSlots(Shifting):
    class Memory:
        __slots__ = ("total",)

    def begin(self) -> None:
        self.memory = self.Memory()
        self.memory.total = 0.0

    def see(self, mean: torch.Tensor) -> None:
        self.memory.total += float(mean)

    def value(self) -> Any:
        return self.memory.total


class InFunction(Shifting):
    class Mean:
        total = 0.0

        def __call__(self) -> float:
            return self.total

    def begin(self) -> None:
        self.value = self.Mean()

    def see(self, mean: torch.Tensor) -> None:
        self.value.total += float(mean)


class InBuffer(Shifting):
    def begin(self) -> None:
        self.register_buffer("passing", torch.zeros(()), persistent=False)

    def see(self, mean: torch.Tensor) -> None:
        self.passing += mean

    def value(self) -> Any:
        return self.passing


def net(kind: Callable[[], nn.Module]) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.Sequential(kind(), nn.ReLU()), nn.Linear(5, 3))


def judged(folder: Path, kind: Callable[[], nn.Module]) -> tuple[nn.Module, nn.Module, list[torch.Tensor] | None]:
    model = net(kind)
    inputs = torch.randn(8, 6) + 3
    for _ in range(3):
        model.train()(inputs)
    save_model(folder, model, architecture_diff(model, model, REF))
    loaded, outputs = load_judged(folder, model, lambda: net(kind), inputs)
    if outputs is not None:
        assert torch.equal(outputs[0], model.eval()(inputs))
    return model, loaded, outputs


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Shifting, r"attribute 'shift' of module '1.0' \(Shifting\)"),
        (InDict, r"attribute '_seen' of module '1.0'"),
        (InTensor, r"attribute 'offset' of module '1.0'"),
        (InObject, r"attribute 'memory' of module '1.0'"),
        (InDeque, r"attribute 'recent' of module '1.0'"),
        (InSlots, r"attribute 'memory' of module '1.0'"),
        (InFunction, r"attribute 'value' of module '1.0'"),
        (InBuffer, r"buffer 'passing' \(persistent=False\) of module '1.0'"),
    ],
)
def test_state_outside_the_file_is_named(tmp_path: Path, kind: type[nn.Module], name: str) -> None:
    with pytest.raises(SavedModelError, match=name):
        judged(tmp_path, kind)


class Twofold(Shifting):
    """Needs two attributes at once."""

    def begin(self) -> None:
        self.count, self.total, self.unused = 0, 0.0, 0

    def see(self, mean: torch.Tensor) -> None:
        self.count, self.total = self.count + 1, self.total + float(mean)

    def value(self) -> Any:
        return self.total / self.count if self.count else 0.0


def test_state_that_only_matters_together_is_named(tmp_path: Path) -> None:
    with pytest.raises(SavedModelError, match=r"attribute 'count' of module '1.0'.*attribute 'total' of module '1.0'"):
        judged(tmp_path, Twofold)


class Counting(nn.Module):
    """Keeps much, and uses none of it."""

    numbers: Iterator[int] = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.n_calls, self.last, self.history = 0, None, []
        self.norm = nn.utils.parametrizations.spectral_norm(nn.Linear(5, 5))
        self.bn = nn.BatchNorm1d(5)
        self.number = next(Counting.numbers)
        self.register_forward_hook(lambda module, args, output: self.history.append(float(output.detach().mean())))
        self.register_buffer("recent", torch.zeros(5), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.n_calls += 1
        self.last = x
        self.recent = x.detach()[0]
        return self.bn(self.norm(x))


class Extra(Shifting):
    """Has its state saved in the way that torch has for it."""

    def get_extra_state(self) -> Any:
        return {"shift": self.shift, "more": (1, None, torch.ones(2))}

    def set_extra_state(self, state: Any) -> None:
        assert isinstance(state["more"], tuple)
        assert torch.equal(state["more"][2], torch.ones(2))
        self.shift = state["shift"]


@pytest.mark.parametrize("kind", [Counting, Extra, nn.Dropout, lambda: nn.BatchNorm1d(5)])
def test_what_does_not_matter_or_is_saved_raises_no_alarm(tmp_path: Path, kind: Callable[[], nn.Module]) -> None:
    model, loaded, outputs = judged(tmp_path, kind)
    assert outputs is not None
    assert loaded is not model


class Drawing(nn.Module):
    """Adds numbers from a generator of its own, in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn(x.shape, generator=self.generator)


def test_a_network_that_differs_from_itself_is_not_compared(tmp_path: Path) -> None:
    _, _, outputs = judged(tmp_path, Drawing)
    assert outputs is None


def test_a_network_that_draws_from_the_global_generator_is_compared(tmp_path: Path) -> None:
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.rand_like(x)

    model = net(Noisy)
    save_model(tmp_path, model, architecture_diff(model, model, REF))
    _, outputs = load_judged(tmp_path, model, lambda: net(Noisy), torch.randn(8, 6))
    assert outputs is not None


def test_each_output_is_compared_on_its_own_scale() -> None:
    large, small = torch.full((2,), 1e6), torch.full((2,), 1e-3)
    assert relative_difference([large, 1.5 * small], [large, small]) == pytest.approx(0.5)
    assert relative_difference([large, small], [large, small]) == 0
    assert relative_difference([large], [large, small]) == float("inf")
    assert relative_difference([large[:1]], [large]) == float("inf")
    assert relative_difference([large * torch.nan], [large]) == float("inf")
    assert relative_difference([large * torch.nan], [large * torch.nan]) == 0
