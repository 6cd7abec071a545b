"""What a run is judged by: hypervolume on two cost axes, and the best accuracy under a cost."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from autoprune.study.pareto import hypervolume

LOG_FLOOR = 0.01
"""Share of the dense network's MACs where the log axis begins; what is cheaper counts as this."""

SHARES = (0.5, 0.2, 0.1, 0.05)


def cost_axis(macs_share: npt.ArrayLike, log: bool) -> npt.NDArray[np.float64]:
    """Cost in [0, 1], 1 being the dense network's: the share itself, or its logarithm from 0.01x to 1x."""
    share = np.asarray(macs_share, dtype=np.float64)
    return 1 - np.log10(np.clip(share, LOG_FLOOR, None)) / np.log10(LOG_FLOOR) if log else share


def front_volume(accuracy: npt.ArrayLike, macs_share: npt.ArrayLike, reference: float, log: bool) -> float:
    """Hypervolume up to ``reference`` accuracy at the dense network's cost; at most ``1 - reference``."""
    values = np.column_stack([np.asarray(accuracy, dtype=np.float64), cost_axis(macs_share, log)])
    return hypervolume(values, ["maximize", "minimize"], [reference, 1.0])


def volume_at(run: pd.DataFrame, epochs: float, reference: float, log: bool) -> float:
    """Hypervolume of the trials that had ended when this many epochs were spent."""
    ended = finished(run)[lambda rows: rows["epochs_spent"] <= epochs + 1e-6]
    return front_volume(ended["accuracy"], ended["macs_share"], reference, log)


def epochs_until(run: pd.DataFrame, volume: float, reference: float, log: bool) -> float:
    """Epochs spent when the hypervolume first was at least ``volume``; infinite if it never was."""
    moments = sorted(set(finished(run)["epochs_spent"]))
    return next((spent for spent in moments if volume_at(run, spent, reference, log) >= volume), float("inf"))


def test_volume(run: pd.DataFrame, reference: float, log: bool) -> float:
    """Hypervolume, on the test split, of the networks that are on the front by validation."""
    front = run[run["on_front"]]
    return front_volume(front["accuracy_test"], front["macs_share"], reference, log)


def best_at(run: pd.DataFrame, share: float) -> tuple[float, float]:
    """The best validation accuracy at no more than a share of the MACs, and that network's test accuracy."""
    under = run[run["on_front"] & (run["macs_share"] <= share)]
    if under.empty:
        return float("nan"), float("nan")
    best = under.loc[under["accuracy"].idxmax()]
    return float(best["accuracy"]), float(best["accuracy_test"])


def finished(run: pd.DataFrame) -> pd.DataFrame:
    """The rows of trained networks."""
    return run[run["state"] == "finished"]
