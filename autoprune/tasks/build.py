"""From the ``task`` part of a space file to a ``Task``."""

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from autoprune.config.task import CallableRef, LossSettings, MetricSettings, TaskSettings
from autoprune.errors import TaskError
from autoprune.network.frozen import unfreeze
from autoprune.tasks.built_in_metrics import make_metric
from autoprune.tasks.classification import soft_target_loss
from autoprune.tasks.losses import ModuleLoss, make_loss, tensor_args
from autoprune.tasks.metrics import TorchMetric
from autoprune.tasks.resolve import call, check_signature, load_callable
from autoprune.tasks.splits import NamedSplit, SubsetSplit, as_split, hold_out
from autoprune.tasks.task import Data, Loss, Metric, Task
from autoprune.tasks.working_folder import working_in

HELD_OUT_SHARE = 0.1


def build_task(settings: TaskSettings, base_dir: Path) -> Task:
    """Import what the space file names, load the data, and put the task together.

    Modules are imported, and the model and data callables run, with ``base_dir`` as the current directory.

    Args:
        base_dir: The space file's folder.

    Raises:
        TaskError: With every part that can't be had, one line each.
    """
    base_dir = base_dir.absolute()
    problems: list[str] = []

    def attempt(build: Callable[[], Any]) -> Any:
        try:
            return build()
        except TaskError as error:
            problems.append(str(error))

    build = attempt(lambda: model_builder(settings.model, base_dir))
    loss = attempt(lambda: _loss(settings.loss, base_dir))
    distillation_loss = attempt(
        lambda: _bound(
            settings.distillation_loss,
            ("outputs", "dense_outputs", "temperature"),
            base_dir,
            "task.distillation_loss",
            soft_target_loss if settings.loss.name == "cross_entropy" else None,
        )
    )
    metric = attempt(lambda: _metric(settings.metric, base_dir))
    augment = attempt(lambda: _bound(settings.augment, ("inputs", "generator"), base_dir, "task.augment", None))
    began = time.perf_counter()
    data = attempt(lambda: load_data(settings.data, base_dir))
    load_time_s = time.perf_counter() - began
    if problems:
        raise TaskError("\n".join(problems))
    return Task(
        build_model=build if settings.frozen == "keep" else lambda: unfreeze(build()),
        data=data,
        loss=loss,
        metric=metric,
        augment=augment,
        distillation_loss=distillation_loss,
        frozen=settings.frozen,
        load_time_s=load_time_s,
    )


def model_builder(model: CallableRef, base_dir: Path) -> Callable[[], nn.Module]:
    """Return a function that builds the network anew at each call.

    Raises:
        TaskError: If the callable can't be imported or takes no such arguments; the function itself raises it if the
            callable does, or returns something other than a network.
    """
    base_dir = base_dir.absolute()
    function = load_callable(model.callable, base_dir, "task.model")
    check_signature(function, (), model.args, "task.model")
    return partial(_build_model, function, model, base_dir)


def _build_model(function: Callable[..., Any], model: CallableRef, base_dir: Path) -> nn.Module:
    with working_in(base_dir):
        network = call(function, model.args, "task.model")
    if not isinstance(network, nn.Module):
        raise TaskError(f"task.model: {model.callable} must return a torch.nn.Module, got a {type(network).__name__}.")
    tensors = [*network.named_parameters(), *network.named_buffers()]
    unshaped = next((name for name, tensor in tensors if is_lazy(tensor)), None)
    if unshaped is not None:
        raise TaskError(
            f"task.model: {model.callable} returns a network whose '{unshaped}' has no shape yet, as lazy layers leave "
            "it. Run it once on an example before you return it, or give the layer its size."
        )
    with working_in(base_dir):
        call(network.train, {}, "task.model")  # it may freeze parameters
    return network


def _loss(settings: LossSettings, base_dir: Path) -> Loss:
    if settings.callable is None:
        return make_loss(str(settings.name), settings.args)
    ref = CallableRef(callable=settings.callable, args=settings.args)
    loss: Loss = _bound(ref, ("outputs", "targets"), base_dir, "task.loss", None)
    return ModuleLoss(loss) if isinstance(loss, nn.Module) else loss


def _metric(settings: MetricSettings, base_dir: Path) -> Metric:
    if settings.callable is None:
        return make_metric(settings.name, settings.args)
    ref = CallableRef(callable=settings.callable, args=settings.args)
    metric: Metric = _bound(ref, ("outputs", "targets"), base_dir, "task.metric", None)
    torchmetrics = sys.modules.get("torchmetrics")  # it takes seconds to load, and what is of it has loaded it
    if torchmetrics is None or not isinstance(metric, torchmetrics.Metric):
        return metric
    if metric.higher_is_better is not None and metric.higher_is_better != (settings.direction == "maximize"):
        right = "maximize" if metric.higher_is_better else "minimize"
        raise TaskError(f"task.metric: direction must be {right} for {settings.callable}, got {settings.direction}.")
    return TorchMetric(metric)


def _bound(
    ref: CallableRef | None,
    positional: tuple[str, ...],
    base_dir: Path,
    where: str,
    default: Callable[..., Any] | None,
) -> Any:
    """The callable that is named, its arguments bound; of a class an instance, which must be callable itself."""
    if ref is None:
        return default
    function = load_callable(ref.callable, base_dir, where)
    args = dict(ref.args)
    if isinstance(function, type):
        if function.__module__.startswith("torch.nn."):
            args = tensor_args(args)
        with working_in(base_dir):
            function, args = call(function, args, where), {}
        if not callable(function):
            raise TaskError(f"{where}: an instance of {ref.callable} must be callable, got one that is not.")
    if isinstance(function, nn.Module):  # torchmetrics' metrics are modules too
        if args:
            raise TaskError(f"{where}: {ref.callable} is an instance already, so it takes no args. Name its class.")
        return function
    check_signature(function, positional, args, where)
    return partial(function, **args) if args else function


def load_data(ref: CallableRef, base_dir: Path) -> Data:
    """Call what the space file names as ``task.data``, and make the three splits of what it returns.

    Raises:
        TaskError: If it can't be imported, raises, or returns something else.
    """
    function = load_callable(ref.callable, base_dir, "task.data")
    with working_in(base_dir):
        loaded = call(function, ref.args, "task.data")
    if isinstance(loaded, Data):
        return _named(loaded)
    if not isinstance(loaded, Mapping):
        raise TaskError(
            f"task.data: {ref.callable} must return autoprune.tasks.Data or a mapping with the keys train, validation "
            f"and test, got a {type(loaded).__name__}."
        )
    unknown = sorted(str(key) for key in loaded.keys() - {"train", "validation", "test"})
    if unknown:
        raise TaskError(f"task.data: unknown keys {', '.join(unknown)}. Known: train, validation, test.")
    if "train" not in loaded:
        raise TaskError("task.data: the key train is missing.")
    if "test" not in loaded:
        raise TaskError(
            "task.data: the key test is missing. The search chooses by the validation split, so its figures are no "
            "honest ones for the front: keep some examples apart and return them as test."
        )
    splits = {name: as_split(split, f"task.data: {name}") for name, split in loaded.items()}
    if "validation" not in splits:
        train = splits["train"]
        n_held = max(1, round(HELD_OUT_SHARE * len(train)))
        train_indices, held_indices = hold_out(len(train), n_held, seed=0, where="task.data")
        splits |= {"train": SubsetSplit(train, train_indices), "validation": SubsetSplit(train, held_indices)}
    return _named(Data(**splits))


def _named(data: Data) -> Data:
    """The same splits, which tell the example that can't be read."""
    return Data(**{name: NamedSplit(getattr(data, name), name) for name in ("train", "validation", "test")})
