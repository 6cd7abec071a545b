"""epochs.jsonl: every epoch of every run as it came, one line each; and the table of them, epochs.parquet.

A line takes the place of all lines of the same run, from its epoch on, that stand before it. So a trial that starts
again from its first epoch, as its checkpoint was lost, replaces what it had. Lines that were replaced are left out when
the file is read, and are deleted when a search opens it; so is a last line that a crash or a full disk cut short.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic_core import from_json

from autoprune.files import replacing
from autoprune.study.folder import StudyFolder
from autoprune.trial import EpochReport

DENSE = "dense"
"""Name of the dense network's own training, among the runs."""

_TYPES = {
    "loss": "float64",
    "train_loss": "float64",
    "lr": "float64",
    "batch_size": "int64",
    "micro_batch_size": "Int64",
    "train_time_s": "float64",
    "epoch_time_s": "float64",
    "removed_blocks": "str",
}


class EpochLog:
    """Appends reports to a study's ``epochs.jsonl``; made once the study's lock is held.

    A report that is the last of its run already, word for word, is not written again: a trial that goes on from a
    checkpoint begins with one that may have been heard.

    Raises:
        UnwritableError: If the file has to be mended and can't be written.
    """

    def __init__(self, folder: StudyFolder) -> None:
        self._folder, self._path = folder, folder.epochs
        self._metric = folder.config.metric.column
        self._last: dict[str, bytes] = {}
        before = _bytes_of(self._path)
        kept = _standing(before.splitlines(keepends=True))
        for line, record in kept:
            self._last[record["run"]] = line
        text = b"".join(line for line, _ in kept)
        if text != before:
            with folder.writing(), replacing(self._path) as handle:
                handle.write(text)

    def append(self, report: EpochReport) -> None:
        """Write down how a run stands after one more epoch; raises UnwritableError if that can't be done."""
        run = str(report.run)
        self._write(run, self._record(run, report))

    def append_dense(self, epoch: int, metric: float, figures: Mapping[str, float | int | None]) -> None:
        """Write down how the dense network stands after one more epoch of its own training.

        Args:
            figures: ``loss`` and the others, by column.
        """
        self._write(DENSE, {"run": DENSE, "epoch": epoch, self._metric: metric, **figures})

    def train_time_s(self, run: str) -> float:
        """Seconds of training up to the last epoch of a run, 0 before the first."""
        return float(from_json(self._last[run])["train_time_s"]) if run in self._last else 0.0

    def end(self, run: str) -> None:
        """Let go of what is known of a run that has ended."""
        self._last.pop(run, None)

    def _record(self, run: str, report: EpochReport) -> dict[str, Any]:
        return {
            "run": run,
            "epoch": report.epoch,
            self._metric: report.metric,
            "loss": report.loss,
            "train_loss": report.train_loss,
            "lr": report.lr,
            "batch_size": report.batch_size,
            "micro_batch_size": report.device_batch,
            "train_time_s": report.train_time_s,
            "kept": dict(report.kept),
            "removed_blocks": list(report.removed_blocks),
        }

    def _write(self, run: str, record: Mapping[str, Any]) -> None:
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        if self._last.get(run) == line:
            return
        with self._folder.writing(), self._path.open("ab", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            try:
                left = line
                while left:  # again after a disk that is full took a part: that raises
                    left = left[file.write(left) :]
            except OSError:
                file.truncate(size)
                raise
        self._last[run] = line


class EpochTable:
    """Writes ``epochs.parquet``, unless there is nothing new for it."""

    def __init__(self, folder: StudyFolder) -> None:
        self._folder = folder
        self._written: tuple[int, int] | None = None

    def write(self) -> None:
        """Write the table; raises UnwritableError if that can't be done."""
        try:
            found = self._folder.epochs.stat()
        except FileNotFoundError:
            return
        if self._written != (found.st_size, found.st_mtime_ns):
            self._folder.write_frame(self._folder.epochs_table, read_epochs(self._folder))
            self._written = found.st_size, found.st_mtime_ns


def read_epochs(folder: StudyFolder) -> pd.DataFrame:
    """Read the epochs of a study, which may be running.

    Returns:
        A row an epoch, in the order in which runs began. ``run`` is ``"dense"``, a trial's number or a replicate's name
        such as ``"3-seed0"``, and ``number`` is the number of a trial, missing for the others. ``metric.<name>`` and
        ``loss`` are those of the validation split, ``lr`` and ``batch_size`` those of the epoch's last step.
        ``train_time_s`` counts from the run's beginning, ``epoch_time_s`` is the epoch's own, and ``kept.GROUP`` has
        the widths. Empty for a study of an earlier autoprune; one that was begun by it lacks the epochs up to then.
    """
    records = [record for _, record in _standing(_bytes_of(folder.epochs).splitlines(keepends=True))]
    return _frame(records, folder.config.metric.column)


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _standing(lines: Iterable[bytes]) -> list[tuple[bytes, dict[str, Any]]]:
    """The lines that are whole and that no later one replaces, with what they say, run by run."""
    runs: dict[str, list[tuple[bytes, dict[str, Any]]]] = {}
    for line in lines:
        if not line.endswith(b"\n"):
            continue
        try:
            record = from_json(line)
            run, epoch = record["run"], record["epoch"]
        except (ValueError, TypeError, KeyError):  # what a machine that lost its power may leave
            continue
        before = runs.setdefault(run, [])
        while before and before[-1][1]["epoch"] >= epoch:
            before.pop()
        before.append((line, record))
    return [each for epochs in runs.values() for each in epochs]


def _frame(records: list[dict[str, Any]], metric: str) -> pd.DataFrame:
    types = {"run": "str", "number": "Int64", "epoch": "int64", metric: "float64"} | _TYPES
    columns: dict[str, Any] = {name: [record.get(name) for record in records] for name in types}
    columns[metric] = [record.get(metric, record.get("accuracy")) for record in records]  # the latter in schema 1
    columns["number"] = [int(run) if run.isdecimal() else None for run in columns["run"]]
    columns["removed_blocks"] = [", ".join(names or ()) for names in columns["removed_blocks"]]
    for group in dict.fromkeys(group for record in records for group in record.get("kept", ())):
        columns[f"kept.{group}"] = [record.get("kept", {}).get(group) for record in records]
    frame = pd.DataFrame({name: pd.Series(values, dtype="object") for name, values in columns.items()})
    frame = frame.astype(dict.fromkeys(columns, "Int64") | types)
    frame["epoch_time_s"] = frame["train_time_s"] - frame.groupby("run")["train_time_s"].shift(fill_value=0.0)
    return frame
