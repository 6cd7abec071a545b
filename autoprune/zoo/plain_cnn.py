"""Plain convolutional networks for small images: 3x3 convolutions with batch norm, no shortcuts."""

from collections.abc import Sequence

import torch
from torch import nn

from autoprune.errors import TaskError


class PlainCNN(nn.Module):
    """Stages of 3x3 convolutions with batch norm and ReLU, 2x2 max-pooling between them, global average, linear head.

    Modules are named ``stage1.conv1``, ``stage1.bn1``, ..., ``head``.

    Args:
        stages: Output channels of every convolution, stage by stage.
    """

    def __init__(self, stages: Sequence[Sequence[int]], in_channels: int = 1, num_classes: int = 10) -> None:
        super().__init__()
        for number, widths in enumerate(stages, start=1):
            stage = nn.Sequential()
            if number > 1:
                stage.add_module("pool", nn.MaxPool2d(2))
            for position, width in enumerate(widths, start=1):
                stage.add_module(f"conv{position}", nn.Conv2d(in_channels, width, 3, padding=1, bias=False))
                stage.add_module(f"bn{position}", nn.BatchNorm2d(width))
                stage.add_module(f"relu{position}", nn.ReLU())
                in_channels = width
            self.add_module(f"stage{number}", stage)
        self.n_stages = len(stages)
        self.head = nn.Linear(in_channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images, ``(n, in_channels, height, width)``, to class scores, ``(n, num_classes)``."""
        for number in range(1, self.n_stages + 1):
            x = self.get_submodule(f"stage{number}")(x)
        scores: torch.Tensor = self.head(x.mean((2, 3)))
        return scores


def small_cnn(num_classes: int = 10, in_channels: int = 1, width: int = 16) -> PlainCNN:
    """Four convolutions in two stages, ``width`` and ``2 * width`` channels wide; suits images from 8x8 on."""
    return PlainCNN(((width, width), (2 * width, 2 * width)), in_channels, num_classes)


def cnn6(widths: Sequence[int] = (16, 16, 32, 32, 64, 64), num_classes: int = 10, in_channels: int = 1) -> PlainCNN:
    """Six convolutions in three stages of two; 7.3M MACs on 28x28.

    Raises:
        TaskError: Unless there are six widths.
    """
    if len(widths) != 6:
        raise TaskError(f"cnn6: widths must be six numbers, one for each convolution, got {list(widths)}.")
    return PlainCNN((widths[0:2], widths[2:4], widths[4:6]), in_channels, num_classes)
