"""Images kept in memory as bytes and normalised batch by batch, and how a training set of them is split."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from autoprune.errors import TaskError
from autoprune.tasks.splits import hold_out, shuffled
from autoprune.tasks.task import Data


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """A split of images of one size, at one byte a pixel and channel.

    Attributes:
        images: uint8, shape ``(n, channels, height, width)``.
        targets: int64, shape ``(n,)``.
        mean: Of every channel, for pixels in [0, 1].
        std: Of every channel, for pixels in [0, 1].
    """

    images: torch.Tensor
    targets: torch.Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Read examples by index, shape ``(n,)``; images as float32, ``(pixel / 255 - mean) / std``."""
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return self.images[indices].float().div_(255).sub_(mean).div_(std), self.targets[indices]


ReadImages = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Indices, shape ``(n,)`` -> images, uint8 NCHW, and targets of these examples."""


def image_data(
    read_train: ReadImages,
    n_train: int,
    test: tuple[torch.Tensor, torch.Tensor],
    *,
    validation: int,
    validation_from: Literal["train", "test"] = "train",
    limit_train: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    seed: int,
    where: str,
) -> Data:
    """Split a training set of images into train and validation, and normalise all by the training part.

    The validation examples are drawn first, so ``limit_train`` doesn't change them.

    Args:
        read_train: Reads training examples.
        n_train: Training examples that there are, those for validation included.
        test: Images and targets of the test split.
        validation: Number of examples held out.
        validation_from: Where they are held out; from ``"test"``, the test split is what is left of it.
        limit_train: Number of the remaining examples to train on; ``None`` takes all.
        mean: Of every channel, for pixels in [0, 1]; ``None`` is that of the examples trained on.
        std: As ``mean``.
        where: What to call the data set in an error.

    Raises:
        TaskError: If ``validation`` or ``limit_train`` leave nothing, or mean and std don't fit the channels.
    """
    n_examples = n_train if validation_from == "train" else len(test[1])
    rest, held_indices = hold_out(n_examples, validation, seed, where)
    train_indices = rest if validation_from == "train" else shuffled(n_train, seed)
    if limit_train is not None:
        if limit_train < 1:
            raise TaskError(f"{where}: limit_train must be at least 1, got {limit_train}.")
        train_indices = train_indices[:limit_train]
    images, targets = read_train(train_indices)
    if validation_from == "train":
        held_images, held_targets = read_train(held_indices)
    else:
        held_images, held_targets = (part[held_indices] for part in test)
        test = (test[0][rest], test[1][rest])
    n_channels = images.shape[1]
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != n_channels:
            raise TaskError(
                f"{where}: {name} must have a value for each of the {n_channels} channels, got {list(values)}."
            )
    measured_mean, measured_std = _moments(images) if mean is None or std is None else ((), ())
    normalisation = (
        tuple(measured_mean if mean is None else mean),
        tuple(measured_std if std is None else std),
    )
    if min(normalisation[1]) <= 0:
        raise TaskError(f"{where}: std must be above 0 in every channel, got {list(normalisation[1])}.")
    return Data(
        train=ImageSplit(images, targets, *normalisation),
        validation=ImageSplit(held_images, held_targets, *normalisation),
        test=ImageSplit(*test, *normalisation),
    )


def _moments(images: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel for pixels in [0, 1], from the histogram of the bytes."""
    n_channels = images.shape[1]
    counts = torch.zeros(n_channels, 256, dtype=torch.float64)
    for part in torch.split(images, 1024):
        for channel in range(n_channels):
            counts[channel] += torch.bincount(part[:, channel].flatten(), minlength=256)
    values = torch.arange(256, dtype=torch.float64) / 255
    shares = counts / counts.sum(dim=1, keepdim=True)
    means = shares @ values
    stds = (shares * (values - means[:, None]) ** 2).sum(dim=1).sqrt()
    return tuple(means.tolist()), tuple(stds.tolist())
