"""Image sets in Parquet files as Hugging Face lays them out: a column of encoded images, a column of class indices."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from autoprune.config.paths import expand
from autoprune.datasets.images import image_data
from autoprune.errors import TaskError
from autoprune.tasks.task import Data

if TYPE_CHECKING:
    import pyarrow as pa


def parquet_images(
    train: str,
    test: str,
    image_column: str = "img",
    label_column: str = "label",
    validation: int = 5000,
    validation_from: Literal["train", "test"] = "train",
    limit_train: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
) -> Data:
    """Load an image set from two Parquet files; needs Pillow (``pip install 'autoprune[images]'``).

    All images must have the same size. They are grey if the first one is, and are turned to RGB otherwise.

    Args:
        train: File with the training examples. May hold ``${ENVIRONMENT_VARIABLES}``, as may ``test``.
        test: File with the test examples.
        image_column: Encoded images (JPEG, PNG, ...): a struct with the field ``bytes``, or plain binary.
        label_column: Class indices, integers.
        validation: Examples held out to choose by, drawn at random.
        validation_from: File that they are held out from. Weights that were trained on the whole training file have
            seen any validation examples in it and look better on them than they are; then take ``"test"``.
        limit_train: Number of the remaining examples to train on; ``None`` takes all. Only these are decoded.
        mean: Of every channel, for pixels in [0, 1]; ``None`` is that of the examples trained on.
        std: As ``mean``.
        seed: Seed of the split.

    Returns:
        Inputs of shape ``(n, channels, height, width)``, float32, normalised; kept in memory as bytes.

    Raises:
        TaskError: If a file or column is missing, an image can't be decoded or has another size, or Pillow is not
            installed.
    """
    if validation_from not in ("train", "test"):
        raise TaskError(f"validation_from must be 'train' or 'test', got '{validation_from}'.")
    train_file, test_file = (_ImageFile(path, image_column, label_column) for path in (train, test))
    return image_data(
        train_file.read,
        train_file.n_rows,
        test_file.read(torch.arange(test_file.n_rows)),
        validation=validation,
        validation_from=validation_from,
        limit_train=limit_train,
        mean=mean,
        std=std,
        seed=seed,
        where=train_file.path.name,
    )


class _ImageFile:
    """One Parquet file, its images still encoded."""

    def __init__(self, path: str, image_column: str, label_column: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = expand(path)
        if not self.path.is_file():
            raise TaskError(f"no file {self.path}.")
        try:
            columns = pq.read_schema(self.path).names
            for column in (image_column, label_column):
                if column not in columns:
                    raise TaskError(f"{self.path} has no column '{column}'. It has: {', '.join(columns)}.")
            table = pq.read_table(self.path, columns=list({image_column, label_column})).combine_chunks()
        except (pa.ArrowException, OSError) as error:
            raise TaskError(f"{self.path} can't be read as Parquet: {error}") from error
        self.n_rows: int = table.num_rows
        self._encoded = self._bytes_of(table[image_column], image_column)
        labels = table[label_column]
        if not pa.types.is_integer(labels.type) or labels.null_count:
            raise TaskError(f"{self.path}: column '{label_column}' must hold integers and no nulls, got {labels.type}.")
        self._targets = torch.from_numpy(labels.to_numpy().astype(np.int64))

    def _bytes_of(self, column: "pa.ChunkedArray", name: str) -> "pa.ChunkedArray":
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_struct(column.type) and "bytes" in [field.name for field in column.type]:
            column = pc.struct_field(column, "bytes")
        if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)) or column.null_count:
            raise TaskError(
                f"{self.path}: column '{name}' must hold encoded images, as struct<bytes, path> or binary and without "
                f"nulls, got {column.type}."
            )
        return column

    def read(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode examples by index; returns images, uint8 NCHW, and their targets."""
        image_module = _pillow_image()
        rows = self._encoded.take(indices.numpy())
        images: np.ndarray | None = None
        mode = "RGB"
        for position, (row, encoded) in enumerate(zip(indices.tolist(), rows, strict=True)):
            try:
                with image_module.open(io.BytesIO(encoded.as_py())) as image:
                    if images is None:
                        mode = "L" if image.mode in ("1", "L") else "RGB"
                        images = np.empty((len(indices), len(mode), image.height, image.width), dtype=np.uint8)
                    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
            except (OSError, SyntaxError, ValueError) as error:
                raise TaskError(f"{self.path}: the image in row {row} can't be decoded: {error}") from error
            if pixels.shape[:2] != images.shape[2:]:
                raise TaskError(
                    f"{self.path}: all images must have the same size, got {pixels.shape[:2]} in row {row} after "
                    f"{images.shape[2:]}."
                )
            images[position] = pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels
        if images is None:
            raise TaskError(f"{self.path} has no examples.")
        return torch.from_numpy(images), self._targets[indices]


def _pillow_image() -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise TaskError("decoding images needs Pillow. Install it with `pip install 'autoprune[images]'`.") from error
    return Image
