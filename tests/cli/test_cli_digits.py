"""The main promise, end to end: the shipped digits study, its front, and a network exported from it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch

from autoprune.datasets import digits

SPACE = Path(__file__).parents[2] / "search_spaces" / "digits.yaml"


def autoprune_command(*arguments: object, cwd: Path) -> str:
    command = [sys.executable, "-m", "autoprune", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_forty_trials_of_digits(tmp_path: Path) -> None:
    autoprune_command("search", SPACE, cwd=tmp_path)
    study = tmp_path / "results" / "digits"
    front = pd.read_parquet(study / "front.parquet")
    dense = json.loads((study / "dense" / "reference.json").read_text())["dense"]
    assert (pd.read_parquet(study / "trials.parquet")["state"] == "finished").sum() == 40
    assert len(front) >= 5
    half = front[(front["flops"] <= 0.5 * dense["flops"]) & (front["metric.accuracy"] >= dense["metric"] - 0.02)]
    assert len(half) >= 1
    autoprune_command("export", study, "--select", "flops<=0.5x", "--out", "shipped", cwd=tmp_path)
    stated = json.loads((tmp_path / "shipped" / "manifest.json").read_text())["metrics"]["accuracy"]
    validation = digits().validation
    inputs, targets = validation.batch(torch.arange(len(validation)))
    session = onnxruntime.InferenceSession(tmp_path / "shipped" / "model.onnx")
    logits = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0]
    assert np.mean(logits.argmax(axis=1) == targets.numpy()) == pytest.approx(stated)
