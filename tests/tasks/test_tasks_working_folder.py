"""The user's code runs in the space file's folder, and the caller's is the current one again afterwards."""

import sys
from pathlib import Path

import pytest
import torch
from command_line import run_well
from tiny import TINY_TASK, write_space

from autoprune.errors import TaskError
from autoprune.formats.saved_model import load
from autoprune.tasks.working_folder import working_in

OPENS_LATE = (
    TINY_TASK
    + """

from pathlib import Path


class FileSplit(CountingSplit):
    \"\"\"Reads a file at every batch, as a folder of images does.\"\"\"

    def batch(self, indices):
        assert Path("class_names.txt").read_text() == "0 1 2"
        return super().batch(indices)


class OpensFile(nn.Module):
    def forward(self, x):
        if not torch.jit.is_tracing() and not torch.compiler.is_compiling():
            Path("class_names.txt").read_text()
        return x


def net_with_file():
    Path("class_names.txt").read_text()
    return nn.Sequential(net(), OpensFile())


def data_in_files():
    return {name: FileSplit(split.inputs, split.targets) for name, split in data().items()}


def loss(outputs, targets):
    Path("class_names.txt").read_text()
    return nn.functional.cross_entropy(outputs, targets)
"""
)


def test_the_caller_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    seen: list[Path] = []

    def fail() -> None:
        with working_in(Path("there")):
            seen.append(Path.cwd())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [tmp_path / "there"]
    assert Path.cwd() == tmp_path
    with pytest.raises(TaskError, match="gone: the folder of the space file can't be entered: No such file"):
        working_in(Path("gone")).__enter__()
    assert Path.cwd() == tmp_path


def test_modules_of_the_callers_folder_are_still_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    before = list(sys.path)
    with working_in(Path("there")):
        assert str(tmp_path) in sys.path
    assert sys.path == before


def test_relative_paths_opened_late_hold_from_plan_to_load(tmp_path: Path, brief_latency: None) -> None:
    task = {"model": "tiny_task:net_with_file", "data": "tiny_task:data_in_files", "loss": "tiny_task:loss"}
    changes = {
        "task": task,
        "dense": {"epochs": 1},
        "training": {"epochs": 1},
        "search": {"trials": 1, "ladder": 0},
        "certify": {"seeds": 1},
    }
    write_space(tmp_path / "project", changes, OPENS_LATE)
    (tmp_path / "project" / "class_names.txt").write_text("0 1 2")
    before = Path.cwd()
    run_well("plan", "project/space.yaml", cwd=tmp_path)
    run_well("search", "project/space.yaml", "--engine", "inline", cwd=tmp_path)
    assert (tmp_path / "results" / "tiny" / "front.parquet").is_file()
    run_well("export", "results/tiny", "--select", "0", "--out", "out", "--format", "safetensors", cwd=tmp_path)
    assert Path.cwd() == before
    with working_in(tmp_path):
        model = load("out", base_dir="project")
    with working_in(tmp_path / "project"):
        assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
