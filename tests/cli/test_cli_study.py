"""The commands on a small study, as a user types them."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from tiny import write_space

import autoprune
from autoprune.config import load_config
from autoprune.tasks.build import build_task


def autoprune_command(*arguments: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "autoprune", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a finished study of six trials and a certified front, and what the search printed."""
    folder = tmp_path_factory.mktemp("searched")
    space = write_space(folder, {"certify": {"seeds": 2}})
    return folder, autoprune_command("search", space, "--engine", "inline", cwd=folder).stdout


def test_the_search_ends_with_the_front_and_the_paths(searched: tuple[Path, str]) -> None:
    folder, printed = searched
    front = pd.read_parquet(folder / "results/tiny/front.parquet")
    for number in front["number"]:
        assert any(line.split()[:1] == [str(number)] for line in printed.splitlines())
    for name in ("front.parquet", "trials.parquet", "study.db"):
        assert f"results/tiny/{name}" in printed
    assert "6/6 trials" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_running_again_says_that_the_study_is_complete(searched: tuple[Path, str]) -> None:
    folder, _ = searched
    before = pd.read_parquet(folder / "results/tiny/trials.parquet")
    printed = autoprune_command("search", "space.yaml", cwd=folder).stdout
    assert "the study is complete: 6 of 6 trials" in printed
    pd.testing.assert_frame_equal(before, pd.read_parquet(folder / "results/tiny/trials.parquet"))


def test_a_different_space_file_is_refused(searched: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = searched
    other = write_space(tmp_path, {"training": {"epochs": 3}})
    err = autoprune_command("search", other, "--results", folder / "results", cwd=tmp_path, code=2).stderr
    assert "training.epochs: 2 -> 3" in err


def test_status_counts_the_trials(searched: tuple[Path, str]) -> None:
    folder, _ = searched
    printed = autoprune_command("status", "results/tiny", cwd=folder).stdout
    assert "tiny: 6 of 6 trials have ended" in printed
    assert "12 epochs trained, and 8 of the dense network" in printed
    assert "rank correlation with the final accuracy" in printed
    assert max(map(len, printed.splitlines())) <= 80
    record = json.loads(autoprune_command("status", "results/tiny", "--json", cwd=folder).stdout)
    assert record["counts"]["finished"] == 6
    assert record["rungs"] == [{"share": s, "n_trials": 6, "n_finished": 6, "correlation": None} for s in (0.25, 0.5)]


def test_show_tells_how_a_network_came_to_be(searched: tuple[Path, str]) -> None:
    folder, _ = searched
    row = pd.read_parquet(folder / "results/tiny/trials.parquet").iloc[-1]
    printed = autoprune_command("show", "results/tiny", row["number"], cwd=folder).stdout
    assert max(map(len, printed.splitlines())) <= 80
    for text in ("one_cycle lr=0.05", row["lr_schedule"], f"trials: {row['epochs_lineage']}; of the dense network"):
        assert text in " ".join(printed.split())
    record = json.loads(autoprune_command("show", "results/tiny", row["number"], "--json", cwd=folder).stdout)
    assert (record["epochs_lineage"], record["epochs_dense"]) == (row["epochs_lineage"], 8)
    lineage = [step["trial"] for step in record["lineage"]]
    assert lineage == [None, *map(int, row["lineage"].split(" > "))]
    assert "no trial 99" in autoprune_command("show", "results/tiny", 99, cwd=folder, code=2).stderr


def test_pareto_prints_the_front_in_three_forms(searched: tuple[Path, str]) -> None:
    folder, _ = searched
    front = pd.read_parquet(folder / "results/tiny/front.parquet")
    as_json = json.loads(autoprune_command("pareto", "results/tiny", "--json", cwd=folder).stdout)
    assert [row["number"] for row in as_json] == list(front["number"])
    assert [" > ".join(map(str, row["lineage"])) for row in as_json] == list(front["lineage"])
    as_csv = pd.read_csv(io.StringIO(autoprune_command("pareto", "results/tiny", "--csv", cwd=folder).stdout))
    np.testing.assert_allclose(as_csv["accuracy"], front["accuracy"])
    printed = autoprune_command("pareto", "results/tiny", cwd=folder).stdout
    assert "dense" in printed
    assert all(f"  {line}" in printed for line in front["lineage"])


def test_certification_is_shown(searched: tuple[Path, str]) -> None:
    folder, printed = searched
    front = pd.read_parquet(folder / "results/tiny/front.parquet").set_index("number")
    n_runs = 2 * len(front)  # all trials of this study start from dense
    assert f"certifying the front: {n_runs}/{n_runs} runs" in printed
    for shown in (printed, autoprune_command("pareto", "results/tiny", cwd=folder).stdout):
        lines = shown[shown.index("trained again over seeds") :].splitlines()[2:]
        for line, (number, row) in zip(lines, front.iterrows(), strict=False):
            fields = line.split()
            assert fields[:2] == [str(number), "2"]
            assert fields[2].startswith(f"{row['lineage.accuracy']:.4f}±")
            assert fields[-1] == ("yes" if row["holds"] else "no")
    as_json = json.loads(autoprune_command("pareto", "results/tiny", "--json", cwd=folder).stdout)
    assert {row["lineage.runs"] for row in as_json} == {2}
    status = autoprune_command("status", "results/tiny", cwd=folder).stdout
    assert f"certification: {n_runs} runs have finished, 0 failed" in status


def test_plan_shows_what_can_be_pruned(searched: tuple[Path, str]) -> None:
    folder, _ = searched
    printed = autoprune_command("plan", "space.yaml", cwd=folder).stdout
    assert "block1.conv1" in printed
    assert "head" in printed
    record = json.loads(autoprune_command("plan", "space.yaml", "--json", cwd=folder).stdout)
    assert record.keys() == {"dense", "groups", "blocks", "weight_layers", "left_out", "dimensions"}
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


def test_export_gives_files_with_the_stated_accuracy(searched: tuple[Path, str]) -> None:
    folder, _ = searched
    printed = autoprune_command("export", "results/tiny", "--select", "knee", "--out", "shipped", cwd=folder).stdout
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
    assert metrics["certification"]["lineage"]["accuracy_std"] == pytest.approx(front["lineage.accuracy_std"][trial])
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
    err = autoprune_command("export", "results/tiny", "--select", "flop<=0.5x", cwd=folder, code=2).stderr
    assert "did you mean 'flops'?" in err


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
