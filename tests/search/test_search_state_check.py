"""Before the dense training: is what a network learns kept by its file?"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from autoprune.config.task import CallableRef
from autoprune.errors import TaskError
from autoprune.formats.architecture import architecture_diff
from autoprune.formats.saved_model import load_model, save_model
from autoprune.network.call import Inputs
from autoprune.network.frozen import adapting_norms
from autoprune.network.modes import eval_mode
from autoprune.search.state_check import check_kept_state
from autoprune.tasks.classification import accuracy, cross_entropy
from autoprune.tasks.splits import TensorSplit
from autoprune.tasks.task import Data, Task

REF = CallableRef(callable="somewhere:net")


def make_task(build: Callable[[], nn.Module]) -> Task:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(30, 6, generator=generator) + 2
    targets = torch.arange(30) % 3
    splits = [TensorSplit(inputs[start::3], targets[start::3]) for start in range(3)]
    return Task(build_model=build, data=Data(*splits), loss=cross_entropy, metric=accuracy)


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)

    def forward(self, x: Inputs) -> torch.Tensor:
        return self.last(self.middle(self.first(x)))


class MovingLimit(Base):
    """Clips at a limit that training moves."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = {"high": 1.0}

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.limits["high"] = 0.5 * self.limits["high"] + 0.5 * float(x.detach().max())
        return x.clamp(max=self.limits["high"])


class StaleWeight(Base):
    """Computes a weight once, in its first evaluation, and uses it from then on."""

    folded: torch.Tensor | None = None

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training and self.folded is None:
            self.folded = self.first.weight.detach().norm(dim=1) * 5
        return torch.relu(x) * (1 if self.folded is None else self.folded)


class Drawn(Base):
    """Mixes by a matrix that is drawn at each build."""

    def __init__(self) -> None:
        super().__init__()
        self.mixing = torch.randn(8, 8)

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ self.mixing)


class HiddenTeacher(Base):
    """Averages its weights in a network that it hides from torch."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Linear(8, 8, bias=False).requires_grad_(False)]
        nn.init.eye_(self.hidden[0].weight)

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.hidden[0].weight *= 1.01
        return torch.relu(self.hidden[0](x))


class Caching(Base):
    """Counts its calls and keeps what passed."""

    def __init__(self) -> None:
        super().__init__()
        self.n_calls, self.kept = 0, {}

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        self.n_calls += 1
        self.kept["middle"] = torch.relu(x)
        return self.kept["middle"]


class Picky(MovingLimit):
    """Trains on large batches only."""

    def forward(self, x: Inputs) -> torch.Tensor:
        if self.training and len(x) < 10:
            raise ValueError("too few")
        return super().forward(x)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (MovingLimit, r"after 4 training steps, .* lacks attribute 'limits' of the network \(MovingLimit\)\. Make it"),
        (StaleWeight, r"after 4 training steps, .* lacks attribute 'folded' of the network"),
        (HiddenTeacher, r"after 4 training steps, .* lacks attribute 'hidden' of the network"),
        (Drawn, r"each call builds another network.* lacks attribute 'mixing' of the network.* seed of its own"),
    ],
)
def test_what_a_file_would_lack_is_told(kind: type[nn.Module], told: str) -> None:
    task = make_task(kind)
    with pytest.raises(TaskError, match=f"task.model: {told}"):
        check_kept_state(task, task.build_model(), REF)


@pytest.mark.parametrize("kind", [Base, Caching, Picky, lambda: Base().double().float().requires_grad_(True)])
def test_no_false_alarm(kind: Callable[[], nn.Module]) -> None:
    task = make_task(kind)
    model = task.build_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    check_kept_state(task, model, REF)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_network_without_anything_to_train_is_refused() -> None:
    task = make_task(lambda: Base().requires_grad_(False))
    with pytest.raises(TaskError, match=r"every parameter is frozen .*set task.frozen to train"):
        check_kept_state(task, task.build_model(), REF)


def test_a_frozen_network_with_a_head_to_train_passes() -> None:
    def build() -> nn.Module:
        model = Base().requires_grad_(False)
        model.last.requires_grad_(True)
        return model

    check_kept_state(make_task(build), build(), REF)


def test_extra_state_that_cannot_be_saved_is_refused() -> None:
    class Holding(Base):
        def get_extra_state(self) -> object:
            return {"history": {1.5, 2.5}}

        def set_extra_state(self, state: object) -> None: ...

    task = make_task(Holding)
    with pytest.raises(
        TaskError, match=r"^task.model: get_extra_state of the network \(Holding\) must give .*a value of type set"
    ):
        check_kept_state(task, task.build_model(), REF)


def test_an_error_of_the_network_is_told_with_its_place() -> None:
    class Failing(Base):
        def middle(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) == 8:
                raise SystemExit(4)
            return x

    task = make_task(Failing)
    with pytest.raises(TaskError, match=r"loading it again failed: SystemExit: 4 \(test_search_state_check.py:\d+\)"):
        check_kept_state(task, task.build_model(), REF)


class InClass(Base):
    """Keeps what training moves in its class."""

    scale = 1.0
    n_built = 0

    def __init__(self) -> None:
        super().__init__()
        InClass.n_built += 1

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            InClass.scale += float(x.detach().abs().mean())
        return x / self.scale


SEEN = {"scale": 1.0}


class InGlobal(Base):
    """Keeps it in a global of its module."""

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            SEEN["scale"] += float(x.detach().abs().mean())
        return x / SEEN["scale"]


def in_closure() -> nn.Module:
    seen = [1.0]

    class InClosure(Base):
        """Keeps it in a variable of the function that makes it."""

        def middle(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                seen.append(float(x.detach().abs().mean()))
            return x / sum(seen)

    return InClosure()


def in_scaler() -> nn.Module:
    seen = [1.0]

    def scale(x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            seen.append(float(x.detach().abs().mean()))
        return x / sum(seen)

    class InScaler(Base):
        """Calls a function that keeps it."""

        def middle(self, x: torch.Tensor) -> torch.Tensor:
            return scale(x)

    return InScaler()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (InClass, "attribute 'scale' of class InClass"),
        (InGlobal, "global 'SEEN' of module '.*test_search_state_check'"),
        (in_closure, r"variable 'seen' around InClosure\.middle"),
        (in_scaler, "a state"),
    ],
)
def test_what_networks_share_is_refused(kind: Callable[[], nn.Module], name: str) -> None:
    task = make_task(kind)
    with pytest.raises(TaskError, match=f"training one network changes what another one gives: they share {name} out"):
        check_kept_state(task, task.build_model(), REF)


class Merging(Base):
    """Adds a product of two small matrices to a weight for evaluation, and takes it off for training."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.randn(8, 2))
        self.merged = False

    def train(self, mode: bool = True) -> "Merging":
        super().train(mode)
        if self.merged == mode:
            with torch.no_grad():
                self.first.weight.add_(self.up @ self.down, alpha=-1 if mode else 1)
            self.merged = not mode
        return self

    def forward(self, x: Inputs) -> torch.Tensor:
        hidden = self.first(x) if self.merged else self.first(x) + x @ self.down.T @ self.up.T
        return self.last(torch.relu(hidden))


def test_a_network_that_merges_weights_for_evaluation_is_judged_as_it_is_saved(tmp_path: Path) -> None:
    model = Merging()
    check_kept_state(make_task(Merging), model, REF)
    with eval_mode(model):
        assert model.merged
    assert not model.merged
    assert adapting_norms(model.eval()) == []
    assert model.merged
    save_model(tmp_path, model, architecture_diff(model, model, REF))  # an export saves a network in evaluation mode
    assert model.merged
    inputs = torch.ones(2, 6)
    torch.testing.assert_close(load_model(tmp_path, Merging).eval()(inputs), model(inputs))


class Growing(Base):
    """Keeps what it has seen in a buffer that grows."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(0, 8))

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen = torch.cat([self.seen, x.detach()])
        return x - self.seen.sum(0)


class Late(Base):
    """Makes a buffer at its first training step."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", None)

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen = x.detach().mean(0)
        return x if self.seen is None else x - self.seen


@pytest.mark.parametrize(("kind", "shapes"), [(Growing, r"\(0, 8\) to \(16, 8\)"), (Late, r"None to \(8,\)")])
def test_a_buffer_that_changes_its_shape_is_refused(kind: type[nn.Module], shapes: str) -> None:
    with pytest.raises(TaskError, match=rf"task.model: training changes the shape of 'seen' from {shapes}"):
        check_kept_state(make_task(kind), kind(), REF)


class CountingClass(Base):
    """Counts its calls in its class, which changes nothing."""

    n_calls = 0

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        CountingClass.n_calls += 1
        return torch.relu(x)


def test_a_count_in_the_class_raises_no_alarm() -> None:
    check_kept_state(make_task(CountingClass), CountingClass(), REF)
