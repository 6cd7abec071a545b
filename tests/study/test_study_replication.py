"""Means, deviations and the mark of the front's points, against Python's own statistics and brute force."""

import statistics
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from autoprune.config.metric import MetricSpec
from autoprune.study.folder import StudyFolder
from autoprune.study.replication import replication_metrics, with_replication
from autoprune.trial import Replicate, TrialResult, to_dict

AIMS = ["accuracy", "flops"], MetricSpec()


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    found = StudyFolder(tmp_path)
    found.certification.mkdir()
    return found


def note(folder: StudyFolder, replicate: Replicate, accuracy: float | None, test: float | None = None) -> None:
    state = "failed" if accuracy is None else "finished"
    result = TrialResult(replicate, state, accuracy, metric_test=test)  # type: ignore[arg-type]
    folder.write_json(folder.replicate(replicate), {"config": {}, "result": to_dict(result)})


def front(**columns: list[object]) -> pd.DataFrame:
    frame = pd.DataFrame(columns).rename(columns={"accuracy": "metric.accuracy"})
    return frame.astype({"parent": "Int64", "flops": "Int64"})


def test_without_certification_the_front_stays_as_it_is(folder: StudyFolder) -> None:
    frame = front(number=[3], parent=[None], accuracy=[0.5], flops=[10])
    pd.testing.assert_frame_equal(with_replication(folder, frame, *AIMS), frame)
    assert replication_metrics(folder, 3, "accuracy", starts_at_dense=True) == {}


def test_mean_and_deviation_of_each_way(folder: StudyFolder) -> None:
    along, tests = [0.91, 0.94, 0.92], [0.90, 0.91, 0.95]
    for index, pair in enumerate(zip(along, tests, strict=True)):
        note(folder, Replicate(3, index), *pair)
    note(folder, Replicate(3, 0, from_dense=True), 0.8, 0.7)
    note(folder, Replicate(3, 1, from_dense=True), None)
    note(folder, Replicate(1, 0), 0.1)  # an ancestor
    note(folder, Replicate(5, 0), 0.6, 0.5)
    note(folder, Replicate(5, 1), 0.7, 0.5)
    frame = front(number=[3, 5, 8], parent=[1, None, None], accuracy=[0.95, 0.7, 0.3], flops=[20, 10, 5])
    found = with_replication(folder, frame.set_axis([7, 1, 4]), *AIMS)
    assert found.index.tolist() == [7, 1, 4]
    first, second, third = found.to_dict("records")
    assert first["lineage.runs"] == 3
    assert first["lineage.metric.accuracy"] == pytest.approx(statistics.mean(along))
    assert first["lineage.metric.accuracy_std"] == pytest.approx(statistics.stdev(along))
    assert first["lineage.metric.accuracy_test"] == pytest.approx(statistics.mean(tests))
    assert first["lineage.metric.accuracy_test_std"] == pytest.approx(statistics.stdev(tests))
    assert (
        first["from_dense.runs"],
        first["from_dense.metric.accuracy"],
        first["from_dense.metric.accuracy_test"],
    ) == (1, 0.8, 0.7)
    assert np.isnan(first["from_dense.metric.accuracy_std"])
    assert second["from_dense.runs"] == 2  # it starts from dense: the same runs
    assert second["from_dense.metric.accuracy"] == second["lineage.metric.accuracy"] == pytest.approx(0.65)
    assert third["lineage.runs"] == 0
    assert np.isnan(third["lineage.metric.accuracy"])
    assert found["holds"].tolist() == [True, True, pd.NA]
    metrics = replication_metrics(folder, 3, "accuracy", starts_at_dense=False)
    assert metrics["lineage"]["accuracy"] == first["lineage.metric.accuracy"]
    assert metrics["from_dense"]["runs"] == 1


def test_an_empty_front_has_the_columns_too(folder: StudyFolder) -> None:
    note(folder, Replicate(3, 0), 0.9, 0.9)
    frame = front(number=[3], parent=[None], accuracy=[0.5], flops=[10])
    found = with_replication(folder, frame, *AIMS)
    pd.testing.assert_series_equal(with_replication(folder, frame[:0], *AIMS).dtypes, found.dtypes)


def test_a_point_holds_unless_another_dominates_it_by_their_means(folder: StudyFolder) -> None:
    generator = np.random.default_rng(0)
    points = generator.integers((0, 1), (9, 9), size=(25, 2)).tolist()  # coarse: ties and equals occur
    for number, (accuracy, _) in enumerate(points):
        note(folder, Replicate(number, 0), accuracy / 8, 0.5)
        note(folder, Replicate(number, 1), accuracy / 8 + 0.25, 0.5)
    n = len(points)
    frame = front(number=[*range(n)], parent=[None] * n, accuracy=[0.9] * n, flops=[cost for _, cost in points])
    expected = [not any(b >= a and d <= c and (b, d) != (a, c) for b, d in points) for a, c in points]  # brute force
    assert with_replication(folder, frame, *AIMS)["holds"].tolist() == expected
    assert 1 < sum(expected) < n
