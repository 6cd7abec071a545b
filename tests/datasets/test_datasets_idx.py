"""IDX files, written here by hand after the format's description."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from autoprune.datasets import fashion_mnist, idx, idx_images, read_idx
from autoprune.errors import TaskError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_set(folder: Path, suffix: str = "") -> tuple[list[str], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (30, 6, 5)), np.arange(30) % 3
    files = []
    for name, array in zip(NAMES, (images[:20], labels[:20], images[20:], labels[20:]), strict=True):
        content = idx_bytes(array)
        files.append(folder / f"{name}{suffix}")
        files[-1].write_bytes(gzip.compress(content) if suffix else content)
    return [str(file) for file in files], images, labels


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_reads_what_was_written(suffix: str, tmp_path: Path) -> None:
    files, images, labels = write_set(tmp_path, suffix)
    assert np.array_equal(read_idx(files[0]), images[:20])
    assert np.array_equal(read_idx(files[3]), labels[20:])


GOOD = idx_bytes(np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must begin with two zero bytes"),
        (b"\x01" + GOOD[1:], "must begin with two zero bytes, got 01 00 08 02"),
        (b"\0\0\x0d\x02" + GOOD[4:], r"type must be 08 \(unsigned byte\), got 0d"),
        (GOOD[:6], "must have as many bytes"),
        (GOOD[:-1], r"shape \(2, 3\) must have as many bytes after its header, got 17"),
        (GOOD + b"x", "must have as many bytes"),
    ],
)
def test_bad_files(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(TaskError, match=message):
        read_idx(tmp_path / "bad")


def test_missing_and_broken_gzip(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no file"):
        read_idx(tmp_path / "none")
    (tmp_path / "bad.gz").write_bytes(gzip.compress(GOOD)[:-9])
    with pytest.raises(TaskError, match="can't be read"):
        read_idx(tmp_path / "bad.gz")


def test_splits_and_normalisation(tmp_path: Path) -> None:
    files, images, labels = write_set(tmp_path)
    data = idx_images(*files, validation=4, seed=1)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [16, 4, 10]
    inputs, targets = data.train.batch(torch.arange(16))
    held, held_targets = data.validation.batch(torch.arange(4))
    assert inputs.shape == (16, 1, 6, 5)
    assert inputs.dtype == torch.float32
    assert targets.dtype == torch.int64
    assert abs(inputs.double().mean()) < 1e-6
    assert abs(inputs.double().std(correction=0) - 1) < 1e-6
    assert sorted([*targets.tolist(), *held_targets.tolist()]) == sorted(labels[:20])
    mean, std = data.test.mean[0], data.test.std[0]
    np.testing.assert_allclose(
        data.test.batch(torch.arange(10))[0].numpy()[:, 0], (images[20:] / 255 - mean) / std, rtol=1e-4, atol=1e-5
    )
    pixels = torch.cat([inputs, held]) * std + mean
    assert sorted((pixels.sum((1, 2, 3)) * 255).round().int().tolist()) == sorted(images[:20].sum((1, 2)).tolist())


def test_a_limit_keeps_the_validation_split(tmp_path: Path) -> None:
    files, _, _ = write_set(tmp_path)
    whole, limited = idx_images(*files, validation=4), idx_images(*files, validation=4, limit_train=5)
    assert len(limited.train) == 5
    assert torch.equal(whole.validation.images, limited.validation.images)
    with pytest.raises(TaskError, match="limit_train must be at least 1, got 0"):
        idx_images(*files, validation=4, limit_train=0)
    with pytest.raises(TaskError, match=r"must be in \(0, 20\).*got 5000"):
        idx_images(*files)


def test_images_and_labels_must_agree(tmp_path: Path) -> None:
    files, _, _ = write_set(tmp_path)
    with pytest.raises(TaskError, match=r"shape \(n,\), got \(20, 6, 5\) and \(10,\)"):
        idx_images(files[0], files[3], files[2], files[3], validation=2)


@pytest.mark.parametrize("subfolder", ["", "fashion-mnist"])
def test_fashion_mnist_is_found(subfolder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / subfolder).mkdir(exist_ok=True)
    write_set(tmp_path / subfolder, ".gz")
    monkeypatch.setenv("AUTOPRUNE_DATA", str(tmp_path))
    assert len(fashion_mnist(validation=4).train) == 16
    assert len(fashion_mnist(root=f"${{AUTOPRUNE_DATA}}/{subfolder}", validation=4).test) == 10


def test_fashion_mnist_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOPRUNE_DATA", raising=False)
    monkeypatch.setattr(idx, "DEBIAN_FOLDER", tmp_path)
    with pytest.raises(TaskError, match="apt-get install dataset-fashion-mnist"):
        fashion_mnist()
