"""From a space file to a study that is ready for trials, and what is refused on the way."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import ONE_THREAD, TINY_TASK, prepare_tiny, write_space
from torch import nn

from autoprune.errors import StudyError, TaskError
from autoprune.formats.saved_model import load_model
from autoprune.search import dense_stage
from autoprune.search.driver import Driver
from autoprune.search.prepare import PreparedStudy, rank_plan, reopen_study
from autoprune.search.validate import read_space, validate_space
from autoprune.study.folder import StudyFolder
from autoprune.study.optuna_storage import load_record, open_study
from autoprune.training.evaluation import evaluate


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "study.json"
    }


def test_the_dense_network_is_trained_once_and_its_record_is_true(tiny_study: Callable[..., PreparedStudy]) -> None:
    session = tiny_study()
    dense = load_model(session.folder.dense, session.task.build_model)
    measured = evaluate(dense, session.task.data.validation, session.task)
    assert session.dense.metric == pytest.approx(measured.metric)
    assert session.dense.metric > 0.5
    n_params = sum(parameter.numel() for parameter in dense.parameters())
    assert session.dense.cost.params == session.dense.cost.nonzero_params == n_params
    assert session.dense.cost.flops == 2 * session.dense.cost.macs
    assert session.dense.cost.size_bytes == (session.folder.dense / "model.safetensors").stat().st_size
    reference = session.folder.read_json(session.folder.reference)
    assert reference["latency"]["latency_ms"] == session.dense.cost.latency_ms
    before = tree(session.folder.root)
    again = tiny_study()
    assert tree(session.folder.root) == before
    assert again.dense == session.dense
    assert again.space.plan == session.space.plan
    assert again.table == session.table
    assert reopen_study(session.folder).table == session.table


def test_dense_training_goes_on_after_a_death(
    tiny_study: Callable[..., PreparedStudy], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = tiny_study()
    weights = load_file(done.folder.dense / "model.safetensors")
    shutil.rmtree(done.folder.dense)
    n_epochs, save = [], dense_stage.save_checkpoint

    def save_and_die(path: Path, state: dict[str, Any]) -> None:
        save(path, state)
        n_epochs.append(state["epoch"])
        if state["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(dense_stage, "save_checkpoint", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        tiny_study()
    monkeypatch.setattr(dense_stage, "save_checkpoint", lambda path, state: n_epochs.append(state["epoch"]))
    tiny_study()
    assert n_epochs == list(range(1, done.spec.dense.epochs + 1))
    torch.testing.assert_close(load_file(done.folder.dense / "model.safetensors"), weights, rtol=0, atol=0)


def test_given_weights_are_taken_as_they_are(tiny_study: Callable[..., PreparedStudy], tmp_path: Path) -> None:
    given = tmp_path / "given.safetensors"
    trained = tiny_study()
    shutil.copy(trained.folder.dense / "model.safetensors", given)
    session = tiny_study({"task": {"weights": str(given)}}, "b")
    shutil.rmtree(session.folder.dense)
    session = tiny_study(name="b")
    assert session.dense.metric == trained.dense.metric
    assert session.folder.read_json(session.folder.reference)["epochs"] == 0


def test_given_weights_are_judged_on_the_device_of_the_trials(
    tiny_study: Callable[..., PreparedStudy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tiny_study().folder.dense / "model.safetensors"
    space, devices = write_space(tmp_path / "b", {"task": {"weights": str(given)}}), []

    def judged(model: nn.Module, *_: object, **__: object) -> None:
        devices.append({parameter.device.type for parameter in model.parameters()})
        raise KeyboardInterrupt

    monkeypatch.setattr(dense_stage, "evaluate", judged)
    with pytest.raises(KeyboardInterrupt):
        prepare_tiny(space, StudyFolder(tmp_path / "r"), replace(ONE_THREAD, device=torch.device("meta")))
    assert devices == [{"meta"}]


@pytest.mark.gpu
def test_given_weights_on_a_gpu(tiny_study: Callable[..., PreparedStudy], tmp_path: Path) -> None:
    trained = tiny_study()
    space = write_space(tmp_path / "b", {"task": {"weights": str(trained.folder.dense / "model.safetensors")}})
    session = prepare_tiny(space, StudyFolder(tmp_path / "r"), replace(ONE_THREAD, device=torch.device("cuda")))
    assert session.dense.metric == pytest.approx(trained.dense.metric, abs=0.02)


def test_another_space_file_is_refused(tiny_study: Callable[..., PreparedStudy]) -> None:
    session = tiny_study()
    space = session.folder.base_dir / "space.yaml"
    space.write_text(space.read_text().replace("sampler: random", "sampler: tpe"))
    before = tree(session.folder.root)
    expected = "started from a different space file (search.sampler: random -> tpe). Give the study another name"
    with pytest.raises(StudyError, match=re.escape(expected)):
        prepare_tiny(space, session.folder)
    assert tree(session.folder.root) == before


def test_a_plan_that_lacks_a_part_is_refused(tiny_study: Callable[..., PreparedStudy]) -> None:
    session = tiny_study()
    plan = session.folder.read_json(session.folder.plan)
    session.folder.write_json(session.folder.plan, {key: plan[key] for key in ("plan", "table")})
    with pytest.raises(StudyError, match=r"plan\.json: not a plan: it has no 'scores'"):
        tiny_study()


def test_a_task_that_does_not_fit_writes_nothing(tiny_study: Callable[..., PreparedStudy], tmp_path: Path) -> None:
    session = tiny_study()
    task = (session.folder.base_dir / "tiny_task.py").read_text().replace("nn.Linear(128, 10)", "nn.Linear(64, 10)")
    (tmp_path / "tiny_task.py").write_text(task)
    space = Path(shutil.copy(session.folder.base_dir / "space.yaml", tmp_path))
    folder = StudyFolder(tmp_path / "results" / "tiny")
    with pytest.raises(TaskError, match=r"the model, on \d training examples, raised"):
        validate_space(read_space(space))
    with pytest.raises(TaskError):
        prepare_tiny(space, folder)
    assert not folder.root.exists()


@pytest.mark.parametrize("damage", ["garbage", "cut"])
def test_a_damaged_database_is_one_clear_error(tiny_study: Callable[..., PreparedStudy], damage: str) -> None:
    session = tiny_study()
    driver = Driver(session.folder, session.space, session.table, session.dense)
    driver.suggest()
    content = session.folder.database.read_bytes()
    session.folder.database.write_bytes(b"no database" * 1000 if damage == "garbage" else content[: len(content) // 2])
    with pytest.raises(StudyError, match=r"study\.db: can't be opened as a study: .+\. Restore it, or give the study"):
        Driver(session.folder, session.space, session.table, session.dense)


def test_storages_that_can_not_be_used(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    with pytest.raises(StudyError, match=r"study\.db: no such file"):
        load_record(folder, None, "tiny", ())
    with pytest.raises(StudyError, match="'nonsense' can't be used: it is no URL"):
        open_study(folder, "nonsense", "tiny", ["accuracy"], ["maximize"])
    for url in (f"sqlite:///{tmp_path}/no/such/folder/study.db", "unknown://x/y"):
        with pytest.raises(StudyError, match=f"^{re.escape(url)}: can't be opened as a study: "):
            open_study(folder, url, "tiny", ["accuracy"], ["maximize"])
    open_study(folder, None, "tiny", ["accuracy", "flops"], ["maximize", "minimize"])
    with pytest.raises(StudyError, match=r"can't be opened as a study: .*Record does not exist"):
        load_record(folder, None, "other", ())
    with pytest.raises(StudyError, match=r"holds a study 'tiny' with directions .*, not \['maximize'\]"):
        open_study(folder, None, "tiny", ["accuracy"], ["maximize"])


@pytest.mark.parametrize("name", ["a b", "a#b", "100%25", "plain"])
def test_a_study_is_read_without_a_trace(tmp_path: Path, name: str) -> None:
    folder = StudyFolder(tmp_path / name)
    folder.create()
    made = open_study(StudyFolder(tmp_path), None, "tiny", ["accuracy"], ["maximize"])
    made.ask()
    shutil.copy(tmp_path / "study.db", folder.database)
    before = folder.database.read_bytes()
    assert len(load_record(folder, None, "tiny", (), read_only=True).trials) == 1
    assert folder.database.read_bytes() == before
    assert not folder.database.with_name("study.db-journal").exists()


def test_a_database_that_a_crash_left_half_written_is_not_mended_in_reading(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    open_study(folder, None, "tiny", ["accuracy"], ["maximize"]).ask()
    crash = f"""
import os, sqlite3
connection = sqlite3.connect({str(folder.database)!r})
connection.execute("PRAGMA cache_size=1")
connection.execute("BEGIN IMMEDIATE")
for number in range(3000):
    row = (str(number), "x" * 500)
    connection.execute("INSERT INTO trial_user_attributes(trial_id, key, value_json) VALUES (1, ?, ?)", row)
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", crash], check=True)
    before = tree(folder.root)
    with pytest.raises(
        StudyError, match=r"study.db: can't be read as a study: .*readonly.*`autoprune status` on its fo"
    ):
        load_record(folder, None, "tiny", (), read_only=True)
    assert tree(folder.root) == before
    assert len(load_record(folder, None, "tiny", ()).trials) == 1
    assert len(load_record(folder, None, "tiny", (), read_only=True).trials) == 1


def test_blocks_ranked_by_the_angle_that_they_turn_by(tmp_path: Path) -> None:
    checked = validate_space(
        read_space(write_space(tmp_path, {"pruning": [{"method": "layer", "importance": "angular"}]}))
    )
    streams: dict[str, torch.Tensor] = {}
    for name in ("block1", "block2"):
        module = checked.model.get_submodule(name)
        module.register_forward_hook(lambda _, args, output, name=name: streams.update({name: (args[0], output)}))
    with torch.no_grad():
        checked.model.eval()(checked.task.data.train.batch(torch.arange(200))[0])
    angles = {
        name: float(nn.functional.cosine_similarity(*(s.double().flatten(1) for s in pair)).arccos().mean()) / torch.pi
        for name, pair in streams.items()
    }
    plan = rank_plan(checked.spec, checked.task, checked.plan, checked.model.train(), torch.device("cpu"))
    assert {block.name: block.importance for block in plan.blocks} == pytest.approx(angles, rel=1e-5)
    assert list(plan.block_names) == sorted(angles, key=lambda name: angles[name])


def test_angles_are_measured_with_fewer_examples_at_once_where_memory_is_not_enough(tmp_path: Path) -> None:
    checked = validate_space(
        read_space(write_space(tmp_path, {"pruning": [{"method": "layer", "importance": "angular"}]}))
    )
    expected = rank_plan(checked.spec, checked.task, checked.plan, checked.model, torch.device("cpu"))
    sizes: list[int] = []

    def hungry(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        sizes.append(len(args[0]))
        if len(args[0]) > 40:
            raise torch.OutOfMemoryError(f"no room for {len(args[0])} examples")

    checked.model.get_submodule("block2").register_forward_pre_hook(hungry)
    plan = rank_plan(checked.spec, checked.task, checked.plan, checked.model, torch.device("cpu"))
    assert sizes == [128, 64, *[32] * 6, 8]
    assert plan.block_names == expected.block_names
    for block, other in zip(plan.blocks, expected.blocks, strict=True):
        assert block.importance == pytest.approx(other.importance)


def test_hidden_sizes_are_groups_where_the_space_file_asks(tmp_path: Path) -> None:
    task = TINY_TASK.replace('("head",', '("up", nn.Linear(128, 12)), ("norm", nn.LayerNorm(12)), ("head",').replace(
        "nn.Linear(128, 10)", "nn.Linear(12, 10)"
    )
    exact = {}
    for hidden_sizes in (False, True):
        method = {"method": "neuron", "hidden_sizes": hidden_sizes}
        space = write_space(tmp_path / str(hidden_sizes), {"pruning": [method]}, task)
        exact[hidden_sizes] = {group.name: group.exact for group in validate_space(read_space(space)).plan.groups}
    assert "up" not in exact[False]
    assert exact[True] == {**exact[False], "up": False}
