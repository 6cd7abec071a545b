"""What README claims: its example runs as it stands there, and its test command is the one that CI calls."""

import contextlib
import io
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from command_line import run_well
from tiny import write_space

from autoprune.config import load_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def block(language: str, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)[number]


@pytest.mark.usefixtures("brief_latency")
def test_the_example_task_runs_as_written(tmp_path: Path) -> None:
    assert len(block("python").strip().splitlines()) < 20
    (tmp_path / "my_task.py").write_text(block("python"))
    (tmp_path / "my_space.yaml").write_text(block("yaml"))
    run_well("search", "my_space.yaml", "--engine", "inline", "--trials", "5", cwd=tmp_path)
    trials = pd.read_parquet(tmp_path / "results/mine/trials.parquet")
    assert (trials["state"] == "finished").sum() == 5
    assert trials["metric.accuracy"].max() > 0.8
    front = pd.read_parquet(tmp_path / "results/mine/front.parquet")
    assert front["metric.accuracy_test"].notna().all()


def test_the_settings_shown_are_valid(tmp_path: Path) -> None:
    shown = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)[1:]
    assert len(shown) == 2
    for text in shown:
        load_config(write_space(tmp_path, yaml.safe_load(text)))


def test_the_place_shown_for_checkpoints_is_valid(tmp_path: Path) -> None:
    (shown,) = re.findall(r"`(search: \{checkpoints: .*?\})`", README)
    assert load_config(write_space(tmp_path, yaml.safe_load(shown))).search.checkpoints == "s3://bucket/folder"


def test_the_python_plan_runs_as_written() -> None:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(block("python", 1), {"__name__": "__main__"})
    assert printed.getvalue().startswith("0 16 ")
    assert "params=3114" in printed.getvalue()  # 8 x (27 + 1) + 8 x 36 x 10 + 10


def test_ci_calls_the_test_command_of_the_readme() -> None:
    commands = re.findall(r"^    (python3 -m venv .*)$", README, flags=re.MULTILINE)
    assert len(commands) == 2
    assert "autoprune search search_spaces/digits.yaml" in commands[0]
    install, test = commands[1].split(".venv/bin/pip install ")
    ci = (ROOT / ".ci/run").read_text().replace("pip install -q ", "pip install ")
    assert install + ".venv/bin/pip install " + test in ci


def test_every_shipped_space_is_named() -> None:
    for path in (ROOT / "search_spaces").glob("*.yaml"):
        assert path.name in README
        assert yaml.safe_load(path.read_text())["study"] == path.stem
