"""From settings to a task, and the check that its parts fit each other."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, Subset

from autoprune.config.task import CallableRef, LossSettings, MetricSettings, TaskSettings
from autoprune.errors import TaskError
from autoprune.tasks.build import build_task
from autoprune.tasks.check import check_task
from autoprune.tasks.classification import accuracy, cross_entropy, soft_target_loss
from autoprune.tasks.splits import DatasetSplit, SubsetSplit, TensorSplit
from autoprune.tasks.task import Data, Task

SOURCE = """
import torch
from torch import nn

def net(classes=3):
    return nn.Linear(4, classes)


def lazy_net():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(3), nn.LazyBatchNorm1d())


def lazy_norm():
    return nn.LazyBatchNorm1d(affine=False)


class Headed(nn.Sequential):
    def train(self, mode=True):
        super().train(mode)
        for layer in self[:-1]:
            layer.requires_grad_(False)
        return self


def headed():
    return Headed(nn.Linear(4, 5), nn.Linear(5, 3)).eval()


def not_a_net():
    return {"a": 1}

def _split(n, classes):
    return torch.randn(n, 4), torch.arange(n) % classes

def data(classes=3, without=(), extra=()):
    splits = {"train": _split(40, classes), "validation": _split(6, classes), "test": _split(6, classes)}
    return {key: value for key, value in splits.items() if key not in without} | {key: 1 for key in extra}

def read_file():
    open("here.txt").close()
    return data()

def weighted_loss(outputs, targets, weight):
    return weight * nn.functional.cross_entropy(outputs, targets)

def distance(outputs, dense_outputs, temperature, power):
    return (outputs - dense_outputs).pow(power).sum()

def noise(inputs, generator, scale=1.0):
    return inputs + scale * torch.randn(inputs.shape, generator=generator)

def one_argument(outputs):
    return 0.0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "build_example.py").write_text(SOURCE)
    (tmp_path / "here.txt").write_text("")
    return tmp_path


def own_loss(name: str, **args: object) -> LossSettings:
    return LossSettings(callable=f"build_example:{name}", args=args)


def own_metric(name: str) -> MetricSettings:
    return MetricSettings(name=name, direction="maximize", callable=f"build_example:{name}")


def ref(name: str, **args: object) -> CallableRef:
    return CallableRef(callable=f"build_example:{name}", args=args)


def check(task: Task) -> None:
    """Check a task with a network that is built for it."""
    check_task(task, task.build_model())


def test_a_users_model_and_data(folder: Path) -> None:
    task = build_task(TaskSettings(model=ref("net", classes=5), data=ref("data", classes=5)), folder)
    assert task.build_model()(task.example_inputs(2)).shape == (2, 5)
    assert not torch.equal(task.build_model().weight, task.build_model().weight)
    assert [len(split) for split in (task.data.train, task.data.validation, task.data.test)] == [40, 6, 6]
    assert task.loss is cross_entropy
    assert task.metric is accuracy
    assert task.augment is None
    check(task)


def test_the_shipped_model_and_data(tmp_path: Path) -> None:
    settings = TaskSettings(
        model=CallableRef(callable="autoprune.zoo:small_cnn"), data=CallableRef(callable="autoprune.datasets:digits")
    )
    check(build_task(settings, tmp_path))


def test_arguments_of_loss_and_augmentation_are_bound(folder: Path) -> None:
    settings = TaskSettings(
        model=ref("net"), data=ref("data"), loss=own_loss("weighted_loss", weight=2.0), augment=ref("noise", scale=0.0)
    )
    task = build_task(settings, folder)
    check(task)
    inputs, targets = task.data.train.batch(torch.arange(4))
    outputs = task.build_model()(inputs)
    torch.testing.assert_close(task.loss(outputs, targets), 2 * cross_entropy(outputs, targets))
    torch.testing.assert_close(task.augment(inputs, torch.Generator()), inputs)


def test_the_default_distillation_loss_goes_with_the_default_loss(folder: Path) -> None:
    default = TaskSettings(model=ref("net"), data=ref("data"))
    own = default.model_copy(update={"loss": own_loss("weighted_loss", weight=2.0)})
    both = own.model_copy(update={"distillation_loss": ref("distance", power=3)})
    assert build_task(default, folder).distillation_loss is soft_target_loss
    assert build_task(own, folder).distillation_loss is None
    task = build_task(both, folder)
    check(task)
    assert float(task.distillation_loss(torch.ones(2), torch.zeros(2), 4.0)) == 2.0
    with pytest.raises(TaskError, match=r"task.distillation_loss: distance.* can't be called"):
        build_task(both.model_copy(update={"distillation_loss": ref("distance", powr=3)}), folder)


def test_relative_paths_start_from_the_space_files_folder(folder: Path) -> None:
    assert len(build_task(TaskSettings(model=ref("net"), data=ref("read_file")), folder).data.train) == 40
    assert Path.cwd() != folder


def test_what_a_module_opens_when_it_is_imported_lies_there_too(folder: Path) -> None:
    (folder / "opens_early.py").write_text("open('here.txt').close()\nfrom build_example import data")
    data = CallableRef(callable="opens_early:data")
    assert len(build_task(TaskSettings(model=ref("net"), data=data), folder).data.test) == 6


def test_validation_is_held_out_if_missing(folder: Path) -> None:
    data = build_task(TaskSettings(model=ref("net"), data=ref("data", without=["validation"])), folder).data
    assert (len(data.train), len(data.validation)) == (36, 4)
    rows = torch.cat([split.batch(torch.arange(len(split)))[0] for split in (data.train, data.validation)])
    assert len(rows.unique(dim=0)) == 40


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            TaskSettings(model=ref("net"), data=ref("data", without=["test"])),
            r"the key test is missing.*return them as test",
        ),
        (TaskSettings(model=ref("net"), data=ref("data", without=["train"])), "the key train is missing"),
        (
            TaskSettings(model=ref("net"), data=ref("data", extra=["valid"])),
            "unknown keys valid. Known: train, validation, test",
        ),
        (
            TaskSettings(model=ref("net"), data=ref("net")),
            "must return autoprune.tasks.Data or a mapping .* got a Linear",
        ),
        (
            TaskSettings(model=ref("net", width=3), data=ref("data")),
            r"task.model: net\(classes=3\) can't be called as net\(width=3\)",
        ),
        (
            TaskSettings(model=ref("net"), data=ref("data"), loss=own_loss("one_argument")),
            r"task.loss: one_argument\(outputs\)",
        ),
        (TaskSettings(model=ref("net"), data=ref("data"), augment=ref("noise", sigma=1)), "task.augment: .*sigma"),
    ],
)
def test_what_is_wrong_is_said(settings: TaskSettings, message: str, folder: Path) -> None:
    with pytest.raises(TaskError, match=message):
        build_task(settings, folder)


def test_all_parts_that_are_wrong_are_named_together(folder: Path) -> None:
    settings = TaskSettings(model=ref("nett"), data=ref("dat"), metric=own_metric("metric"))
    with pytest.raises(TaskError) as caught:
        build_task(settings, folder)
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "task.model",
        "task.metric",
        "task.data",
    ]


def test_a_model_callable_must_return_a_network(folder: Path) -> None:
    task = build_task(TaskSettings(model=ref("not_a_net"), data=ref("data")), folder)
    with pytest.raises(TaskError, match=r"not_a_net must return a torch.nn.Module, got a dict"):
        task.build_model()


def test_what_a_networks_own_train_freezes_is_frozen_from_the_start(folder: Path) -> None:
    network = build_task(TaskSettings(model=ref("headed"), data=ref("data")), folder).build_model()
    assert [parameter.requires_grad for parameter in network.parameters()] == [False, False, True, True]
    assert network.training


@pytest.mark.parametrize(("name", "first"), [("lazy_net", "1.weight"), ("lazy_norm", "running_mean")])
def test_a_network_without_shapes_is_refused(folder: Path, name: str, first: str) -> None:
    task = build_task(TaskSettings(model=ref(name), data=ref("data")), folder)
    with pytest.raises(TaskError, match=rf"task.model: .*:{name} returns .* '{first}' has no shape yet.*Run it once"):
        task.build_model()


def task_with(**changes: object) -> Task:
    split = TensorSplit(torch.randn(21, 4), torch.arange(21) % 7)
    parts = {"build_model": lambda: nn.Linear(4, 7), "loss": cross_entropy, "metric": accuracy}
    return Task(**{"data": Data(split, split, split), **parts, **changes})


def test_check_passes_and_leaves_the_random_state_to_the_caller() -> None:
    check(task_with())
    check(task_with(build_model=lambda: WithLogits()))


class WithLogits(nn.Module):
    """Returns its scores the way transformers does."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 7)

    def forward(self, x: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.linear(x))


def negative_targets() -> Data:
    split = TensorSplit(torch.randn(4, 4), torch.tensor([0, 1, -1, 2]))
    return Data(split, split, split)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"build_model": lambda: nn.Linear(4, 10)}, "data has 7 classes, model has 10 outputs"),
        ({"build_model": lambda: nn.Linear(4, 3)}, "data has 7 classes, model has 3 outputs"),
        ({"build_model": lambda: nn.Linear(5, 7)}, "the model, on 3 training examples, raised RuntimeError"),
        ({"build_model": lambda: nn.LSTM(4, 7)}, "returns a tensor or an object with .logits, got tuple"),
        ({"data": negative_targets()}, "must be class indices from 0, got -1"),
        (
            {"loss": lambda outputs, targets: outputs},
            r"must return a tensor of shape \(\), got a tensor of shape \(3, 7\)",
        ),
        ({"loss": lambda outputs, targets: 1.0}, r"must return a tensor of shape \(\), got a float"),
        ({"loss": lambda outputs, targets: outputs.sum() * torch.nan}, "must be finite .* got nan"),
        (
            {"metric": lambda outputs, targets: outputs.mean(dim=0)},
            r"must return a number, or a tensor of one element, got a Tensor of shape \(7,\)",
        ),
        ({"metric": lambda outputs, targets: float("nan")}, "must be finite, got nan"),
        ({"metric": lambda outputs, targets: 1 / 0}, "the metric raised ZeroDivisionError"),
        ({"metric": lambda outputs, targets: sys.exit(4)}, "the metric raised SystemExit: 4"),
        ({"distillation_loss": lambda *_: 1 / 0}, "the distillation loss raised ZeroDivisionError"),
        (
            {"distillation_loss": lambda outputs, dense_outputs, temperature: outputs - dense_outputs},
            r"task.distillation_loss must return a tensor of shape \(\), got a tensor of shape \(3, 7\)",
        ),
        ({"augment": lambda inputs, generator: 1 / 0}, "the augmentation raised ZeroDivisionError"),
    ],
)
def test_check_says_what_does_not_fit(changes: dict[str, object], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        check(task_with(**changes))


def float_targets(*shape: int, n_outputs: int = 1) -> dict[str, object]:
    split = TensorSplit(torch.randn(8, 4), torch.rand(8, *shape))
    return {"data": Data(split, split, split), "build_model": lambda: nn.Linear(4, n_outputs)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            float_targets(),
            r"floats of shape \(3,\), outputs have shape \(3, 1\).* name your own task.loss and task.metric",
        ),
        (float_targets(1), r"targets are floats of shape \(3, 1\), outputs have shape \(3, 1\)"),
        (float_targets(3, n_outputs=2), r"targets are floats of shape \(3, 3\), outputs have shape \(3, 2\)"),
        (float_targets(2, n_outputs=2), "add up to 1 for each example. Or name your own task.loss"),
        (float_targets(1) | {"loss": nn.MSELoss()}, r"targets are floats of shape \(3, 1\)"),
    ],
)
def test_regression_with_a_default_left_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        check(task_with(**changes))


def test_regression_with_its_own_loss_and_metric() -> None:
    check(
        task_with(
            **float_targets(1), loss=nn.MSELoss(), metric=lambda outputs, targets: -float((outputs - targets).std())
        )
    )


def test_class_probabilities_as_targets() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3], [1.0, 0.0, 0.0]])
    split = TensorSplit(torch.randn(4, 4), probabilities)
    check(task_with(data=Data(split, split, split), build_model=lambda: nn.Linear(4, 3)))
    scores = torch.tensor([[5.0, 0.0, 1.0], [0.0, 9.0, 1.0], [0.0, 2.0, 1.0], [0.0, 0.0, 1.0]])
    assert accuracy(scores, probabilities) == 0.5


class Readings:
    """A dataset that notes what is read, and fails on one example."""

    def __init__(self, n: int = 2500, broken: int = -1) -> None:
        self.n, self.broken, self.read = n, broken, set[int]()

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.read.add(index)
        if index == self.broken:
            raise OSError("image 7 is cut short")
        return torch.zeros(4), index % 7


@pytest.mark.parametrize(
    ("name", "broken", "loss"),
    [("train", 2, cross_entropy), ("train", 2499, cross_entropy), ("validation", 1, nn.CrossEntropyLoss())],
)
def test_an_example_that_cannot_be_read(name: str, broken: int, loss: object) -> None:
    parts = {part: DatasetSplit(Readings(broken=broken if part == name else -1)) for part in ("train", "validation")}
    message = rf"reading example {broken} of the {name} split raised OSError: image 7 is cut short \(test_tasks_build"
    with pytest.raises(TaskError, match=message):
        check(task_with(data=Data(**parts, test=parts["train"]), loss=loss))


def test_the_test_split_is_not_read() -> None:
    train, test = Readings(), Readings()
    check(task_with(data=Data(DatasetSplit(train), DatasetSplit(train), DatasetSplit(test))))
    assert train.read
    assert not test.read


def test_classes_are_counted_in_a_part_of_a_dataset_without_targets() -> None:
    dataset = DatasetSplit(Readings())
    held, rest = SubsetSplit(dataset, torch.arange(2400, 2500)), SubsetSplit(dataset, torch.arange(2400))
    check(task_with(data=Data(rest, held, dataset)))
    with pytest.raises(TaskError, match="data has 7 classes, model has 5 outputs"):
        check(task_with(data=Data(rest, held, dataset), build_model=lambda: nn.Linear(4, 5)))


class Labelled(Readings):
    """Keeps the labels of all examples, as torchvision's datasets do; reading may give others."""

    def __init__(self, target_transform: Callable[[int], int] | None, *, applied: Callable[[int], int]) -> None:
        super().__init__(n=300)
        self.targets = [10 * (index % 7) for index in range(self.n)]
        self.target_transform, self._applied = target_transform, applied

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.zeros(4), self._applied(self.targets[index])


def tens(target: int) -> int:
    return target // 10


@pytest.mark.parametrize(
    "dataset",
    [
        Labelled(tens, applied=tens),
        Labelled({10 * index: index for index in range(7)}.__getitem__, applied=tens),
        Labelled(None, applied=tens),
        Subset(Labelled(tens, applied=tens), range(100)),
    ],
    ids=["function", "table", "read otherwise", "subset"],
)
def test_classes_are_counted_in_targets_as_they_are_read(dataset: Dataset[object]) -> None:
    split = DatasetSplit(dataset)
    check(task_with(data=Data(split, split, split)))
    with pytest.raises(TaskError, match="data has 7 classes, model has 61 outputs"):
        check(task_with(data=Data(split, split, split), build_model=lambda: nn.Linear(4, 61)))


def test_another_loss_is_free_of_the_class_count() -> None:
    check(task_with(build_model=lambda: nn.Linear(4, 10), loss=nn.CrossEntropyLoss()))


def test_settings_need_no_torch() -> None:
    code = "import autoprune.config.task, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
