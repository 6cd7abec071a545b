"""Exporting one trained network: every format written, loaded again, compared with the network, and only then kept."""

import logging
import platform
import shutil
import textwrap
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from torch import nn

from autoprune.errors import AutopruneError, ExportError, unknown_name
from autoprune.export.manifest import (
    FILE_NAME,
    FileRecord,
    FormatRecord,
    Manifest,
    TensorRecord,
    describe_file,
    plain,
    read_manifest,
)
from autoprune.formats._base import Exporter
from autoprune.formats.network import Network, max_difference, tensors
from autoprune.formats.onnx_format import OnnxExporter
from autoprune.formats.safetensors_format import SafetensorsExporter
from autoprune.formats.saved_model import Architecture
from autoprune.formats.torch_format import TorchExporter
from autoprune.network.call import Inputs

EXPORTERS: Mapping[str, Exporter] = {
    exporter.name: exporter for exporter in (SafetensorsExporter(), OnnxExporter(), TorchExporter())
}


def export_model(
    model: nn.Module,
    folder: Path,
    *,
    example_inputs: Inputs,
    architecture: Architecture,
    formats: Sequence[str] = ("safetensors", "onnx", "torch"),
    metrics: Mapping[str, Any],
    source: Mapping[str, Any],
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
        architecture: How ``model`` is rebuilt, from ``autoprune.formats.saved_model.describe``.
        formats: Names in ``EXPORTERS``.
        metrics: The trial's accuracy and costs, for the manifest.
        source: Study, trial number and parameters, for the manifest.
        base_dir: Folder that the user's own modules are imported from.
        tolerance: Largest difference allowed, absolute for outputs up to 1 in size and relative to the largest beyond.

    Returns:
        The manifest, as written to ``folder / "manifest.json"``.

    Raises:
        ExportError: If a format is unknown, needs a package that is missing, or does not reproduce the network, or
            ``folder`` holds something else than an export or can't be written. Nothing is left behind.
    """
    folder = Path(folder)
    exporters = _exporters(formats)
    _check_folder(folder)
    network = Network(model, example_inputs, architecture, base_dir)
    target = folder.resolve()
    work = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        work.mkdir(parents=True)
        records = {exporter.name: _write_verified(exporter, network, work, tolerance) for exporter in exporters}
        manifest = Manifest(
            source=plain(source),
            metrics=plain(metrics),
            inputs=_describe(network.input_names(), network.inputs, network.batch_size),
            outputs=_describe(network.output_names(), network.outputs, network.batch_size),
            formats=records,
            files=_files(work),
            versions=_versions(exporters),
        )
        manifest.write(work)
        _put_in_place(work, target)
    except OSError as error:
        raise ExportError(f"{folder}: can't be written: {error.strerror or error}. Name another folder.") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return manifest


def _exporters(formats: Sequence[str]) -> list[Exporter]:
    """Look the formats up, each once, and the packages that they need."""
    if not formats:
        raise ExportError(f"formats must name at least one format. Known: {', '.join(EXPORTERS)}.")
    chosen = []
    for name in dict.fromkeys(formats):
        if name not in EXPORTERS:
            raise ExportError(unknown_name("export format", name, EXPORTERS))
        missing = [package for package in EXPORTERS[name].packages if find_spec(package) is None]
        if missing:
            raise ExportError(
                f"export format {name!r} needs {', '.join(missing)}, not installed here: "
                f"pip install 'autoprune[export]'. Or leave {name!r} out of the formats."
            )
        chosen.append(EXPORTERS[name])
    return chosen


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


def _write_verified(exporter: Exporter, network: Network, folder: Path, tolerance: float) -> FormatRecord:
    """Write one format, for any batch size if that works, and prove it by loading and running it."""
    problems: dict[str, list[str]] = {}
    cause: Exception | None = None
    # A batch of 1 is what a device runs most; the examples' own size serves a network that is built for that size.
    for batch in dict.fromkeys((None, 1, network.batch_size)):
        try:
            with _quiet():
                exporter.write(folder, network, batch)
                run = exporter.load(folder, network)
                worst = 0.0
                for inputs in network.batches(batch):
                    difference, scale = max_difference(run(inputs), network.run(inputs))
                    allowed = tolerance * max(1.0, scale)
                    if not difference <= allowed:
                        raise ExportError(
                            f"its output differs from the network's by {difference:.3g}, {allowed:.3g} is allowed"
                        )
                    worst = max(worst, difference)
        except Exception as error:
            cause = error
            size = "any batch size" if batch is None else f"a batch of {batch}"
            problems.setdefault(_shortened(error), []).append(size)
        else:
            note = f"The batch is fixed. {_listed(problems)}." if batch else None
            return FormatRecord(exporter.files, batch or "dynamic", worst, note)
    raise ExportError(
        f"export format {exporter.name!r} does not reproduce the network. {_listed(problems)}. "
        f"Nothing was written; leave {exporter.name!r} out of the formats to export the others."
    ) from cause


def _shortened(error: BaseException) -> str:
    """The root cause, which says more than the layers around it, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error) if isinstance(error, AutopruneError) else f"{type(error).__name__}: {error}"
    return textwrap.shorten(text, 300, placeholder=" ...").removesuffix(".")


def _listed(problems: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"With {' or '.join(sizes)}: {problem}" for problem, sizes in problems.items())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's exporters from printing: what matters of it is raised."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _describe(names: Sequence[str], tree: Any, batch_size: int) -> tuple[TensorRecord, ...]:
    records = []
    for name, tensor in zip(names, tensors(tree), strict=True):
        first = ("batch",) if tensor.shape[:1] == (batch_size,) else tensor.shape[:1]
        records.append(TensorRecord(name, (*first, *tensor.shape[1:]), str(tensor.dtype).removeprefix("torch.")))
    return tuple(records)


def _files(folder: Path) -> dict[str, FileRecord]:
    return {path.name: describe_file(path) for path in sorted(folder.iterdir()) if path.name != FILE_NAME}


def _versions(exporters: Sequence[Exporter]) -> dict[str, str]:
    packages = dict.fromkeys(["autoprune", "torch", *(name for exporter in exporters for name in exporter.packages)])
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
