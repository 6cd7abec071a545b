"""The sensitivity map of a study, measured by the workers before its first trials."""

from collections.abc import Callable, Mapping

from autoprune.pruning.sensitivity.map import SensitivityPoint
from autoprune.pruning.sensitivity.measure import map_of, points_to_measure
from autoprune.search.space import SearchSpace
from autoprune.study.folder import StudyFolder
from autoprune.study.seeds import derive_seed
from autoprune.trial import SensitivityJob, TrialConfig, TrialResult, sensitivity_config

KEPT_SHARES = (0.5, 0.25, 0.1)
"""Shares of a group's channels at which it is measured."""


class SensitivityJobs:
    """What is still to be measured of the map; every point is written down as it comes.

    A job goes the way of a trial. One that fails counts as a cut that leaves nothing, and one whose worker
    died is measured again by the next command.

    Args:
        wanted: Whether the sampler has a use for the map.
    """

    def __init__(self, folder: StudyFolder, space: SearchSpace, *, wanted: bool) -> None:
        self._folder, self._space = folder, space
        self._points = _points_of(space) if wanted else []
        self._measured: dict[int, float] = {}
        if self._points and folder.sensitivity.exists():
            self._measured = {int(index): value for index, value in folder.read_json(folder.sensitivity).items()}
        self._running: set[int] = set()

    @property
    def n_left(self) -> int:
        """Points that are not measured yet."""
        return len(self._points) - len(self._measured)

    def next(self) -> TrialConfig | None:
        """The next job to run; ``None`` if none is left, or the rest runs now."""
        for index, point in enumerate(self._points):
            if index not in self._measured and index not in self._running:
                self._running.add(index)
                widths = {} if point is None else {point[0]: point[1]}
                seed = derive_seed(self._space.spec.search.seed, 0, "sensitivity")
                return sensitivity_config(SensitivityJob(index), widths, seed)
        return None

    def take(self, result: TrialResult) -> None:
        """Write down what a job has found."""
        assert isinstance(result.run, SensitivityJob)
        index = result.run.index
        self._running.discard(index)
        self._measured[index] = float("nan") if result.metric is None else result.metric
        self._folder.write_json(self._folder.sensitivity, self._measured)

    def release(self, job: SensitivityJob) -> None:
        """Put a job that was interrupted back."""
        self._running.discard(job.index)

    def adopt(self, space: SearchSpace, measured: Mapping[int, float]) -> None:
        """Take over the figures of another study of the same dense network, if it has measured every point of these.

        Args:
            space: The other study's.
            measured: Its figures, by the points' places.
        """
        points = _points_of(space)
        known = {points[index]: value for index, value in measured.items() if index < len(points)}
        if self._points and known.keys() >= set(self._points):
            self._measured = {index: known[point] for index, point in enumerate(self._points)}
            self._folder.write_json(self._folder.sensitivity, self._measured)

    def drop(self, unit: float) -> Callable[[str, int], float] | None:
        """Drop in score of a group alone at a width, if there is a map and all of it is measured.

        Args:
            unit: What the drop is given in units of.
        """
        if not self._points or self.n_left:
            return None
        score = self._space.spec.metric.score
        points = [
            SensitivityPoint(*point, score(self._measured[index]))
            for index, point in enumerate(self._points)
            if point is not None
        ]
        found = map_of(self._space.plan, score(self._measured[0]), points, self._space.spec.round_to)
        searched = {point.group for point in found.points}
        return lambda group, width: (found.dense_score - found.score(group, width)) / unit if group in searched else 0.0


def _points_of(space: SearchSpace) -> list[tuple[str, int] | None]:
    """List what is measured: ``None`` for the dense network, then groups at a width; nothing if none is searched."""
    searched = {group for group in space.plan.group_widths if len(space.ratios_of(group)) > 1}
    every = points_to_measure(space.plan, KEPT_SHARES, space.spec.round_to)
    points = [point for point in every if point[0] in searched]
    return [None, *points] if points else []
