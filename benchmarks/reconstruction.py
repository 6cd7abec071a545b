"""What a cut does to a network's outputs before any training, with and without reconstruction.

Networks with random weights lose 40% of every group; the error is the norm of the outputs' change over that of the
outputs, on inputs that the fit has not seen. Then, where AUTOPRUNE_DATA names a folder with cifar10_train.parquet,
cifar10_test.parquet and cifar10_resnet20.safetensors, the accuracy of a trained ResNet-20 on 2,000 test images: by l2
over all groups it is decided how many channels each keeps for a share of the MACs to be left, 512 training images are
looked at, and batch norm is recalibrated.

    python -m benchmarks.reconstruction
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils._pytree import tree_map_only

import autoprune
from autoprune.errors import PruningError
from autoprune.formats.saved_model import load_model
from autoprune.pruning.proof import randomised, run, tensors_in
from autoprune.search.prepare import reopen_study
from autoprune.tasks.task import Task
from autoprune.training.batch_norm import recalibrate_batch_norm
from autoprune.training.evaluation import evaluate
from benchmarks.coverage import FAMILIES
from benchmarks.markdown import markdown_table, short
from benchmarks.search_quality.settings import SETTINGS, prepared

OUT = Path("benchmarks/results/reconstruction.parquet")
WAYS = {f"{name}{', reconstructed' if fit else ''}": (name, fit) for name in ("l2", "obs") for fit in (False, True)}
"""What is compared -> criterion, and whether the layers behind are fitted."""

RATIO, N_BATCHES, SHARES = 0.4, 16, (0.8, 0.65, 0.5, 0.35, 0.2)


def output_errors(family: str) -> Iterator[dict[str, Any]]:
    """A row a network of a family."""
    for name, build in FAMILIES[family]():
        torch.manual_seed(0)
        model, inputs = build()
        model = randomised(model.eval(), seed=0)
        try:
            plan = autoprune.plan(model, inputs)
        except PruningError:
            continue
        data = [(_alike(inputs, seed), torch.zeros(1)) for seed in range(N_BATCHES)]
        row: dict[str, Any] = {"family": family, "model": name}
        for way, (criterion, fit) in WAYS.items():
            pruned = plan.prune(RATIO, criterion, data, reconstruct=fit).eval()
            row[way] = _change(model, pruned, _alike(inputs, N_BATCHES))
        yield row


def _alike(inputs: Any, seed: int) -> Any:
    """Other inputs of the same kind: normal values, or the tokens in another order."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_floating_point():
            return torch.randn(tensor.shape, generator=generator)
        return tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].view(tensor.shape)

    return tree_map_only(torch.Tensor, drawn, inputs)


def _change(model: nn.Module, pruned: nn.Module, inputs: Any) -> float:
    with torch.no_grad():
        before, after = (tensors_in(run(network, inputs)) for network in (model, pruned))
    apart = sum(float((a - b).square().sum()) for a, b in zip(before, after, strict=True) if a.is_floating_point())
    return (apart / sum(float(a.square().sum()) for a in before if a.is_floating_point())) ** 0.5


def accuracies(work: Path) -> Iterator[dict[str, Any]]:
    """A row a share of the ResNet-20's MACs."""
    folder = prepared(SETTINGS["cifar10_resnet20"], 0, work)
    task = reopen_study(folder).task
    model = load_model(folder.dense, task.build_model).eval()
    plan = autoprune.plan(model, task.example_inputs(2))
    order = torch.randperm(len(task.data.train), generator=torch.Generator().manual_seed(0))[:512]
    data = [task.data.train.batch(part) for part in order.split(128)]
    yield {"family": "ResNet-20", "share": 1.0} | dict.fromkeys(WAYS, _accuracy(model, task))
    for share in SHARES:
        row: dict[str, Any] = {"family": "ResNet-20", "share": share}
        widths = plan.widths_at(flops=share)
        for way, (criterion, fit) in WAYS.items():
            row[way] = _accuracy(plan.prune(widths=widths, criterion=criterion, data=data, reconstruct=fit), task)
        yield row


def _accuracy(model: nn.Module, task: Task) -> float:
    recalibrate_batch_norm(model, task.data.train, torch.device("cpu"), n_examples=1024, seed=0)
    return evaluate(model, task.data.validation, task, "cpu").metric


def table(rows: pd.DataFrame) -> Table:
    """Medians of the errors, a row a family, then the accuracies."""
    found = Table(title="reconstruction", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading in ("", "networks", *WAYS):
        found.add_column(heading, justify="right" if heading else "left")
    for family, part in rows.groupby("family", sort=False):
        if part["model"].notna().all():
            medians = [f"{part[way].median():.3f}" for way in WAYS]
            found.add_row(f"{family}: change of the outputs, median", str(len(part)), *medians)
        else:
            for row in part.to_dict("records"):
                found.add_row(f"{family} at {row['share']:g}x: accuracy", "", *(f"{row[way]:.3f}" for way in WAYS))
    return found


def readme_table(rows: pd.DataFrame) -> list[str]:
    """Return README's table: the medians of the errors, then the accuracies; the lowest share is left out."""
    lines = []
    for (family, part), what in zip(
        rows[rows["model"].notna()].groupby("family", sort=False),
        ("change of the outputs on unseen inputs, median of {} {} networks", "of {} {}"),
        strict=True,
    ):
        lines.append([what.format(len(part), family), *(short(part[way].median()) for way in WAYS)])
    accuracies = rows[rows["share"].notna()].set_index("share")
    dense = short(accuracies.loc[1.0, "l2"])
    for number, share in enumerate(SHARES[:-1]):
        what = f"at {share:g}x" if number else f"ResNet-20 ({dense} dense), accuracy at {share:g}x"
        lines.append([what, *(short(accuracies.loc[share, way]) for way in WAYS)])
    return markdown_table(["", *WAYS], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", nargs="+", choices=FAMILIES, default=["hand-written", "transformers"])
    parser.add_argument("--work", type=Path, default=Path("results/search_quality"), help="keeps the ResNet-20")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for family in args.family for row in output_errors(family)]
    if os.environ.get("AUTOPRUNE_DATA"):
        rows += accuracies(args.work)
    frame = pd.DataFrame(rows)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(args.out, index=False)
    Console(width=140).print(table(frame))


if __name__ == "__main__":
    main()
