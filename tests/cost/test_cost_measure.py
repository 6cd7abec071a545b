"""Counting by closed form, and latency with its circumstances."""

import time

import pytest
import torch
from torch import nn

from autoprune.cost import count_macs, measure_cost, measure_latency
from autoprune.zoo import cnn6, mlp, resnet20


class TwoInputs(nn.Module):
    """Called with keywords or with two arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.linear(left) + self.linear(right)


@pytest.mark.parametrize(
    ("model", "shape", "macs"),
    [
        (nn.Linear(10, 20), (4, 10), 200),
        (nn.Linear(10, 20), (4, 7, 10), 7 * 200),
        (nn.Conv2d(3, 8, 5, stride=2, padding=2), (4, 3, 10, 12), 5 * 6 * 8 * 3 * 25),
        (nn.Conv2d(6, 8, 3, groups=2), (2, 6, 5, 5), 9 * 8 * 3 * 9),
        (nn.Conv1d(3, 4, 3, dilation=2), (1, 3, 9), 5 * 4 * 3 * 3),
        (nn.ConvTranspose2d(3, 4, 2, stride=2), (2, 3, 5, 5), 25 * 3 * 4 * 4),
        (mlp(10, (20,), 5), (3, 10), 10 * 20 + 20 * 5),
        (cnn6(), (2, 1, 28, 28), 784 * 9 * (16 + 256) + 196 * 9 * (512 + 1024) + 49 * 9 * (2048 + 4096) + 640),
        (nn.ReLU(), (2, 3), 0),
    ],
)
def test_closed_forms(model: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    assert count_macs(model, torch.randn(shape)) == macs


def test_resnet20_has_the_known_count() -> None:
    assert count_macs(resnet20(), torch.randn(1, 3, 32, 32)) == 40_551_040


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers(kind: type[nn.RNNBase], gates: int, layers: int, directions: int) -> None:
    """Each step, layer and direction multiplies its input and its own 7 hidden values by a matrix for every gate."""
    model = kind(5, 7, layers, batch_first=True, bidirectional=directions == 2)
    inputs_of_layers = [5, 7 * directions][:layers]
    macs = 6 * sum(directions * gates * 7 * (width + 7) for width in inputs_of_layers)
    assert count_macs(model, torch.randn(3, 6, 5)) == macs


def test_an_lstm_with_a_projection() -> None:
    model = nn.LSTM(5, 7, proj_size=2, batch_first=True)
    assert count_macs(model, torch.randn(3, 6, 5)) == 6 * (4 * 7 * (5 + 2) + 2 * 7)


def test_inputs_of_several_tensors() -> None:
    left, right = torch.randn(5, 3), torch.randn(5, 3)
    assert count_macs(TwoInputs(), (left, right)) == 24
    assert count_macs(TwoInputs(), {"right": right, "left": left}) == 24


def test_counting_changes_nothing() -> None:
    model = resnet20()
    model.layer1.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    backends = torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled
    modes = [module.training for module in model.modules()]
    count_macs(model, torch.randn(2, 3, 32, 32))
    measure_latency(model, torch.randn(1, 3, 32, 32), "cpu", min_runs=1, max_seconds=0)
    assert (torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled) == backends
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class Sleeper(nn.Module):
    """Takes a known time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.005)
        return x


def test_latency_is_the_time_it_takes() -> None:
    latency = measure_latency(Sleeper(), torch.randn(3, 2), "cpu", min_runs=5, max_seconds=0)
    assert 5 <= latency.latency_ms < 50
    assert (latency.n_runs, latency.batch_size, latency.threads) == (5, 3, torch.get_num_threads())
    assert latency.device.startswith("cpu")


def test_latency_runs_until_its_time_is_up() -> None:
    assert measure_latency(nn.Linear(2, 2), torch.randn(1, 2), "cpu", min_runs=1, max_seconds=0.05).n_runs > 20


def test_measure_cost() -> None:
    model = nn.Linear(4, 3)
    nn.init.ones_(model.weight)
    nn.init.ones_(model.bias)
    with torch.no_grad():
        model.weight[0, :3] = 0
    cost = measure_cost(model, torch.randn(2, 4), 99, "cpu", latency=False)
    assert (cost.params, cost.nonzero_params, cost.size_bytes, cost.macs, cost.flops) == (15, 12, 99, 12, 24)
    assert cost.latency_ms is None
    timed = measure_cost(model, torch.randn(2, 4), 99, "cpu", latency=True)
    assert timed.latency_ms is not None
    assert timed.latency_ms > 0
