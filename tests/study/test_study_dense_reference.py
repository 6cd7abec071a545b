"""The dense network's figures: read from a real study, written back the same, and refused where they are damaged."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import dense_reference

from autoprune.errors import StudyError
from autoprune.search.prepare import PreparedStudy
from autoprune.study.dense_reference import DenseReference
from autoprune.study.folder import StudyFolder
from autoprune.trial import Cost


def test_the_file_says_what_is_read_and_is_written_the_same(trained_tiny: Path, tmp_path: Path) -> None:
    folder = StudyFolder(trained_tiny)
    written = json.loads(folder.reference.read_text())
    assert written.keys() == {"dense", "epochs", "latency", "cost"}
    reference = DenseReference.read(folder)
    assert reference.figures("metric") | {"metric_se": reference.metric_se} == written["dense"]
    assert all(reference.value(name) == figure for name, figure in reference.cost.figures().items())
    assert (reference.epochs, reference.latency.threads) == (8, 1)
    assert reference.cost.latency_ms == reference.latency.latency_ms
    copy = StudyFolder(tmp_path)
    copy.create()
    reference.write(copy)
    assert copy.reference.read_text() == folder.reference.read_text()


def test_what_a_newer_version_may_add_is_passed_over(tiny_study: Callable[..., PreparedStudy]) -> None:
    session = tiny_study()
    record = json.loads(session.folder.reference.read_text())
    record["latency"]["spread_ms"] = record["cost"]["energy_mj"] = record["int8"] = 1.0
    session.folder.write_json(session.folder.reference, record)
    assert DenseReference.read(session.folder) == session.dense


def test_a_latency_that_was_not_measured_is_no_figure() -> None:
    reference = dense_reference(0.9, Cost(params=10, nonzero_params=9, size_bytes=80, macs=50))
    assert reference.value("flops") == 100
    assert list(reference.figures("f1")) == ["f1", "loss", "params", "nonzero_params", "size_bytes", "macs", "flops"]
    with pytest.raises(KeyError, match="latency_ms"):
        reference.value("latency_ms")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "No such file"),
        ("{", "can't be read"),
        ("[]", "not a record of the dense network"),
        ('{"dense": {"loss": 1.0}}', "it has no 'accuracy'"),
        ('{"dense": {"accuracy": 0.9, "loss": "low"}}', "low"),
        ('{"dense": {"accuracy": 0.9, "loss": 1.0}, "cost": {"params": 1}}', "nonzero_params"),
    ],
)
def test_a_damaged_file_is_named(text: str | None, told: str, tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    folder.create()
    if text is not None:
        folder.reference.write_text(text)
    with pytest.raises(StudyError, match=r"dense/reference\.json: ") as error:
        DenseReference.read(folder)
    assert told in str(error.value)
