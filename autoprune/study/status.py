"""How a study stands, for a progress display."""

from collections.abc import Mapping
from dataclasses import dataclass

from autoprune.trial import EpochReport, TrialResult


@dataclass(frozen=True)
class StudyStatus:
    """How a study stands.

    Attributes:
        n_trials: Trials asked for; infeasible ones do not count.
        n_sensitivity_jobs_left: Points of the sensitivity map that are still to be measured.
        running: Trial number -> its last epoch report, ``None`` before the first.
        hypervolume: As :meth:`autoprune.study.front.Front.hypervolume` gives it, in [0, 1] for two objectives.
        time_left_s: Estimate from the pace since this command started; ``None`` before the first trial ended.
    """

    n_trials: int
    n_finished: int
    n_stopped: int
    n_failed: int
    n_infeasible: int
    n_waiting: int
    n_sensitivity_jobs_left: int
    running: Mapping[int, EpochReport | None]
    front: tuple[TrialResult, ...]
    hypervolume: float
    time_left_s: float | None
