"""Writing a network in a format and proving it: the files are loaded again, run, and compared with the network."""

import logging
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Literal

from autoprune.errors import AutopruneError, ExportError
from autoprune.formats._base import Format
from autoprune.formats.network import Network, max_difference


@dataclass(frozen=True)
class FormatRecord:
    """How a network was written in one format.

    Attributes:
        batch: ``"dynamic"``, or the only batch size that the file takes.
        max_difference: Largest absolute difference from the network's own over all outputs on real inputs.
        note: Why the batch is fixed, where it is.
    """

    files: tuple[str, ...]
    batch: Literal["dynamic"] | int
    max_difference: float
    note: str | None = None


def write_verified(file_format: Format, network: Network, folder: Path, tolerance: float) -> FormatRecord:
    """Write a network in one format, for any batch size if that works, and prove it by loading and running the files.

    Args:
        tolerance: Largest difference allowed, absolute for outputs up to 1 in size and relative to the largest beyond.

    Raises:
        ExportError: If the files can't be written or do not reproduce the network for any batch size that was tried.
    """
    problems: dict[str, list[str]] = {}
    cause: Exception | None = None
    # A batch of 1 is what a device runs most; the examples' own size serves a network that is built for that size.
    for batch in dict.fromkeys((None, 1, network.batch_size)):
        try:
            with _quiet():
                file_format.write(network, folder, batch)
                run = file_format.load(folder, network.base_dir)
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
            return FormatRecord(file_format.files, batch or "dynamic", worst, note)
    raise ExportError(
        f"export format {file_format.name!r} does not reproduce the network. {_listed(problems)}. "
        f"Nothing was written; leave {file_format.name!r} out of the formats to export the others."
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
