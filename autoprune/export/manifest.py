"""``manifest.json``: what an export holds, where it comes from, and how far it was checked."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from autoprune.errors import ExportError
from autoprune.formats.verify import FormatRecord

FILE_NAME = "manifest.json"


@dataclass(frozen=True)
class TensorRecord:
    """An input or output of the exported network; ``"batch"`` stands in ``shape`` for the batch dimension."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True)
class FileRecord:
    """A file's length and the SHA-256 of its content, in hexadecimal."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """An export, as ``manifest.json`` has it.

    Attributes:
        source: Study, trial number and parameters that the network comes from.
        metrics: The trial's metric by its name, with the name and the direction under ``metric``, and its costs.
        compared_with: What the network itself was compared with before its formats were compared with it.
        versions: Of Python, autoprune, and the packages that wrote and checked the files.
    """

    source: Mapping[str, Any]
    metrics: Mapping[str, Any]
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    formats: Mapping[str, FormatRecord]
    files: Mapping[str, FileRecord]
    versions: Mapping[str, str]
    compared_with: str | None = None
    schema: Literal["autoprune-export-1"] = "autoprune-export-1"

    def write(self, folder: Path) -> None:
        """Write ``manifest.json`` into the export's folder."""
        (folder / FILE_NAME).write_text(json.dumps(asdict(self), indent=2, allow_nan=False) + "\n", encoding="utf-8")


_ADAPTER = TypeAdapter(Manifest)


def read_manifest(folder: Path) -> Manifest:
    """Read an export's manifest.

    Raises:
        ExportError: If ``folder`` holds no manifest, or one that autoprune did not write.
    """
    path = Path(folder) / FILE_NAME
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except OSError as error:
        raise ExportError(f"{path}: an export must hold its manifest, got: {error.strerror}. Export again.") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ExportError(f"{path}: not a manifest of autoprune's: {place}: {first['msg']}. Export again.") from None


def describe_file(path: Path) -> FileRecord:
    """Measure and hash a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return FileRecord(path.stat().st_size, digest.hexdigest())


def plain(value: Any) -> Any:
    """Turn nested mappings, sequences and NumPy scalars into JSON values; NaN and infinities become ``None``."""
    return to_jsonable_python(
        value, inf_nan_mode="null", fallback=lambda other: other.item() if hasattr(other, "item") else str(other)
    )
