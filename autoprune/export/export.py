"""Exporting one trained network: its verified formats and a manifest in one folder, which appears when all is there."""

import platform
import shutil
import uuid
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import nn

from autoprune.errors import ExportError
from autoprune.export.manifest import (
    FILE_NAME,
    FileRecord,
    Manifest,
    TensorRecord,
    describe_file,
    plain,
    read_manifest,
)
from autoprune.formats._base import Format
from autoprune.formats.architecture import Architecture
from autoprune.formats.network import Network, tensors
from autoprune.formats.registry import find_formats
from autoprune.formats.verify import write_verified
from autoprune.network.call import Inputs
from autoprune.tasks.working_folder import working_in


def export_model(
    model: nn.Module,
    folder: Path,
    *,
    example_inputs: Inputs,
    architecture: Architecture,
    formats: Sequence[str] = ("safetensors", "onnx", "torch"),
    metrics: Mapping[str, Any],
    source: Mapping[str, Any],
    compared_with: str | None = None,
    base_dir: Path | None = None,
    tolerance: float = 1e-4,
) -> Manifest:
    """Export a trained network into a folder, with a manifest of what is in it.

    All files are first written beside ``folder``. Each format is loaded again from its files and its outputs are
    compared with the network's on ``example_inputs`` and on a batch of another size; ``folder`` appears once every
    format has passed, in place of an earlier export. Where a network can't be traced for any batch size, the traced
    formats are written for a fixed batch, of 1 if that works, and the manifest says so.

    Args:
        model: The network; it is left as it is, a copy is exported on the CPU and in evaluation mode.
        example_inputs: Several real inputs: a tensor, or a tuple or dict of tensors, whose first dimension is the
            batch.
        architecture: How ``model`` is rebuilt, from ``autoprune.formats.architecture.architecture_diff``.
        formats: Names in ``autoprune.formats.registry.FORMATS``.
        metrics: The trial's metric and costs, for the manifest.
        source: Study, trial number and parameters, for the manifest.
        compared_with: What ``model`` itself was compared with before, for the manifest.
        base_dir: Folder that the user's own modules are imported from, and that the network runs in.
        tolerance: Largest difference allowed, absolute for outputs up to 1 in size and relative to the largest beyond.

    Returns:
        The manifest, as written to ``folder / "manifest.json"``.

    Raises:
        ExportError: If a format is unknown, needs a package that is missing, or does not reproduce the network, or
            ``folder`` holds something else than an export or can't be written. Nothing is left behind.
    """
    folder = Path(folder)
    chosen = find_formats(formats)
    _check_folder(folder)
    target = folder.resolve()
    work = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        work.mkdir(parents=True)
        with working_in(base_dir or Path.cwd()):  # the network may open files
            network = Network(model, example_inputs, architecture, base_dir)
            records = {each.name: write_verified(each, network, work, tolerance) for each in chosen}
        manifest = Manifest(
            source=plain(source),
            metrics=plain(metrics),
            inputs=_describe(network.input_names(), network.inputs, network.batch_size),
            outputs=_describe(network.output_names(), network.outputs, network.batch_size),
            formats=records,
            files=_files(work),
            versions=_versions(chosen),
            compared_with=compared_with,
        )
        manifest.write(work)
        _put_in_place(work, target)
    except OSError as error:
        raise ExportError(f"{folder}: can't be written: {error.strerror or error}. Name another folder.") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return manifest


def _check_folder(folder: Path) -> None:
    """Refuse a folder whose content is not an export's."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ExportError(f"{folder}: an export needs a folder, got a file. Name another folder.")
    if any(folder.iterdir()):
        try:
            read_manifest(folder)
        except ExportError:
            raise ExportError(
                f"{folder}: must be empty or hold an earlier export, got other files. Name another folder, or empty it."
            ) from None


def _describe(names: Sequence[str], tree: Any, batch_size: int) -> tuple[TensorRecord, ...]:
    records = []
    for name, tensor in zip(names, tensors(tree), strict=True):
        first = ("batch",) if tensor.shape[:1] == (batch_size,) else tensor.shape[:1]
        records.append(TensorRecord(name, (*first, *tensor.shape[1:]), str(tensor.dtype).removeprefix("torch.")))
    return tuple(records)


def _files(folder: Path) -> dict[str, FileRecord]:
    return {path.name: describe_file(path) for path in sorted(folder.iterdir()) if path.name != FILE_NAME}


def _versions(formats: Sequence[Format]) -> dict[str, str]:
    packages = dict.fromkeys(["autoprune", "torch", *(name for each in formats for name in each.packages)])
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # Installed under another name, such as onnxruntime-gpu.
        return str(getattr(import_module(package), "__version__", "unknown"))


def _put_in_place(work: Path, folder: Path) -> None:
    """Move the finished export to ``folder``; an earlier export stays until the new one is there."""
    if not folder.exists():
        work.rename(folder)
        return
    old = work.with_name(f"{work.name}.old")
    folder.rename(old)
    try:
        work.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
