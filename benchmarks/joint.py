"""Schedules and ratios searched jointly, against one after the other, at the same total epochs.

Settings, splits, training, the account of the epochs and the tables are those of `benchmarks.search_quality`; the
methods are in `benchmarks/search_quality/methods/joint.py`.

    python -m benchmarks.joint --settings digits --seeds 0 1 2 3 4
    python -m benchmarks.joint --table
"""

from pathlib import Path

from benchmarks.search_quality.__main__ import main
from benchmarks.search_quality.methods.joint import ORDERS

if __name__ == "__main__":
    main(__doc__, ORDERS, Path("benchmarks/results/joint.parquet"))
