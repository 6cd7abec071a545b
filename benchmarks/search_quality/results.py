"""The Parquet file of all runs: a run enters it whole, when it is finished."""

from pathlib import Path

import pandas as pd

from autoprune.files import replacing
from benchmarks.search_quality.settings import locked

KEY = ["setting", "method", "seed"]


def read(path: Path) -> pd.DataFrame:
    """All runs so far, a row a trial."""
    return pd.read_parquet(path) if path.exists() else pd.DataFrame(columns=KEY)


def has_run(frame: pd.DataFrame, setting: str, method: str, seed: int) -> bool:
    """Whether a run is finished."""
    return bool(_rows_of(frame, setting, method, seed).any())


def write_run(path: Path, run: pd.DataFrame) -> None:
    """Put one run's rows in place of those that it had before; other processes may do the same at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        old = read(path)
        old = old[~_rows_of(old, *run[KEY].iloc[0])]
        frame = run if old.empty else pd.concat([old, run], ignore_index=True)
        with replacing(path) as handle:
            frame.sort_values(KEY, kind="stable").to_parquet(handle, index=False)


def _rows_of(frame: pd.DataFrame, setting: str, method: str, seed: int) -> "pd.Series[bool]":
    return (frame["setting"] == setting) & (frame["method"] == method) & (frame["seed"] == seed)
