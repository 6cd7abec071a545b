"""A task whose training takes a given time, slept away in each training batch so that the cores stay free.

Each training batch notes when it began and ended, and in which process, in the file that ``AUTOPRUNE_TIMES`` names.
"""

import os
import time
from pathlib import Path

import torch
from torch import nn

N_EXAMPLES = 32


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))


def data() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    inputs = torch.randn(N_EXAMPLES, 8, generator=torch.Generator().manual_seed(0))
    targets = (inputs[:, 0] > 0).long()
    return dict.fromkeys(("train", "validation", "test"), (inputs, targets))


def slow(inputs: torch.Tensor, generator: torch.Generator, seconds: float) -> torch.Tensor:
    """The augmentation: changes nothing, and takes its time."""
    begin = time.time()
    time.sleep(seconds)
    if len(inputs) == N_EXAMPLES and "AUTOPRUNE_TIMES" in os.environ:  # the check of a task runs on fewer
        with Path(os.environ["AUTOPRUNE_TIMES"]).open("a") as file:
            file.write(f"{begin} {time.time()}\n")
    return inputs
