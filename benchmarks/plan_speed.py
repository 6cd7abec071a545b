"""How long a plan and a cut take, how much memory a cut needs, and how many candidates a second can be costed.

Each network has random weights and one thread, whose CPU time is measured: on an idle machine that is the time on the
wall. The plan is what ``autoprune.plan`` does, proofs and cost table included; the cut removes half of every group by
l2 and includes its proof. Both are the shortest of some runs. Memory is the largest resident set during the first cut
beyond that before it, by the Linux kernel's account, as a multiple of the network's parameters and buffers: activations
and the result are in it.

    python -m benchmarks.plan_speed                 # the zoo and BERT-base; with torchvision, its networks too
"""

import argparse
import ctypes
import importlib.util
import multiprocessing
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import autoprune
from autoprune.cost import build_table
from autoprune.pruning.planner import make_plan
from autoprune.zoo import cifar_resnet

OUT = Path("benchmarks/results/plan_speed.parquet")
N_CANDIDATES = 4096


def zoo(name: str) -> tuple[nn.Module, Any]:
    return getattr(cifar_resnet, name)(), torch.randn(2, 3, 32, 32)


def bert() -> tuple[nn.Module, Any]:
    import transformers

    tokens = torch.randint(0, 1000, (2, 32))
    model = transformers.BertModel(transformers.BertConfig())
    return model, {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def vision(name: str, size: int = 224) -> tuple[nn.Module, Any]:
    import torchvision

    return torchvision.models.get_model(name, weights=None), torch.randn(2, 3, size, size)


NETWORKS: Mapping[str, tuple[str, Callable[[], tuple[nn.Module, Any]]]] = {
    "ResNet-20 (32x32)": ("autoprune", lambda: zoo("resnet20")),
    "ResNet-110 (32x32)": ("autoprune", lambda: zoo("resnet110")),
    "BERT-base (32 tokens)": ("transformers", bert),
    "ResNet-50 (96x96)": ("torchvision", lambda: vision("resnet50", 96)),
    "ResNet-50 (224x224)": ("torchvision", lambda: vision("resnet50")),
    "DenseNet-121 (224x224)": ("torchvision", lambda: vision("densenet121")),
    "RegNet-X-8GF (224x224)": ("torchvision", lambda: vision("regnet_x_8gf")),
    "Swin-T (224x224)": ("torchvision", lambda: vision("swin_t")),
    "ViT-B/16 (224x224)": ("torchvision", lambda: vision("vit_b_16")),
}
"""Name -> the package that it needs, and its builder."""


def measure(name: str, n_runs: int) -> dict[str, Any]:
    """One row of the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, inputs = NETWORKS[name][1]()
    model.eval()
    plan_s, cut_s, memory = [], [], 0.0
    for _ in range(n_runs):
        start = time.process_time()
        plan = autoprune.plan(model, inputs)
        plan_s.append(time.process_time() - start)
    size = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    for number in range(n_runs):
        before = _reset_peak_memory() if number == 0 else 0
        start = time.process_time()
        plan.prune(0.5)
        cut_s.append(time.process_time() - start)
        memory = memory or (_memory("VmHWM") - before) / size
    return {
        "model": name,
        "params": sum(p.numel() for p in model.parameters()),
        "groups": len(plan.groups),
        "plan_s": min(plan_s),
        "prune_s": min(cut_s),
        "memory": memory,
        "candidates_per_s": candidates_per_second(model, inputs),
        "torch": torch.__version__,
    }


def candidates_per_second(model: nn.Module, inputs: Any) -> float:
    """Costs of random candidates, in batches of ``N_CANDIDATES``; the quickest of ten batches."""
    plan = make_plan(model, inputs)
    widths = plan.group_widths
    table = build_table(
        model,
        inputs,
        widths=widths,
        shrink=plan.shrink,
        products=plan.products,
        positions=plan.positions,
        blocks=plan.block_names,
    )
    dense = np.array(list(widths.values()))
    candidates = np.random.default_rng(0).integers(1, dense + 1, (N_CANDIDATES, len(dense)))
    seconds = []
    for _ in range(10):
        start = time.process_time()
        table.costs(candidates)
        seconds.append(time.process_time() - start)
    return N_CANDIDATES / min(seconds)


def _reset_peak_memory() -> int:
    ctypes.CDLL(None).malloc_trim(0)  # or the cut would find what the plan has left
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(field: str) -> int:
    """A field of the kernel's account of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def table_of(frame: pd.DataFrame) -> Table:
    table = Table(title="plan and cut on one thread", title_justify="left", box=None, pad_edge=False)
    for heading in ("network", "params", "plan, CPU s", "cut, CPU s", "extra memory", "candidates/s"):
        table.add_column(heading, justify="left" if heading == "network" else "right")
    for row in frame.to_dict("records"):
        table.add_row(
            row["model"],
            f"{row['params'] / 1e6:.1f} M",
            f"{row['plan_s']:.1f}",
            f"{row['prune_s']:.2f}",
            f"{row['memory']:.1f}x",
            f"{row['candidates_per_s']:,.0f}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="networks whose name holds this")
    parser.add_argument("--runs", type=int, default=3, help="runs of which the shortest counts")
    parser.add_argument("--out", type=Path, default=OUT, help="Parquet file; rows of other networks in it are kept")
    args = parser.parse_args()
    rows = []
    for name, (package, _) in NETWORKS.items():
        if args.only in name and importlib.util.find_spec(package):
            # A process each, so that no network finds the memory that another one left.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows.append(pool.apply(measure, (name, args.runs)))
    frame = pd.DataFrame(rows)
    if args.out.exists():
        old = pd.read_parquet(args.out)
        frame = pd.concat([old[~old["model"].isin(frame["model"])], frame])
    frame = frame.sort_values("model", key=lambda names: names.map(list(NETWORKS).index), ignore_index=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(args.out, index=False)
    Console(soft_wrap=True, highlight=False).print(table_of(frame))


if __name__ == "__main__":
    main()
