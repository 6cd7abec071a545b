"""ModelOpt's FastNAS on one prepared study: the widths it chooses for every budget, written as JSON (null: none fits).

Run by ``methods/fastnas.py`` in an environment of its own, for nvidia-modelopt fixes versions of what it needs:

    python -m venv fastnas && fastnas/bin/pip install torch nvidia-modelopt 'torchprofile==0.0.4' requests \
        huggingface_hub pydantic pyyaml safetensors pandas pyarrow scikit-learn
"""

import argparse
import copy
import json
import tempfile
from collections import OrderedDict
from pathlib import Path

import modelopt.torch.prune as mtp
import torch
from torch import nn

from autoprune.config import load_config
from autoprune.formats.saved_model import load_model
from autoprune.study.folder import StudyFolder
from autoprune.tasks.build import build_task
from autoprune.tasks.splits import SubsetSplit
from autoprune.training.evaluation import evaluate
from autoprune.zoo.plain_cnn import PlainCNN

N_BATCHES, BATCH = 50, 10
"""Batches of training examples that ModelOpt keeps to recalibrate batch norm before every score, and their size."""

N_SCORE = 500
"""Validation examples that a candidate is scored on."""

RATIOS = tuple(step / 10 for step in range(1, 11))
"""Shares of its channels that a layer may keep; ModelOpt's own steps of 0.05 would take twice the scores."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--groups", nargs="+", required=True)
    parser.add_argument("--shares", nargs="+", type=float, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = StudyFolder(args.study)
    task = build_task(load_config(folder.space).task, folder.base_dir)
    dense = load_model(folder.dense, task.build_model)
    first = SubsetSplit(task.data.validation, torch.arange(min(N_SCORE, len(task.data.validation))))
    calibration = torch.randperm(len(task.data.train))[: N_BATCHES * BATCH].split(BATCH)
    batches = [task.data.train.batch(part)[0] for part in calibration]
    n_scores = 0

    def score(model: nn.Module) -> float:
        nonlocal n_scores
        n_scores += 1
        return evaluate(model, first, task).metric

    skipped = {
        name: None
        for name, module in dense.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and name not in args.groups
    }
    convolution = {"channels_ratio": RATIOS, "kernel_size": (), "channel_divisor": 1}
    features = {"features_ratio": RATIOS, "feature_divisor": 1}
    rules = {
        "nn.Conv2d": {"*": convolution, **skipped},
        "nn.Linear": {"*": features, **skipped},
        "nn.BatchNorm2d": features,
    }
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for share in args.shares:
            try:
                model, _ = mtp.prune(
                    traceable(dense),
                    mode=[("fastnas", rules)],
                    constraints={"flops": f"{100 * share:.4f}%"},
                    dummy_input=task.example_inputs(),
                    config={
                        "score_func": score,
                        "data_loader": batches,
                        "collect_func": lambda batch: batch,
                        "checkpoint": str(Path(scratch) / "search.pt"),
                    },
                )
            except ValueError as error:
                if "NOT all constraints can be satisfied" not in str(error):
                    raise
                found.append(None)
            else:
                found.append({group: model.get_submodule(group).weight.shape[0] for group in args.groups})
    n_read = n_scores * (len(first) + N_BATCHES * BATCH)
    args.out.write_text(json.dumps({"widths": found, "n_scores": n_scores, "n_examples": n_read}))


def traceable(model: nn.Module) -> nn.Module:
    """A copy whose pooling before the head is a module: ModelOpt does not follow channels through ``Tensor.mean``."""
    model = copy.deepcopy(model)
    if not isinstance(model, PlainCNN):
        return model
    layers = OrderedDict(model.named_children())
    head = layers.pop("head")
    return nn.Sequential(layers | {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "head": head})


if __name__ == "__main__":
    main()
