"""The commands on a small study, as a user types them."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from command_line import run_well
from tiny import write_space

import autoprune
from autoprune.config import load_config
from autoprune.tasks.build import build_task

pytestmark = pytest.mark.xdist_group("cli_study")  # its fixtures take long: one process makes them


@pytest.fixture(scope="module")
def searched(finished_tiny: Path) -> tuple[Path, str]:
    """A folder with a finished study of six trials and a certified front, and what the search printed."""
    return finished_tiny, (finished_tiny / "printed").read_text()


def test_the_search_ends_with_the_front_and_the_paths(searched: tuple[Path, str]) -> None:
    folder, printed = searched
    front = pd.read_parquet(folder / "results/tiny/front.parquet")
    for number in front["number"]:
        assert any(line.split()[:1] == [str(number)] for line in printed.splitlines())
    for name in ("front.parquet", "trials.parquet", "study.db"):
        assert f"results/tiny/{name}" in printed
    assert "6/6 trials" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_running_again_says_that_the_study_is_complete(searched: tuple[Path, str], tmp_path: Path) -> None:
    folder = shutil.copytree(searched[0], tmp_path / "again")
    before = pd.read_parquet(folder / "results/tiny/trials.parquet")
    printed = run_well("search", "space.yaml", cwd=folder).out
    assert "the study is complete: 6 of 6 trials" in printed
    pd.testing.assert_frame_equal(before, pd.read_parquet(folder / "results/tiny/trials.parquet"))


def test_a_different_space_file_is_refused(searched: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = searched
    other = write_space(tmp_path, {"training": {"epochs": 3}})
    err = run_well("search", other, "--results", folder / "results", cwd=tmp_path, code=2).err
    assert "training.epochs: 2 -> 3" in err


def test_status_counts_the_trials(searched: tuple[Path, str]) -> None:
    folder, _ = searched
    printed = run_well("status", "results/tiny", cwd=folder).out
    assert "tiny: 6 of 6 trials have ended" in printed
    assert "12 epochs trained, and 8 of the dense network" in printed
    assert "rank correlation with the final accuracy" in printed
    assert max(map(len, printed.splitlines())) <= 80
    record = json.loads(run_well("status", "results/tiny", "--json", cwd=folder).out)
    assert record["counts"]["finished"] == 6
    assert record["rungs"] == [{"share": s, "n_trials": 6, "n_finished": 6, "correlation": None} for s in (0.25, 0.5)]


def test_show_tells_how_a_network_came_to_be(searched: tuple[Path, str]) -> None:
    folder, _ = searched
    row = pd.read_parquet(folder / "results/tiny/trials.parquet").iloc[-1]
    printed = run_well("show", "results/tiny", row["number"], cwd=folder).out
    assert max(map(len, printed.splitlines())) <= 80
    for text in ("one_cycle lr=0.05", row["lr_schedule"], f"trials: {row['epochs_lineage']}; of the dense network"):
        assert text in " ".join(printed.split())
    record = json.loads(run_well("show", "results/tiny", row["number"], "--json", cwd=folder).out)
    assert (record["epochs_lineage"], record["epochs_dense"]) == (row["epochs_lineage"], 8)
    lineage = [step["trial"] for step in record["lineage"]]
    assert lineage == [None, *map(int, row["lineage"].split(" > "))]
    assert "no trial 99" in run_well("show", "results/tiny", 99, cwd=folder, code=2).err


def test_pareto_prints_the_front_in_three_forms(searched: tuple[Path, str]) -> None:
    folder, _ = searched
    front = pd.read_parquet(folder / "results/tiny/front.parquet")
    as_json = json.loads(run_well("pareto", "results/tiny", "--json", cwd=folder).out)
    assert [row["number"] for row in as_json] == list(front["number"])
    assert [" > ".join(map(str, row["lineage"])) for row in as_json] == list(front["lineage"])
    as_csv = pd.read_csv(io.StringIO(run_well("pareto", "results/tiny", "--csv", cwd=folder).out))
    np.testing.assert_allclose(as_csv["metric.accuracy"], front["metric.accuracy"])
    printed = run_well("pareto", "results/tiny", cwd=folder).out
    assert "dense" in printed
    assert all(f"  {line}" in printed for line in front["lineage"])


def test_certification_is_shown(searched: tuple[Path, str]) -> None:
    folder, printed = searched
    front = pd.read_parquet(folder / "results/tiny/front.parquet").set_index("number")
    n_runs = 2 * len(front)  # all trials of this study start from dense
    assert f"certifying the front: {n_runs}/{n_runs} runs" in printed
    for shown in (printed, run_well("pareto", "results/tiny", cwd=folder).out):
        lines = shown[shown.index("trained again over seeds") :].splitlines()[2:]
        for line, (number, row) in zip(lines, front.iterrows(), strict=False):
            fields = line.split()
            assert fields[:2] == [str(number), "2"]
            assert fields[2].startswith(f"{row['lineage.metric.accuracy']:.4f}±")
            assert fields[-1] == ("yes" if row["holds"] else "no")
    as_json = json.loads(run_well("pareto", "results/tiny", "--json", cwd=folder).out)
    assert {row["lineage.runs"] for row in as_json} == {2}
    status = run_well("status", "results/tiny", cwd=folder).out
    assert f"certification: {n_runs} runs have finished, 0 failed" in status


def test_plan_shows_what_can_be_pruned(searched: tuple[Path, str]) -> None:
    folder, _ = searched
    printed = run_well("plan", "space.yaml", cwd=folder).out
    assert "block1.conv1" in printed
    assert "head" in printed
    record = json.loads(run_well("plan", "space.yaml", "--json", cwd=folder).out)
    assert record.keys() == {"dense", "groups", "blocks", "weight_layers", "left_out", "dimensions", "uncounted"}
    groups = {group["name"]: group for group in record["groups"]}
    assert groups.keys() >= {"block1.conv1", "block2.conv1"}
    # Both convolutions of 576 weights and the batch norm between them, of 72 + 16 + 2 * 1184 + 1290 parameters; and
    # 2 x 16 x 576 of 64 x 72 + 4 x 16 x 576 + 1280 multiply-accumulates.
    assert groups["block1.conv1"] == {
        "name": "block1.conv1",
        "width": 8,
        "layers": ["block1.conv1", "block1.bn1", "block1.conv2"],
        "multiple": 1,
        "exact": True,
        "params_share": pytest.approx(1168 / 3746),
        "macs_share": pytest.approx(18432 / 42752),
    }
    block = next(block for block in record["blocks"] if block["name"] == "block1")
    assert block["params_share"] == pytest.approx(1184 / 3746)
    assert block["macs_share"] == pytest.approx(18432 / 42752)
    assert block["importance"] is None
    assert record["dense"]["params"] == 3746
    assert record["weight_layers"]["stem.weight"] == 72
    assert any(item["module"] == "head" and item["reason"] for item in record["left_out"])
    assert record["dimensions"]["neuron.ratio.block1.conv1"] == {"low": 0.0, "high": 0.8, "log": False, "step": None}
    assert "sensitivity" not in record


def test_export_gives_files_with_the_stated_accuracy(searched: tuple[Path, str], tmp_path: Path) -> None:
    folder = shutil.copytree(searched[0], tmp_path / "copy")
    printed = run_well("export", "results/tiny", "--select", "knee", "--out", "shipped", cwd=folder).out
    assert max(map(len, printed.splitlines())) <= 80
    manifest_file = folder / "shipped/manifest.json"
    assert f"manifest.json  {manifest_file.stat().st_size:,} bytes" in printed
    source = json.loads(manifest_file.read_text())["source"]
    trial = source["trial"]["number"]
    assert [step["trial"] for step in source["lineage"]][:: len(source["lineage"]) - 1] == [None, trial]
    assert source["lineage"][0]["lr_schedule"]["kind"] == "one_cycle"
    assert (source["epochs_dense"], source["epochs_lineage"]) == (8, source["lineage"][-1]["epochs_lineage"])
    assert [line.split()[0] for line in printed.splitlines()[:3]] == ["trial", "dense", str(trial)]
    metrics = json.loads(manifest_file.read_text())["metrics"]
    front = pd.read_parquet(folder / "results/tiny/front.parquet").set_index("number")
    assert metrics["certification"]["lineage"]["accuracy_std"] == pytest.approx(
        front["lineage.metric.accuracy_std"][trial]
    )
    stated = metrics["accuracy"]
    task = build_task(load_config(folder / "space.yaml").task, folder)
    inputs, targets = task.data.validation.batch(torch.arange(len(task.data.validation)))
    model = autoprune.load(folder / "shipped", base_dir=folder)
    with torch.no_grad():
        assert task.metric(model(inputs), targets) == pytest.approx(stated)
    session = onnxruntime.InferenceSession(folder / "shipped/model.onnx")
    logits = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0]
    assert (logits.argmax(axis=1) == targets.numpy()).mean() == pytest.approx(stated)


def test_export_says_which_names_it_knows(searched: tuple[Path, str]) -> None:
    folder, _ = searched
    err = run_well("export", "results/tiny", "--select", "flop<=0.5x", cwd=folder, code=2).err
    assert "did you mean 'flops'?" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "space.yaml", "--json"],
        ["status", "results/tiny"],
        ["pareto", "results/tiny"],
        ["show", "results/tiny", "0"],
        ["export", "results/tiny", "--select", "best", "--format", "safetensors", "--out", "shipped"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_in_a_process_of_its_own_a_command_prints_the_same(
    searched: tuple[Path, str], tmp_path: Path, arguments: list[str]
) -> None:
    folder = shutil.copytree(searched[0], tmp_path / "copy")
    command = [sys.executable, "-m", "autoprune", *arguments]
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    printed: list[Any] = [done.stdout, run_well(*arguments, cwd=folder).out]
    if arguments[0] == "plan":  # it measures the latency anew
        printed = [json.loads(each)["groups"] for each in printed]
    assert printed[0] == printed[1]


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['autoprune', '--help']\n"
        "from autoprune.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'optuna', 'pandas', 'numpy', 'pydantic'} & set(sys.modules); assert not heavy, heavy"
    )
    times = []  # of the processor: the wall's depends on what else runs
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        after = os.times()
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(times) < 0.5
