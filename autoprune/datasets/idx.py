"""The MNIST family: image sets in IDX files, plain or gzipped, and the real Fashion-MNIST from its Debian package."""

import gzip
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from autoprune.config.paths import expand
from autoprune.datasets.images import image_data
from autoprune.errors import TaskError
from autoprune.tasks.task import Data

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def read_idx(path: Path | str) -> np.ndarray:
    """Read an IDX file of unsigned bytes.

    Args:
        path: The file, gzipped if its name ends with ``.gz``. Environment variables in it are expanded.

    Returns:
        uint8, of the shape that the file states.

    Raises:
        TaskError: If there is no such file, it has another magic number or type, or its length is not what its shape
            says.

    Source:
        "The IDX file format" in LeCun et al., THE MNIST DATABASE, http://yann.lecun.com/exdb/mnist/
    """
    path = expand(path)
    if not path.is_file():
        raise TaskError(f"no file {path}.")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise TaskError(f"{path} can't be read: {error}.") from error
    if len(content) < 4 or content[:2] != b"\0\0":
        raise TaskError(f"{path} is no IDX file: it must begin with two zero bytes, got {content[:4].hex(' ')}.")
    if content[2] != 0x08:
        raise TaskError(f"{path}: IDX type must be 08 (unsigned byte), got {content[2]:02x}.")
    header = 4 + 4 * content[3]
    shape = tuple(np.frombuffer(content[4:header], dtype=">u4").tolist()) if len(content) >= header else ()
    if not shape or len(content) != header + int(np.prod(shape, dtype=np.int64)):
        raise TaskError(
            f"{path}: an IDX file of shape {shape} must have as many bytes after its header, got {len(content)}."
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape).copy()


def idx_images(
    train_images: str,
    train_labels: str,
    test_images: str,
    test_labels: str,
    validation: int = 5000,
    limit_train: int | None = None,
    seed: int = 0,
) -> Data:
    """Load an image set of the MNIST family.

    Args:
        train_images: IDX file of shape ``(n, height, width)``; all four may be gzipped, and hold
            ``${ENVIRONMENT_VARIABLES}``.
        train_labels: IDX file of shape ``(n,)``.
        validation: Training examples held out to choose by, drawn at random.
        limit_train: Number of the remaining examples to train on; ``None`` takes all.
        seed: Seed of the split.

    Returns:
        Inputs of shape ``(n, 1, height, width)``, float32, normalised by mean and standard deviation of the examples
        trained on.

    Raises:
        TaskError: If a file can't be read, or images and labels don't fit each other.
    """
    images, targets = _read_pair(train_images, train_labels)
    return image_data(
        lambda indices: (images[indices], targets[indices]),
        len(targets),
        _read_pair(test_images, test_labels),
        validation=validation,
        limit_train=limit_train,
        mean=None,
        std=None,
        seed=seed,
        where=Path(train_images).name,
    )


def fashion_mnist(
    root: str | None = None, validation: int = 5000, limit_train: int | None = None, seed: int = 0
) -> Data:
    """Load Fashion-MNIST: 60,000 and 10,000 images of clothes, 28x28, ten classes.

    The files are looked for in ``root`` if given; else in ``$AUTOPRUNE_DATA``, its subfolder ``fashion-mnist``, and
    where Debian's package ``dataset-fashion-mnist`` installs them.

    Raises:
        TaskError: If the four files are not there, plain or gzipped.

    Source:
        Xiao et al. 2017, https://arxiv.org/abs/1708.07747
    """
    if root is not None:
        folders = [expand(root)]
    else:
        own = os.environ.get("AUTOPRUNE_DATA")
        folders = [*([Path(own), Path(own) / "fashion-mnist"] if own else []), DEBIAN_FOLDER]
    files = _find_files(folders)
    if files is None:
        raise TaskError(
            f"Fashion-MNIST's four IDX files ({_FILES[0]}.gz, ...) are not in {', '.join(map(str, folders))}. Install "
            f"them with `apt-get install dataset-fashion-mnist`, or name their folder by root or by the environment "
            f"variable AUTOPRUNE_DATA."
        )
    train_images, train_labels, test_images, test_labels = map(str, files)
    return idx_images(train_images, train_labels, test_images, test_labels, validation, limit_train, seed)


def _find_files(folders: Iterable[Path]) -> list[Path] | None:
    for folder in folders:
        for suffix in ("", ".gz"):
            files = [folder / f"{name}{suffix}" for name in _FILES]
            if all(file.is_file() for file in files):
                return files
    return None


def _read_pair(images_path: str, labels_path: str) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise TaskError(
            f"{images_path} must have shape (n, height, width) and {labels_path} shape (n,), got {images.shape} and "
            f"{labels.shape}."
        )
    return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long()
