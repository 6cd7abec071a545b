"""Bad input: one clear message, exit code 2, nothing written."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run_command
from safetensors.torch import save_file
from tiny import TINY_TASK, write_space

from autoprune.errors import ConfigError

BROKEN = """

def broken():
    return 1 / 0


def seven():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
"""


def weights_of_another_network(folder: Path) -> None:
    save_file({"stem.weight": torch.zeros(3, 3), "other": torch.zeros(1)}, folder / "other.safetensors")


def results_is_a_file(folder: Path) -> None:
    (folder / "results").write_text("")


INLINE = ("--engine", "inline")
"""For a mistake that the space file alone doesn't show: Ray takes seconds to start, and to end where it is found."""


@pytest.mark.parametrize("command", [("search", *INLINE), ("plan",)], ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainning": {}}, r"space.yaml:\d+: the file: unknown key 'trainning' \(did you mean 'training'\?\)"),
        ({"search": {"trials": "many"}}, r"space.yaml:\d+: search.trials: .*integer.*'many'"),
        (
            {"training": {"epochs": {"low": 5, "high": 2}}},
            r"training.epochs: low <= high must hold, but got low=5, high=2",
        ),
        ({"objectives": ["accuracy", "accuracy"]}, r"objectives.* names 'accuracy'"),
        ({"study": "../elsewhere"}, r"study must start with a letter or digit"),
        ({"task": {"model": "no_such_module:net"}}, r"task.model: .*no_such_module"),
        ({"task": {"model": "tiny_task:nett"}}, r"task.model: tiny_task has no 'nett' \(did you mean 'net'\?\)"),
        ({"task": {"data": "tiny_task:broken"}}, r"task.data: .*ZeroDivisionError.*tiny_task.py:\d+"),
        ({"task": {"model": "tiny_task:seven"}}, r"data has 10 classes, model has 7 outputs"),
        ({"task": {"weights": "missing.safetensors"}}, r"missing.safetensors"),
        ({"task": {"weights": "other.safetensors"}}, r"(?s)other.safetensors.*stem.weight"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_space_files(tmp_path: Path, command: tuple[str, ...], changes: dict[str, Any], message: str) -> None:
    space = write_space(tmp_path, changes, TINY_TASK + BROKEN)
    weights_of_another_network(tmp_path)
    code, _, err = run_command(*command, space, cwd=tmp_path)
    assert code == 2
    assert "Traceback" not in err
    assert re.search(message, err), err
    assert not (tmp_path / "results").exists()


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    space = write_space(tmp_path, {"serch": {}, "objectives": ["accuracy", "size"], "training": {"epochs": 0}})
    code, _, err = run_command("search", space, cwd=tmp_path)
    assert code == 2
    assert len(err.strip().splitlines()) == 3


@pytest.mark.parametrize("engine", ["inline", pytest.param("ray", marks=pytest.mark.slow)])
def test_unwritable_results(tmp_path: Path, engine: str) -> None:
    results_is_a_file(tmp_path)
    space = write_space(tmp_path, {})
    if engine == "inline":
        code, _, err = run_command("search", space, *INLINE, cwd=tmp_path)
    else:  # Ray starts, and ends
        command = [sys.executable, "-m", "autoprune", "search", space]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        code, err = done.returncode, done.stderr
    assert code == 2
    assert "can't be written" in err
    assert "--results" in err


def test_a_missing_space_file(tmp_path: Path) -> None:
    code, _, err = run_command("search", "nowhere.yaml", cwd=tmp_path)
    assert (code, err) == (2, "autoprune: nowhere.yaml: no such file. Shipped examples are in search_spaces/.\n")


@pytest.mark.parametrize("command", ["status", "pareto", "export"])
def test_a_folder_that_is_no_study(tmp_path: Path, command: str) -> None:
    code, _, err = run_command(command, tmp_path, cwd=tmp_path)
    assert code == 2
    assert "not a study" in err


def test_a_corrupt_database(trained_tiny: Path, tmp_path: Path) -> None:
    study = tmp_path / "results" / "tiny"
    shutil.copytree(trained_tiny, study)
    space = write_space(tmp_path, {})
    (study / "study.db").write_text("garbage" * 100)
    for arguments in (("search", space, "--engine", "inline"), ("status", study)):
        code, _, err = run_command(*arguments, cwd=tmp_path)
        assert code == 2
        assert "study.db: can't be opened as a study" in err
    assert (study / "study.db").read_text() == "garbage" * 100


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        run_command("--debug", "search", "nowhere.yaml", cwd=tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"constraints": {"flops": 10}}, r"constraints: even for the smallest network of this space, flops"),
        (
            {"pruning": [{"method": "neuron", "layers": {"stage9.*": "skip"}}]},
            r"'stage9.\*' matches none of the layers that can be pruned: .*block1.conv1",
        ),
    ],
    ids=["unreachable ceiling", "layer pattern"],
)
def test_what_only_the_network_shows_is_found_before_it_is_trained(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    code, _, err = run_command("search", write_space(tmp_path, changes), *INLINE, cwd=tmp_path)
    assert code == 2
    assert re.search(message, err), err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"task": {"model": "no_such_module:net"}}, "model:"),
        ({"task": {"data": "tiny_task:broken"}}, "data:"),
        ({"constraints": {"flops": 10}}, "constraints:"),
        ({"pruning": [{"method": "neuron", "layers": {"stage9.*": "skip"}}]}, "pruning:"),
        ({"resources": {"gpus_per_trial": 99}}, "gpus_per_trial:"),
        ({"search": {"storage": "nonsense"}}, "storage:"),
    ],
)
def test_mistakes_beyond_the_schema_have_their_line(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    space = write_space(tmp_path, changes, TINY_TASK + BROKEN)
    code, _, err = run_command("search", space, *INLINE, cwd=tmp_path)
    line = next(n for n, text in enumerate(space.read_text().splitlines(), 1) if text.strip().startswith(key))
    assert code == 2
    assert f"space.yaml:{line}: " in err, err


def test_mistakes_of_the_schema_and_of_the_task_are_told_together(tmp_path: Path) -> None:
    changes = {"serch": {}, "task": {"model": "no_such_module:net", "data": "tiny_task:broken"}}
    code, _, err = run_command("search", write_space(tmp_path, changes, TINY_TASK + BROKEN), cwd=tmp_path)
    assert code == 2
    assert len(err.strip().splitlines()) == 3
    for part in ("unknown key 'serch'", "no_such_module", "ZeroDivisionError"):
        assert part in err
