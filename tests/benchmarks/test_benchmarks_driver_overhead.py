"""The benchmarks of dispatching and of many trials: the overhead's arithmetic, and what README says of the rows."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import driver_overhead, load
from benchmarks.driver_overhead_runs import WAYS

ROOT = Path(__file__).parents[2]
README = " ".join((ROOT / "README.md").read_text().split())


def test_overhead_counts_what_follows_each_trial() -> None:
    period, seconds = 2.5, 2.0  # two workers, the second half a second behind
    begins = sorted(offset + period * index for index in range(6) for offset in (0.0, 0.5))
    trained = [(begin, begin + seconds) for begin in begins]
    assert driver_overhead.overhead_of(trained, 10) == pytest.approx(period / seconds)
    assert driver_overhead.overhead_of(trained, 4) == pytest.approx(period / seconds)


@pytest.mark.benchmarks
def test_the_committed_rows_of_dispatching() -> None:
    rows = pd.read_parquet(ROOT / driver_overhead.OUT)
    assert not rows.duplicated(["way", "seconds"]).any()
    assert set(rows["way"]) == set(WAYS)
    ours = rows[rows["way"] == "autoprune"].set_index("seconds")
    assert ours.loc[2.0, "overhead"] <= 1.10
    assert ours.loc[0.02, "driver_cpu_ms"] <= 25
    assert f"{ours.loc[0.02, 'driver_cpu_ms']:.0f} ms of the driver's CPU time each" in README
    assert (
        "{:.0f} MiB after 100 and {:.0f} after 1,000".format(*ours.loc[0.02, ["rss_mib_100", "rss_mib_1000"]]) in README
    )


@pytest.mark.benchmarks
def test_the_committed_rows_of_many_trials() -> None:
    rows = pd.read_parquet(ROOT / load.OUT).set_index("command")
    assert (rows["trials"] == 10_000).all()
    assert rows.loc["status", "wall_s"] < 2
    assert rows.loc["pareto", "wall_s"] < 3
    shown = [f"{rows.loc[command, 'wall_s']:.1f} s" for command in ("status", "pareto", "search")]
    assert "`status` {}, `pareto` {}, and `search` {}".format(*shown) in README
