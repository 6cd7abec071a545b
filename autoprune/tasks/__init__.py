"""What the user brings: model, data, loss and metric, from a space file to a checked ``Task``."""

from autoprune.tasks.splits import DatasetSplit, SubsetSplit, TensorSplit, as_split, hold_out
from autoprune.tasks.task import Data, DistillationLoss, Loss, Metric, Split, Task

__all__ = [
    "Data",
    "DatasetSplit",
    "DistillationLoss",
    "Loss",
    "Metric",
    "Split",
    "SubsetSplit",
    "Task",
    "TensorSplit",
    "as_split",
    "hold_out",
]
