"""What the user brings: model, data, loss and metric, from a space file to a checked ``Task``.

Names are imported when first used, so that this package can be imported without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoprune.tasks.build import build_task, model_builder
    from autoprune.tasks.check import check_task, count_classes
    from autoprune.tasks.classification import accuracy, cross_entropy, soft_target_loss
    from autoprune.tasks.forward import call_model, to_device
    from autoprune.tasks.resolve import call, load_callable
    from autoprune.tasks.splits import DatasetSplit, SubsetSplit, TensorSplit, as_split, hold_out
    from autoprune.tasks.task import Data, DistillationLoss, Inputs, Loss, Metric, Split, Task
    from autoprune.tasks.weights import load_weights

__all__ = [
    "Data",
    "DatasetSplit",
    "DistillationLoss",
    "Inputs",
    "Loss",
    "Metric",
    "Split",
    "SubsetSplit",
    "Task",
    "TensorSplit",
    "accuracy",
    "as_split",
    "build_task",
    "call",
    "call_model",
    "check_task",
    "count_classes",
    "cross_entropy",
    "hold_out",
    "load_callable",
    "load_weights",
    "model_builder",
    "soft_target_loss",
    "to_device",
]

_NAMES = {
    "build": ("build_task", "model_builder"),
    "check": ("check_task", "count_classes"),
    "classification": ("accuracy", "cross_entropy", "soft_target_loss"),
    "forward": ("call_model", "to_device"),
    "resolve": ("call", "load_callable"),
    "splits": ("DatasetSplit", "SubsetSplit", "TensorSplit", "as_split", "hold_out"),
    "task": ("Data", "DistillationLoss", "Inputs", "Loss", "Metric", "Split", "Task"),
    "weights": ("load_weights",),
}


def __getattr__(name: str) -> Any:
    for module, names in _NAMES.items():
        if name in names:
            return getattr(import_module(f"autoprune.tasks.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
