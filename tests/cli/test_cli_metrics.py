"""F1 of an imbalanced table, RMSE of a series, IoU of a segmentation: by their names from space file to export."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from command_line import run_well
from sklearn import metrics as sk

import autoprune

pytestmark = pytest.mark.slow

TASKS = """
import torch
from torch import nn
from torch.nn import functional as F


def table_net():
    return nn.Sequential(nn.Linear(20, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 1))


def parts(x, y, *ends):
    pairs = zip((0, *ends), (*ends, len(x)))
    return {name: (x[a:b], y[a:b]) for name, (a, b) in zip(("train", "validation", "test"), pairs)}


def table():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1500, 20, generator=g)
    y = x[:, :5].sum(1) + 0.5 * torch.randn(1500, generator=g) > 3
    return parts(x, y.float()[:, None], 900, 1200)


class Series(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.head = nn.Conv1d(1, 24, 5), nn.Conv1d(24, 24, 5), nn.Linear(24, 1)

    def forward(self, x):
        return 40 + 40 * self.head(F.relu(self.conv2(F.relu(self.conv1(x)))).mean(2))


def series():
    g = torch.Generator().manual_seed(0)
    t = torch.arange(32) / 8
    phase, size = 6 * torch.rand(1200, 1, generator=g), 1 + torch.rand(1200, 1, generator=g)
    x = size * torch.sin(t + phase) + 0.1 * torch.randn(1200, 32, generator=g)
    return parts(x[:, None], 40 * size, 700, 950)


def masks_net():
    first = nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 16, 3, padding=1), nn.ReLU()
    return nn.Sequential(*first, nn.Conv2d(16, 3, 1))


def masks():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(300, 3, 8, 8, generator=g)
    y = x.argmax(1)
    y[torch.rand(y.shape, generator=g) < 0.2] = 255
    return parts(x, y, 180, 240)
"""

IGNORED = {"args": {"ignore_index": 255}}
KINDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "f1": (
        {"model": "own_tasks:table_net", "data": "own_tasks:table", "loss": "bce_with_logits", "metric": "f1"},
        "5%",
        "f1>=0.5 and flops<=0.9x",
    ),
    "rmse": (
        {"model": "own_tasks:Series", "data": "own_tasks:series", "loss": "torch.nn:MSELoss", "metric": "rmse"},
        "50%",
        "rmse<=1.5x",
    ),
    "iou": (
        {
            "model": "own_tasks:masks_net",
            "data": "own_tasks:masks",
            "loss": {"name": "cross_entropy", **IGNORED},
            "metric": {"name": "iou", **IGNORED},
        },
        "0.1",
        "iou>=0.3 and flops<=0.9x",
    ),
}


def judged(name: str, outputs: torch.Tensor, targets: torch.Tensor) -> float:
    """The metric by scikit-learn."""
    if name == "f1":
        return float(sk.f1_score(targets.numpy(), (outputs > 0).numpy()))
    if name == "rmse":
        return float(sk.root_mean_squared_error(targets.numpy(), outputs.numpy()))
    counts = targets != 255
    return float(sk.jaccard_score(targets[counts].numpy(), outputs.argmax(1)[counts].numpy(), average="macro"))


@pytest.mark.parametrize("name", KINDS)
def test_a_metric_holds_its_name_from_the_space_file_to_the_export(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    task, drop, select = KINDS[name]
    (tmp_path / "own_tasks.py").write_text(TASKS)
    space = {
        "study": name,
        "task": task,
        "constraints": {"metric_drop": drop if "%" in drop else float(drop)},
        "dense": {
            "epochs": 6,
            "batch_size": 32,
            "optimizer": {"name": "adam"},
            "lr_schedule": {"kind": "one_cycle", "lr": 0.01},
        },
        "training": {
            "epochs": 2,
            "optimizer": {"name": "adam"},
            "lr_schedule": {"kind": "constant", "lr": {"low": 0.001, "high": 0.01, "log": True}},
            "batch_size_schedule": {"kind": "constant", "size": 32},
        },
        "pruning": [{"method": "neuron", "criterion": "l2", "ratio": {"low": 0.0, "high": 0.8}}],
        "search": {"trials": 6, "stop_early": True},
    }
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space))
    study = tmp_path / "results" / name
    printed = [run_well("search", "space.yaml", "--engine", "inline", cwd=tmp_path).out]
    trials = pd.read_parquet(study / "trials.parquet")
    trial = int(pd.read_parquet(study / "front.parquet")["number"].iloc[0])
    for command in ("status", "pareto", "show", "export"):
        more = {"show": [str(trial)], "export": ["--select", select, "--format", "safetensors"]}.get(command, [])
        printed.append(run_well(command, str(study), *more, cwd=tmp_path).out)
    for text in printed:
        assert name in text
        assert "accuracy" not in text
        tables = [line for line in text.splitlines() if "x  " in line or line.startswith("trial ")]
        assert max(map(len, tables), default=0) <= 80
    finished = trials[trials["state"] == "finished"]
    assert finished[f"metric.{name}"].notna().all()
    assert finished[f"metric.{name}_se"].between(0, finished[f"metric.{name}"].abs().max()).all()
    dense = json.loads((study / "dense" / "reference.json").read_text())["dense"]
    assert dense["metric_se"] > 0
    (exported,) = study.glob("export-*")
    metrics = json.loads((exported / "manifest.json").read_text())["metrics"]
    assert metrics["metric"] == {"name": name, "direction": "minimize" if name == "rmse" else "maximize"}
    monkeypatch.syspath_prepend(tmp_path)
    import own_tasks  # type: ignore[import-not-found]

    for split, key in (("validation", name), ("test", f"{name}_test")):
        inputs, targets = getattr(own_tasks, task["data"].partition(":")[2])()[split]
        with torch.no_grad():
            outputs = autoprune.load(exported, base_dir=tmp_path).eval()(inputs)
        assert metrics[key] == pytest.approx(judged(name, outputs, targets), abs=1e-4)
