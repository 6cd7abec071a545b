"""Evaluation, batch-norm recalibration and the optimizers."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch import nn
from torch.nn import functional
from transformers.modeling_outputs import SequenceClassifierOutput

from autoprune.config.optimizers import OPTIMIZERS
from autoprune.errors import AutopruneError, TaskError
from autoprune.tasks.classification import accuracy, cross_entropy
from autoprune.tasks.task import Task
from autoprune.training.batch_norm import recalibrate_batch_norm, recalibrate_on_batches
from autoprune.training.evaluation import evaluate
from autoprune.training.optimizers import build_optimizer
from autoprune.trial import OptimizerConfig

MakeTask = Callable[..., Task]


@pytest.mark.parametrize("batch_size", [1, 77, 512, None])
def test_accuracy_and_loss_are_those_of_scikit_learn(
    make_task: MakeTask, mlp: nn.Module, batch_size: int | None
) -> None:
    task = make_task()
    split = task.data.validation
    with torch.no_grad():
        probabilities = functional.softmax(mlp(split.inputs).double(), dim=1).numpy()
    result = evaluate(mlp, split, task, batch_size=batch_size)
    assert result.metric == pytest.approx(accuracy_score(split.targets, probabilities.argmax(1)))
    assert result.loss == pytest.approx(log_loss(split.targets, probabilities), rel=1e-5)


@dataclass(frozen=True)
class Scores:
    logits: torch.Tensor
    loss: torch.Tensor | None = None


@dataclass(slots=True)
class Slots:
    logits: torch.Tensor


class Attributes(dict[str, Any]):
    """Gives its items as attributes, as many libraries' dicts do."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


def nested(logits: torch.Tensor) -> SimpleNamespace:
    return SimpleNamespace(logits=logits, all={"of": Slots(logits), "them": [Scores(logits)]})


class Returning(nn.Module):
    """Returns its scores inside of something."""

    def __init__(self, body: nn.Module, kind: Callable[..., Any]) -> None:
        super().__init__()
        self.body, self.kind = body, kind

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.kind(logits=self.body(inputs))


@pytest.mark.parametrize("kind", [SequenceClassifierOutput, SimpleNamespace, Scores, Slots, nested])
def test_scores_may_be_in_an_object_over_many_batches(
    make_task: MakeTask, mlp: nn.Module, kind: Callable[..., Any]
) -> None:
    plain = replace(make_task(), loss=cross_entropy, metric=accuracy)
    expected = evaluate(mlp, plain.data.validation, plain, batch_size=77)
    assert evaluate(Returning(mlp, kind), plain.data.validation, plain, batch_size=77) == expected
    own = replace(plain, metric=lambda outputs, targets: accuracy(outputs.logits, targets))
    assert evaluate(Returning(mlp, kind), own.data.validation, own, batch_size=77) == expected


def test_outputs_keep_their_types_and_what_is_in_them_is_joined(make_task: MakeTask, mlp: nn.Module) -> None:
    task = make_task()
    n_examples, seen = len(task.data.validation), []

    def metric(outputs: Any, targets: torch.Tensor) -> float:
        seen.append(outputs)
        return 0.0

    task = replace(task, loss=lambda outputs, targets: targets.sum() * 0.0, metric=metric)
    for kind in (nested, Attributes):
        evaluate(Returning(mlp, kind), task.data.validation, task, batch_size=77)
    whole, mapping = seen
    assert isinstance(whole.all["of"], Slots)
    tensors = [whole.logits, whole.all["of"].logits, whole.all["them"][0].logits, mapping["logits"]]
    assert [len(tensor) for tensor in tensors] == [n_examples] * 4


def test_no_cache_of_a_batch_is_kept(make_task: MakeTask, mlp: nn.Module) -> None:
    class Cache:
        def __init__(self, keys: torch.Tensor) -> None:
            self.keys = keys

    caches: list[weakref.ref[Cache]] = []

    def caching(logits: torch.Tensor) -> Any:
        cache = Cache(logits)
        caches.append(weakref.ref(cache))
        return SequenceClassifierOutput(logits=logits, hidden_states=cache)

    plain = replace(make_task(), loss=cross_entropy)
    alive = []

    def metric(outputs: Any, targets: torch.Tensor) -> float:
        alive.append(sum(cache() is not None for cache in caches))
        return accuracy(outputs, targets)

    task = replace(plain, metric=metric)
    found = evaluate(Returning(mlp, caching), task.data.validation, task, batch_size=77)
    assert found.metric == evaluate(mlp, plain.data.validation, plain, batch_size=77).metric
    assert len(caches) > 1
    assert alive == [0]


def test_modes_are_restored_module_by_module(make_task: MakeTask, cnn: nn.Sequential) -> None:
    task = make_task()
    cnn.train()
    cnn[2].eval()
    modes = [module.training for module in cnn.modules()]
    evaluate(cnn, task.data.validation, task)
    recalibrate_batch_norm(cnn, task.data.train)
    assert [module.training for module in cnn.modules()] == modes
    failing = replace(task, loss=lambda outputs, targets: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate(cnn, task.data.validation, failing)
    assert [module.training for module in cnn.modules()] == modes


def test_evaluation_leaves_the_network_as_it_was(make_task: MakeTask, cnn: nn.Module) -> None:
    task = make_task()
    before = {name: tensor.clone() for name, tensor in cnn.state_dict().items()}
    first = evaluate(cnn.train(), task.data.validation, task)
    assert evaluate(cnn, task.data.validation, task) == first
    assert all(torch.equal(tensor, before[name]) for name, tensor in cnn.state_dict().items())


class Ragged(nn.Module):
    """Outputs as wide as the batch is long."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs @ inputs.T


def test_what_cannot_be_judged_is_named(make_task: MakeTask, mlp: nn.Module) -> None:
    with pytest.raises(TaskError, match="must have examples"):
        evaluate(mlp, make_task(n_train=0).data.train, make_task())
    task = replace(make_task(), loss=lambda outputs, targets: outputs.mean())
    with pytest.raises(TaskError, match="same shape for every example"):
        evaluate(Ragged(), task.data.validation, task, batch_size=64)


def test_recalibration_gives_the_statistics_of_the_data(make_task: MakeTask, cnn: nn.Sequential) -> None:
    task = make_task()
    cnn.insert(1, nn.Dropout(0.5))
    before = {name: parameter.clone() for name, parameter in cnn.named_parameters()}
    recalibrate_batch_norm(cnn, task.data.train, n_examples=len(task.data.train), batch_size=len(task.data.train))
    with torch.no_grad():
        flowing = cnn[2](cnn[0](task.data.train.inputs)).transpose(0, 1).flatten(1)
    norm = cnn[3]
    torch.testing.assert_close(norm.running_mean, flowing.mean(1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(norm.running_var, flowing.var(1), rtol=1e-4, atol=1e-6)
    assert norm.momentum == 0.1
    assert all(torch.equal(parameter, before[name]) for name, parameter in cnn.named_parameters())


def test_recalibration_averages_over_even_batches_without_repeats(make_task: MakeTask, cnn: nn.Sequential) -> None:
    task = make_task()
    recalibrate_batch_norm(cnn, task.data.train, n_examples=385)
    batches = task.data.train.asked
    assert [len(batch) for batch in batches] == [97, 96, 96, 96]
    assert len(torch.cat(batches).unique()) == 385
    with torch.no_grad():
        means = [cnn[1](cnn[0](task.data.train.inputs[batch])).mean((0, 2, 3)) for batch in batches]
    torch.testing.assert_close(cnn[2].running_mean, torch.stack(means).mean(0), rtol=1e-4, atol=1e-6)


class EvalInForward(nn.Module):
    """Freezes its norm's statistics in each forward pass, and has another norm that it runs in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.auxiliary, self.norm = nn.BatchNorm1d(64), nn.BatchNorm1d(64), nn.BatchNorm1d(64)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.frozen.eval()
        outputs = self.norm(self.frozen(inputs))
        return self.auxiliary(outputs) if self.training else outputs


def test_recalibration_leaves_norms_that_it_does_not_reach(make_task: MakeTask) -> None:
    task, model = make_task(), EvalInForward()
    for norm in (model.frozen, model.auxiliary):
        norm.running_mean += 0.25
        norm.num_batches_tracked += 7
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recalibrate_batch_norm(model, task.data.train)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}


def test_recalibration_that_fails_changes_nothing(make_task: MakeTask, cnn: nn.Module) -> None:
    task = make_task()
    before = {name: tensor.clone() for name, tensor in cnn.state_dict().items()}
    with pytest.raises(RuntimeError):
        recalibrate_on_batches(cnn, [task.data.train.inputs[:9], torch.zeros(2, 7)])
    assert all(torch.equal(tensor, before[name]) for name, tensor in cnn.state_dict().items())


def test_recalibration_leaves_frozen_norms_unless_asked(make_task: MakeTask, cnn: nn.Sequential) -> None:
    task = make_task()
    norm = next(module for module in cnn if isinstance(module, nn.BatchNorm2d))
    norm.momentum = 0.0
    before = norm.running_mean.clone()
    recalibrate_batch_norm(cnn, task.data.train)
    assert torch.equal(norm.running_mean, before)
    recalibrate_batch_norm(cnn, task.data.train, keep_frozen=False)
    assert not torch.equal(norm.running_mean, before)


def test_recalibration_leaves_a_network_without_batch_norm_alone(make_task: MakeTask, mlp: nn.Module) -> None:
    task = make_task()
    recalibrate_batch_norm(mlp, task.data.train)
    assert task.data.train.asked == []


SETTINGS: dict[str, tuple[dict[str, Any], type[torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": (
        {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1},
        torch.optim.SGD,
        {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1},
    ),
    "adam": ({"beta1": 0.8}, torch.optim.Adam, {"betas": (0.8, 0.999), "weight_decay": 0.0}),
    "adamw": ({"beta2": 0.99}, torch.optim.AdamW, {"betas": (0.9, 0.99), "weight_decay": 0.01}),
}


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_settings_reach_torch(name: str, mlp: nn.Module) -> None:
    settings, expected_type, expected = SETTINGS[name]
    optimizer = build_optimizer(OptimizerConfig(name, settings), mlp.parameters(), lr=0.3)
    assert type(optimizer).__bases__ == (expected_type,)
    (group,) = optimizer.param_groups
    assert {key: group[key] for key in expected} == expected
    assert group["lr"] == 0.3
    assert len(group["params"]) == len(list(mlp.parameters()))


def test_nesterov_without_momentum_is_plain_sgd(mlp: nn.Module) -> None:
    config = OptimizerConfig("sgd", {"momentum": 0.0, "nesterov": True})
    assert not build_optimizer(config, mlp.parameters(), lr=0.1).param_groups[0]["nesterov"]


def test_a_setting_out_of_bounds_is_refused(mlp: nn.Module) -> None:
    with pytest.raises(AutopruneError, match=r"optimizer 'sgd': momentum must be a number in \[0, 1\), got 1"):
        build_optimizer(OptimizerConfig("sgd", {"momentum": 1}), mlp.parameters(), lr=0.1)
