"""A folder of images, opened by relative paths one by one, gives the same study in this process and on Ray."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

TASK = '''
"""Stripes along one of two axes, or neither."""

import os
import random

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset


class Folder(Dataset):
    def __init__(self, root, augments=False):
        names = sorted(os.listdir(root))
        self.files = [(f"{root}/{name}", int(name[0])) for name in names]
        self.augments = augments

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        path, target = self.files[index]
        image = torch.from_numpy(np.array(Image.open(path), dtype=np.float32) / 255 - 0.5)[None]
        return (image.flip(-1) if self.augments and random.random() < 0.5 else image), target


def data():
    return {name: Folder(f"images/{name}", augments=name == "train") for name in ("train", "validation", "test")}


def net():
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(16, 3),
    )


def data_of_this_machine():
    with open("/proc/self/cmdline") as file:
        if "ray" in file.read().lower():
            raise FileNotFoundError("no folder images on this node")
    return data()
'''

SPACE = """
study: stripes
task: {model: "stripes:net", data: "stripes:data"}
objectives: [accuracy, flops]
dense: {epochs: 6, batch_size: 30}
training:
  epochs: 3
  lr_schedule: {kind: constant, lr: 0.02}
  batch_size_schedule: {kind: constant, size: 30}
pruning:
  - {method: neuron, criterion: l2, ratio: {low: 0.0, high: 0.8}}
search: {trials: 4, sampler: random, start: dense, ladder: 0}
resources: {workers: 2}
"""

N_EXAMPLES = {"train": 240, "validation": 90, "test": 90}


def write_project(root: Path) -> None:
    rng = np.random.default_rng(0)
    for split, n_examples in N_EXAMPLES.items():
        folder = root / "images" / split
        folder.mkdir(parents=True)
        for index in range(n_examples):
            kind = index % 3
            pixels = rng.normal(128, 40, (12, 12))
            stripes = 60 * np.sin(np.arange(12) * 2 + rng.uniform(0, 6))
            pixels += (stripes[:, None], stripes[None, :], 0)[kind]
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{kind}-{index:03d}.png")
    (root / "stripes.py").write_text(TASK)
    (root / "space.yaml").write_text(SPACE)


def search(space: str, engine: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Search in a process of its own, as Ray wants it."""
    command = [sys.executable, "-m", "autoprune", "search", space, "--engine", engine]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_the_same_study_in_this_process_and_on_ray(tmp_path: Path) -> None:
    studies = {}
    for engine in ("inline", "ray"):
        write_project(tmp_path / engine / "project")
        ran = search("project/space.yaml", engine, tmp_path / engine)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        studies[engine] = tmp_path / engine / "results" / "stripes"
    inline, ray = studies.values()
    splits = [json.loads((study / "data.json").read_text())["splits"] for study in (inline, ray)]
    for name, n_examples in N_EXAMPLES.items():
        assert splits[0][name]["n_examples"] == splits[1][name]["n_examples"] == n_examples
        assert splits[0][name]["augments"] == (name == "train")
    trials = [pd.read_parquet(study / "trials.parquet").set_index("number").sort_index() for study in (inline, ray)]
    assert trials[0]["flops"].tolist() == trials[1]["flops"].tolist()
    worst = (trials[0]["metric.accuracy"] - trials[1]["metric.accuracy"]).abs().max()
    assert worst <= 4 * math.sqrt(0.25 / N_EXAMPLES["validation"]), trials
    for study in studies.values():
        front = pd.read_parquet(study / "front.parquet")
        assert front["metric.accuracy"].max() > 0.6


@pytest.mark.slow
def test_what_fails_in_a_worker_alone_ends_the_search_before_the_dense_training(tmp_path: Path) -> None:
    write_project(tmp_path)
    space = tmp_path / "space.yaml"
    space.write_text(SPACE.replace("stripes:data", "stripes:data_of_this_machine"))
    ran = search("space.yaml", "ray", tmp_path)
    assert ran.returncode == 2
    assert "space.yaml:3: task.data: data_of_this_machine raised FileNotFoundError: no folder images" in ran.stderr
    assert not (tmp_path / "results" / "stripes" / "epochs.jsonl").exists()
