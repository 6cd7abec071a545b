"""Parquet image sets, made here with pyarrow and Pillow."""

import builtins
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from autoprune.datasets import parquet_images
from autoprune.errors import TaskError


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def write(path: Path, images: Sequence[bytes | None], labels: pa.Array | None = None, **names: str) -> str:
    struct = pa.array(
        [{"bytes": image, "path": None} for image in images],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    labels = pa.array([i % 3 for i in range(len(images))], pa.int64()) if labels is None else labels
    table = pa.table({names.get("image", "img"): struct, names.get("label", "label"): labels})
    pq.write_table(table, path, row_group_size=7)
    return str(path)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, 4, 5, 3), dtype=np.uint8)


def test_round_trip(pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "train.parquet", [png(image) for image in pixels[:18]])
    write(tmp_path / "test.parquet", [png(image) for image in pixels[18:]])
    monkeypatch.setenv("IMAGE_FOLDER", str(tmp_path))
    data = parquet_images("${IMAGE_FOLDER}/train.parquet", "${IMAGE_FOLDER}/test.parquet", validation=3)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [15, 3, 6]
    assert np.array_equal(data.test.images.numpy(), pixels[18:].transpose(0, 3, 1, 2))
    assert data.test.targets.tolist() == [0, 1, 2, 0, 1, 2]
    for image, target in zip(data.train.images, data.train.targets, strict=True):
        row = next(i for i in range(18) if np.array_equal(pixels[i].transpose(2, 0, 1), image.numpy()))
        assert target == row % 3
    inputs = data.train.batch(torch.arange(15))[0].double()
    torch.testing.assert_close(inputs.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        inputs.std((0, 2, 3), correction=0), torch.ones(3, dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_given_normalisation_and_limit(pixels: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [png(image) for image in pixels])
    data = parquet_images(path, path, validation=3, limit_train=2, mean=[0.5, 0.4, 0.3], std=[0.2, 0.2, 0.1])
    assert len(data.train) == 2
    expected = (pixels[4] / 255 - np.array([0.5, 0.4, 0.3])) / np.array([0.2, 0.2, 0.1])
    np.testing.assert_allclose(
        data.test.batch(torch.tensor([4]))[0][0].permute(1, 2, 0), expected, rtol=1e-5, atol=1e-5
    )


def test_validation_may_come_from_the_test_file(pixels: np.ndarray, tmp_path: Path) -> None:
    train = write(tmp_path / "train.parquet", [png(image) for image in pixels[:14]])
    test = write(tmp_path / "test.parquet", [png(image) for image in pixels[14:]])
    data = parquet_images(train, test, validation=4, validation_from="test")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [14, 4, 6]
    found = torch.cat([data.validation.images, data.test.images]).flatten(1)
    expected = torch.tensor(pixels[14:].transpose(0, 3, 1, 2).reshape(10, -1))
    assert sorted(found.tolist()) == sorted(expected.tolist())
    labels = torch.cat([data.validation.targets, data.test.targets])
    for image, target in zip(found, labels, strict=True):
        assert target == int((expected == image).all(dim=1).nonzero()) % 3


def test_grey_images_and_other_column_names(pixels: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [png(image[:, :, 0]) for image in pixels], image="image", label="fine")
    data = parquet_images(path, path, image_column="image", label_column="fine", validation=3)
    assert np.array_equal(data.test.images.numpy()[:, 0], pixels[..., 0])


def test_plain_binary_column(pixels: np.ndarray, tmp_path: Path) -> None:
    table = pa.table({"img": [png(image) for image in pixels], "label": list(range(24))})
    pq.write_table(table, tmp_path / "a.parquet")
    data = parquet_images(str(tmp_path / "a.parquet"), str(tmp_path / "a.parquet"), validation=3)
    assert data.test.targets.tolist() == list(range(24))


def small() -> bytes:
    return png(np.zeros((2, 2, 3), np.uint8))


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (None, {}, "no file .*a.parquet"),
        ([small()] * 4, {"image_column": "image"}, "has no column 'image'. It has: img, label"),
        ([small()] * 4, {"label_column": "class"}, "has no column 'class'"),
        ([small()] * 4, {"image_column": "label"}, "column 'label' must hold encoded images"),
        ([small()] * 4, {"label_column": "img"}, "column 'img' must hold integers"),
        ([small()] * 3 + [None], {}, "column 'img' must hold encoded images.*without nulls"),
        ([small()] * 3 + [b"no image"], {}, "image in row 3 can't be decoded"),
        ([small()] * 3 + [png(np.zeros((2, 3, 3), np.uint8))], {}, r"same size, got \(2, 3\) in row 3 after \(2, 2\)"),
        ([small()] * 4, {"mean": [0.5]}, r"mean must have a value for each of the 3 channels, got \[0.5\]"),
        ([small()] * 4, {}, "std must be above 0 in every channel"),
        ([small()] * 4, {"validation": 4}, r"must be in \(0, 4\)"),
    ],
)
def test_errors(images: list[bytes] | None, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    if images is not None:
        write(tmp_path / "a.parquet", images)
    with pytest.raises(TaskError, match=message):
        parquet_images(path, path, **{"validation": 1, **options})


def test_no_parquet_file(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"nonsense")
    with pytest.raises(TaskError, match="can't be read as Parquet"):
        parquet_images(str(tmp_path / "a.parquet"), str(tmp_path / "a.parquet"))


def test_without_pillow(pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", [png(image) for image in pixels])
    real_import = builtins.__import__

    def no_pillow(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "PIL":
            raise ModuleNotFoundError("No module named 'PIL'", name="PIL")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_pillow)
    with pytest.raises(TaskError, match=r"pip install 'autoprune\[images\]'"):
        parquet_images(path, path, validation=2)
