"""A real study through its reader: what the driver told is read back, and what is missing or damaged is named."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from tiny import TINY_SPACE, copy_study, merged

from autoprune.config.constraints import Drop
from autoprune.config.metric import MetricSpec
from autoprune.engines.inline import run_in_process
from autoprune.errors import ConfigError, StudyError
from autoprune.search.prepare import PreparedStudy
from autoprune.search.run import run_search
from autoprune.study.folder import SCHEMA, StudyFolder
from autoprune.study.reader import StudyReader

pytestmark = pytest.mark.xdist_group("study_reader")  # its fixtures take long: one process makes them


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, trained_tiny: Path) -> StudyFolder:
    """A study whose trials start from each other's networks; not to be changed."""
    root = tmp_path_factory.mktemp("searched")
    changes = {"search": {"trials": 8, "sampler": "cost_aware", "ladder": None}, "training": {"epochs": 1}}
    space = copy_study(trained_tiny, root, changes)
    return run_search(space, root / "results", run_in_process).driver.folder


def test_what_a_search_told_is_read(searched: StudyFolder) -> None:
    study = StudyReader(searched.root)
    assert study.is_ready
    assert study.config.objectives == ["accuracy", "flops"]
    assert study.base_dir == searched.base_dir
    assert study.dense.cost.flops == 2 * study.cost_table.cost({}).macs
    assert study.plan.group_widths == study.cost_table.widths
    assert study.status().counts["finished"] == len(study.trials) == 8
    frame, front = study.frame(), study.front()
    assert list(frame["number"]) == [trial.number for trial in study.trials]
    for trial, row in zip(study.trials, frame.to_dict("records"), strict=True):
        assert trial.config is not None
        assert trial.result is not None
        assert trial.result.metric == row["metric.accuracy"]
        assert len(trial.curve) == trial.config.epochs
        assert trial.source is None
        assert trial.has_ended
    for number in front["number"]:
        assert study.test_metric(number) == frame.set_index("number")["metric.accuracy_test"][number]
        assert study.has_network(number)
        assert study.network_record(number)["config"]["number"] == number
        assert (study.network_folder(number) / "model.safetensors").is_file()
        lineage = study.front_lineages()[number]
        assert [step["trial"] for step in study.lineage(number)] == [None, *lineage]
    assert study.test_metric(None) is not None
    children = frame[frame["parent"].notna()]
    assert len(children)
    for number, line in zip(children["number"], children["lineage"], strict=True):
        assert " > ".join(str(step["trial"]) for step in study.lineage(number)[1:]) == line
    assert study.network_folder(None) == searched.dense


def test_the_epochs_of_a_trial_are_its_curve(searched: StudyFolder) -> None:
    study = StudyReader(searched.root)
    for trial in study.trials:
        epochs = study.epochs(trial.number)
        assert list(epochs["metric.accuracy"]) == trial.curve
        assert list(epochs["epoch"]) == [*range(1, len(epochs) + 1)]
    assert len(study.epochs()) == sum(len(trial.curve) for trial in study.trials) + len(study.epochs("dense"))


def test_a_network_is_copied_whole_or_not_at_all(searched: StudyFolder, tmp_path: Path) -> None:
    study = StudyReader(searched.root)
    number = int(study.front()["number"].iloc[0])
    (tmp_path / "kept").mkdir()
    assert study.copy_network(number, tmp_path / "kept")
    for name in ("model.safetensors", "architecture.json"):
        assert (tmp_path / "kept" / name).read_bytes() == (searched.model(number) / name).read_bytes()
    (tmp_path / "gone").mkdir()
    assert not study.copy_network(99, tmp_path / "gone")
    assert not study.has_network(99)


def test_before_the_plan_there_is_a_status(tiny_study: Callable[..., PreparedStudy]) -> None:
    folder = tiny_study().folder
    folder.plan.unlink()
    study = StudyReader(folder.root)
    assert not study.is_ready
    assert not study.status().is_ready


def test_no_study(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="not a study"):
        StudyReader(tmp_path)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("dense/reference.json", lambda study: study.dense),
        ("plan.json", lambda study: study.plan),
        ("plan.json", lambda study: study.cost_table),
        ("study.db", lambda study: study.trials),
        ("study.db", lambda study: study.status()),
        ("study.db", lambda study: study.lineage(0)),
        ("trials.parquet", lambda study: study.frame()),
        ("front.parquet", lambda study: study.front()),
        ("test.json", lambda study: study.test_metric(None)),
        ("study.json", lambda study: study.base_dir),
        ("trial.json", lambda study: study.network_record(int(study.front()["number"].iloc[0]))),
        ("space.yaml", lambda study: study.config),
    ],
)
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_missing_or_damaged_file_is_named(
    searched: StudyFolder, tmp_path: Path, name: str, read: Callable[[StudyReader], object], damage: str
) -> None:
    root = Path(shutil.copytree(searched.root, tmp_path / "study"))
    study = StudyReader(root)
    path = next(root.rglob(name)) if name == "trial.json" else root / name
    for each in root.rglob(name) if name == "trial.json" else [path]:
        each.unlink() if damage == "missing" else each.write_bytes(b"}{ no such thing" * 50)
    if (name, damage) == ("test.json", "missing"):  # the test split was not read yet
        assert read(study) is None
        return
    with pytest.raises((StudyError, ConfigError), match=name.replace(".", r"\.")):
        read(study)


def test_a_plan_without_its_parts_is_named(tiny_study: Callable[..., PreparedStudy]) -> None:
    folder = tiny_study().folder
    folder.write_json(folder.plan, {"plan": {"groups": 3}})
    study = StudyReader(folder.root)
    with pytest.raises(StudyError, match=r"plan\.json"):
        _ = study.plan
    with pytest.raises(StudyError, match=r"plan\.json"):
        _ = study.cost_table


def of_schema_1(study: StudyFolder, root: Path) -> StudyFolder:
    """A copy of a study as the first schema had it: its metric is called accuracy in every file."""
    shutil.copytree(study.root, root)
    folder = StudyFolder(root)
    folder.write_json(folder.origin, folder.read_json(folder.origin) | {"schema": 1, "base_dir": str(study.base_dir)})
    reference = folder.read_json(folder.reference)
    reference["dense"]["accuracy"] = reference["dense"].pop("metric")
    folder.write_json(folder.reference, reference)
    for path in (folder.trials, folder.front):
        frame = pd.read_parquet(path).drop(columns="metric.accuracy_se")
        folder.write_frame(path, frame.rename(columns=lambda name: name.replace("metric.accuracy", "accuracy")))
    folder.epochs.write_text(folder.epochs.read_text().replace('"metric.accuracy":', '"accuracy":'))
    with closing(sqlite3.connect(folder.database)) as database, database:
        for now, before in (("metric", "accuracy"), ("metric_test", "accuracy_test")):
            names = (rf"\"{now}\":", rf"\"{before}\":")
            database.execute("UPDATE trial_user_attributes SET value_json = replace(value_json, ?, ?)", names)
    return folder


def test_a_study_of_the_first_format_is_read_and_not_gone_on_with(searched: StudyFolder, tmp_path: Path) -> None:
    now, before = StudyReader(searched.root), StudyReader(of_schema_1(searched, tmp_path / "tiny").root)
    for old, new in ((before.frame(), now.frame()), (before.front(), now.front())):
        pd.testing.assert_frame_equal(old, new.drop(columns="metric.accuracy_se"))
    pd.testing.assert_frame_equal(before.epochs(), now.epochs())
    assert before.dense == now.dense
    assert [(trial.result, trial.curve) for trial in before.trials] == [
        (trial.result, trial.curve) for trial in now.trials
    ]
    assert before.lineage(3) == now.lineage(3)
    assert before.status() == now.status()
    space = copy_study(searched.root, tmp_path / "again", {})
    with pytest.raises(StudyError, match=r"begun by an earlier autoprune \(schema 1, now 2\).* another name"):
        run_search(space, tmp_path, run_in_process)


@pytest.mark.parametrize("metric", ["my_task:f1", {"callable": "my_task:f1", "args": {"beta": 2}}])
def test_a_metric_of_the_first_format_was_called_accuracy_and_maximised(tmp_path: Path, metric: Any) -> None:
    folder = StudyFolder(tmp_path)
    space = merged(TINY_SPACE, {"task": {"metric": metric}, "constraints": {"accuracy_drop": 0.02}})
    folder.space.write_text(yaml.safe_dump(space))
    folder.write_json(folder.origin, {"schema": 1})
    assert folder.config.metric == MetricSpec("accuracy", "maximize")
    assert folder.config.task.metric.callable == "my_task:f1"
    assert folder.config.constraints.metric_drop == Drop(value=0.02)
    folder.write_json(folder.origin, {"schema": SCHEMA})
    with pytest.raises(ConfigError, match=r"task\.metric.*direction"):
        _ = StudyFolder(tmp_path).config


def test_a_study_of_a_newer_format_is_refused(tiny_study: Callable[..., PreparedStudy]) -> None:
    session = tiny_study()
    folder, origin = session.folder, json.loads(session.folder.origin.read_text())
    assert origin["schema"] == SCHEMA
    folder.write_json(folder.origin, {name: value for name, value in origin.items() if name != "schema"})
    assert StudyReader(folder.root).is_ready  # begun before there was a number
    assert tiny_study().dense == session.dense
    folder.write_json(folder.origin, origin | {"schema": SCHEMA + 1})
    for opened in (lambda: StudyReader(folder.root), tiny_study):
        with pytest.raises(StudyError, match=r"study\.json: made by a newer autoprune: schema 3.* Upgrade"):
            opened()
