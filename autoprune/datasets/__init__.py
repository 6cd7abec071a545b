"""Data sets for the ``task.data`` of a space file, and augmentation for ``task.augment``."""

from autoprune.datasets.augment import random_crop_flip
from autoprune.datasets.digits import digits
from autoprune.datasets.idx import fashion_mnist, idx_images, read_idx
from autoprune.datasets.images import ImageSplit
from autoprune.datasets.parquet import parquet_images

__all__ = [
    "ImageSplit",
    "digits",
    "fashion_mnist",
    "idx_images",
    "parquet_images",
    "random_crop_flip",
    "read_idx",
]
