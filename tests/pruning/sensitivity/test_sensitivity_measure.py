"""Measured sensitivity against the same cut done by hand, with torch's own recalibration of batch norm."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.swa_utils import update_bn

import autoprune
from autoprune.config.metric import MetricSpec
from autoprune.errors import PruningError
from autoprune.pruning.plan import Group, PruningPlan
from autoprune.pruning.planner import make_plan
from autoprune.pruning.sensitivity.map import SensitivityPoint
from autoprune.pruning.sensitivity.measure import SensitivityMeter, measure_map, points_to_measure
from autoprune.tasks.classification import accuracy, cross_entropy
from autoprune.tasks.splits import TensorSplit
from autoprune.tasks.task import Data, Task
from autoprune.worker.task_meter import task_meter

pytestmark = pytest.mark.xdist_group("sensitivity_measure")  # its fixtures take long: one process makes them


def net(channels: int = 8) -> nn.Sequential:
    layers = [
        ("conv", nn.Conv2d(1, channels, 3, bias=False)),
        ("bn", nn.BatchNorm2d(channels)),
        ("relu", nn.ReLU()),
        ("flatten", nn.Flatten()),
        ("head", nn.Linear(channels * 36, 10)),
    ]
    return nn.Sequential(OrderedDict(layers))


@pytest.fixture(scope="module")
def trained() -> tuple[Task, nn.Sequential]:
    """The task of 1,400 digits, and a network that has learned it."""
    digits = load_digits()
    inputs = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
    targets = torch.tensor(digits.target)
    splits = [TensorSplit(inputs[a:b], targets[a:b]) for a, b in ((0, 1400), (1400, 1600), (1600, 1797))]
    task = Task(net, Data(*splits), cross_entropy, accuracy)
    torch.manual_seed(0)
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(5):
        for part in torch.randperm(1400).split(100):
            optimizer.zero_grad()
            cross_entropy(model(inputs[part]), targets[part]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return task, model


def cut_by_hand(model: nn.Sequential, width: int) -> nn.Sequential:
    """The network with the channels of the largest squared weights, the mean over its layers as ``l2`` has it."""
    conv, bn, head = model.conv.weight, model.bn, model.head
    columns = head.weight.view(10, 8, 36)
    score = conv.square().sum((1, 2, 3)) + bn.weight.square() + columns.square().sum(0).mean(1)
    keep = score.topk(width).indices.sort().values
    small = net(width)
    small.conv.weight.data = conv[keep].detach().clone()
    small.bn.weight.data, small.bn.bias.data = bn.weight[keep].detach().clone(), bn.bias[keep].detach().clone()
    small.head.weight.data = columns[:, keep].flatten(1).detach().clone()
    small.head.bias.data = head.bias.detach().clone()
    return small


def judged_by_hand(model: nn.Sequential, inputs: torch.Tensor, targets: torch.Tensor, others: torch.Tensor) -> float:
    update_bn(others.split(64), model)
    with torch.no_grad():
        return float((model.eval()(inputs).argmax(1) == targets).float().mean())


@pytest.mark.parametrize("width", [8, 4, 2])
def test_a_point_is_that_of_the_cut_done_by_hand(trained: tuple[Task, nn.Sequential], width: int) -> None:
    task, model = trained
    train = task.data.train
    order = torch.randperm(1400, generator=torch.Generator().manual_seed(3))
    (inputs, targets), (others, _) = train.batch(order[:600]), train.batch(order[600:856])
    meter = task_meter(
        model, make_plan(model, task.example_inputs(2)), task, MetricSpec(), n_examples=600, n_recalibration=256, seed=3
    )
    expected = judged_by_hand(cut_by_hand(model, width), inputs, targets, others)
    measured = meter.measure_dense_score() if width == 8 else meter.measure_point("conv", width).score
    assert measured == pytest.approx(expected, abs=1e-6)
    assert meter.examples_per_point == 856


def test_a_map_from_the_task_and_one_from_python_agree(trained: tuple[Task, nn.Sequential]) -> None:
    task, model = trained
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    example = task.example_inputs(2)
    order = torch.randperm(1400, generator=torch.Generator().manual_seed(0))
    judged, rest = task.data.train.batch(order[:1000]), order[1000:1256]
    seen: list[SensitivityPoint] = []
    meter = task_meter(model, make_plan(model, example), task, MetricSpec(), n_examples=1000, n_recalibration=256)
    found = measure_map(meter, points_to_measure(meter.plan), on_point=seen.append)

    def evaluate(candidate: nn.Module) -> float:
        assert not candidate.training
        with torch.no_grad():
            return accuracy(candidate(judged[0]), judged[1])

    same = autoprune.plan(model, example).sensitivity(
        evaluate, data=[task.data.train.batch(part) for part in rest.split(64)]
    )
    assert found.points == same.points == tuple(seen)
    assert [(point.group, point.width) for point in seen] == [("conv", 6), ("conv", 4), ("conv", 2), ("conv", 1)]
    assert found.dense_score == same.dense_score > 0.95
    assert found.score("conv", 1) < found.dense_score - 0.1
    assert found.n_examples == 5 * 1256
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("criterion", ["taylor", "activation"])
def test_criteria_that_need_data(trained: tuple[Task, nn.Sequential], criterion: str) -> None:
    task, model = trained
    plan = make_plan(model, task.example_inputs(2))
    meter = task_meter(model, plan, task, MetricSpec(), criterion=criterion, n_examples=200, n_recalibration=100)
    assert 0 < meter.measure_point("conv", 4).score <= 1
    assert meter.examples_per_point == 200 + 2 * 100
    with pytest.raises(PruningError, match="needs calibration batches"):
        autoprune.plan(model, task.example_inputs(2)).sensitivity(lambda _: 0.0, criterion=criterion)


def test_all_of_a_small_split_is_used(trained: tuple[Task, nn.Sequential]) -> None:
    task, model = trained
    meter = task_meter(model, make_plan(model, task.example_inputs(2)), task, MetricSpec())
    assert meter.examples_per_point == 1400 + 512


class Hungry(nn.Module):
    sizes: ClassVar[list[int]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        if len(x) > 20:
            raise torch.OutOfMemoryError(f"no room for {len(x)} examples")
        return x


def test_out_of_memory_is_as_smaller_batches_beforehand(
    trained: tuple[Task, nn.Sequential], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, model = trained
    plan = make_plan(model, task.example_inputs(2))
    hungry = nn.Sequential(OrderedDict([*copy.deepcopy(model).named_children(), ("hungry", Hungry())]))
    found = task_meter(hungry, plan, task, MetricSpec()).measure_point("conv", 3)
    recalibration = [size for size in Hungry.sizes if size > 2][:34]
    assert recalibration == [64, 32, *[16] * 32]
    monkeypatch.setattr("autoprune.worker.task_meter.BATCH", 16)
    assert found == task_meter(model, plan, task, MetricSpec()).measure_point("conv", 3)


def test_a_network_without_batch_norm_costs_no_recalibration() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    split = TensorSplit(torch.randn(90, 5), torch.randint(0, 3, (90,)))
    task = Task(lambda: model, Data(split, split, split), cross_entropy, accuracy)
    meter = task_meter(model, make_plan(model, task.example_inputs(2)), task, MetricSpec(), n_examples=80)
    assert meter.examples_per_point == 80
    assert 0 <= meter.measure_point("0", 2).score <= 1


@pytest.mark.parametrize(
    ("width", "multiple", "round_to", "expected"),
    [
        (64, 1, 1, [48, 32, 16, 6]),
        (64, 4, 1, [48, 32, 16, 8]),
        (64, 4, 6, [48, 36, 12]),
        (4, 1, 1, [3, 2, 1]),
        (1, 1, 1, []),
    ],
)
def test_widths_to_measure(width: int, multiple: int, round_to: int, expected: list[int]) -> None:
    plan = PruningPlan((Group("a", width, ("a",), multiple),), (), {}, (), {})
    assert points_to_measure(plan, round_to=round_to) == [("a", each) for each in expected]


def test_a_width_that_a_group_can_t_have(trained: tuple[Task, nn.Sequential]) -> None:
    _, model = trained
    judge: Callable[[nn.Module], float] = lambda _: 0.0  # noqa: E731
    inputs = torch.randn(2, 1, 8, 8)
    meter = SensitivityMeter(model, make_plan(model, inputs), judge, example_inputs=inputs)
    with pytest.raises(PruningError, match=r"widths\['conv'\]: 1 <= channels to keep <= 8"):
        meter.measure_point("conv", 9)
    with pytest.raises(PruningError, match="unknown group 'convv'"):
        meter.measure_point("convv", 4)
