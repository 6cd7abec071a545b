"""A study without a result ends red: in `search`, `status`, `pareto` and `export`, with the first cause as it is."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import run_command, run_well
from tiny import TINY_TASK, copy_study

from autoprune.search import failure_limit

FEW: dict[str, Any] = {"training": {"epochs": 1}, "search": {"trials": 2, "ladder": 0}}
MESSAGE = r"no [/bold] in :x: of [shape [2, 3]] \x1b[31m"


def raising(condition: str) -> str:
    """A task whose loss raises in training, but not in the check, where a condition holds."""
    return TINY_TASK + (
        "\n\ndef loss(outputs, targets, made=[0]):\n"
        "    made[0] += outputs.requires_grad and len(targets) >= 30\n"
        f"    if outputs.requires_grad and len(targets) >= 30 and {condition}:\n"
        f"        raise ValueError('{MESSAGE}')  # HERE\n"
        "    return nn.functional.cross_entropy(outputs, targets)\n"
    )


def line_of(task: str) -> int:
    return next(number for number, text in enumerate(task.splitlines(), 1) if "HERE" in text)


@pytest.mark.usefixtures("brief_latency")
def test_a_study_all_of_whose_trials_failed(trained_tiny: Path, tmp_path: Path) -> None:
    task = raising("True")
    space = copy_study(trained_tiny, tmp_path, FEW | {"task": {"loss": "tiny_task:loss"}}, task)
    cause = f"ValueError: {MESSAGE} (tiny_task.py:{line_of(task)})"
    first = f"no trial has finished: 2 failed. The first, trial 0: {cause}."
    for _ in range(2):  # the second time it is complete
        ran = run_well("search", space, "--engine", "inline", cwd=tmp_path, code=1)
        assert ran.err == f"results/tiny: {first} Mend that; --trials N extends it.\n"
        assert "next:" not in ran.out
    status = run_well("status", "results/tiny", cwd=tmp_path, code=1).out
    assert status.endswith(f"{first}\n")
    assert f"  trials 0, 1 failed: ValueError: {MESSAGE} (tiny_task.py:" in status
    as_json = run_well("status", "results/tiny", "--json", cwd=tmp_path, code=1).out
    assert json.loads(as_json)["first_cause"][0] == 0
    assert first in run_well("pareto", "results/tiny", cwd=tmp_path).out
    err = run_well("export", "results/tiny", cwd=tmp_path, code=2).err
    assert err.endswith(f"results/tiny: nothing to export: {first}\n")


@pytest.mark.usefixtures("brief_latency")
def test_a_study_that_gave_up_and_goes_on(trained_tiny: Path, tmp_path: Path) -> None:
    changes = FEW | {"task": {"loss": "tiny_task:loss"}, "search": {"trials": 3, "ladder": 2, "max_failures": 1}}
    space = copy_study(trained_tiny, tmp_path, changes, raising("True"))
    ran = run_well("search", space, "--engine", "inline", cwd=tmp_path, code=1)
    assert ran.err.startswith("results/tiny: no trial has finished: 1 failed. The first, trial 0: ValueError: ")
    assert ran.err.endswith(" Mend that; the same command goes on.\n")
    status = run_well("status", "results/tiny", cwd=tmp_path).out  # the other step of the ladder waits
    assert "no trial has finished: 1 failed." in status


@pytest.mark.usefixtures("brief_latency")
def test_a_study_over_its_ceilings(trained_tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure_limit, "MAX_MEASURED", 2)
    space = copy_study(trained_tiny, tmp_path, FEW | {"constraints": {"size_bytes": 1}})
    ran = run_well("search", space, "--engine", "inline", cwd=tmp_path, code=1)
    assert "no trial has finished: 2 over a ceiling. The first, trial 0: size_bytes " in ran.err
    assert "next:" not in ran.out
    assert "2 over a ceiling" in run_well("status", "results/tiny", cwd=tmp_path, code=1).out


@pytest.mark.usefixtures("brief_latency")
def test_a_study_some_of_whose_trials_failed_says_how_many_and_why(trained_tiny: Path, tmp_path: Path) -> None:
    task = raising("made[0] == 1")
    space = copy_study(trained_tiny, tmp_path, FEW | {"task": {"loss": "tiny_task:loss"}}, task)
    ran = run_command("search", space, "--engine", "inline", cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    cause = f"ValueError: {MESSAGE} (tiny_task.py:{line_of(task)})"
    assert f"1 of 2 trials failed; the first, trial 0: {cause}.\nnext: autoprune export " in ran.out
    assert f"  trial 0 failed: {cause}\n" in run_well("status", "results/tiny", cwd=tmp_path).out
