"""What the settings of training bring on a device: speed, time of the first epoch, memory, accuracy after retraining.

Four networks are trained on random examples by the project's own loop, the first epoch apart: in it libraries choose
their kernels, and networks are compiled. ``tf32`` is torch's own setting for products of float32 matrices, not one of
ours. On a CPU seconds are the process's own, on one thread. Then, where AUTOPRUNE_DATA names a folder with
cifar10_train.parquet, cifar10_test.parquet and cifar10_resnet20.safetensors, a ResNet-20 is cut to half its MACs and
retrained on 10,000 images. Rows of other devices stay in the file.

    python -m benchmarks.training_settings
"""

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import autoprune
from autoprune.datasets import parquet_images, random_crop_flip
from autoprune.tasks.classification import accuracy, cross_entropy
from autoprune.tasks.splits import TensorSplit
from autoprune.tasks.task import Data, Task
from autoprune.tasks.weights import load_weights
from autoprune.training.evaluation import evaluate
from autoprune.training.loop import Trainer
from autoprune.training.precision import Precision
from autoprune.trial import OptimizerConfig, ScheduleConfig
from autoprune.zoo import cnn6, resnet20
from benchmarks.markdown import markdown_table

OUT = Path("benchmarks/results/training_settings.parquet")
COLUMNS = [
    *("network", "setting", "seed", "examples_per_s", "slowest_per_s", "first_epoch_s", "evaluation_s", "peak_mib"),
    *("accuracy", "device", "torch"),
]
IN_README = ("NVIDIA H100", "Intel(R) Xeon(R) Processor (amx_bf16")
"""How the names of the two devices begin that README has."""

README_HEADINGS = (
    "",
    "H100: ResNet-20, 128 of 32x32 a step",
    "ResNet-50, 64 of 224x224",
    "BERT-base, 32 of 128 tokens",
    "one CPU core: six convolutions, 64 of 28x28",
    "ResNet-20",
    "accuracy, H100",
    "CPU",
)

N_TRAIN = 10_000
"""Images of the retraining."""

SETTINGS = {
    "float32": Precision(),
    "float32, tf32 products": Precision(),
    "float32, channels last": Precision(channels_last=True),
    "bf16": Precision("bf16"),
    "bf16, channels last": Precision("bf16", channels_last=True),
    "bf16, channels last, compiled": Precision("bf16", channels_last=True, compile=True),
    "fp16": Precision("fp16"),
    "fp16, channels last": Precision("fp16", channels_last=True),
}


@dataclass(frozen=True)
class Network:
    """A network and the shape of what it is trained on.

    Attributes:
        inputs: Makes a batch of random inputs of so many examples.
        batch: Examples of a step.
        steps: Of an epoch.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[int], torch.Tensor]
    batch: int
    steps: int
    augment: Callable[..., Any] | None = None


def _resnet50() -> nn.Module:
    import torchvision

    network: nn.Module = torchvision.models.resnet50()
    return network


def _bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(num_labels=10))


NETWORKS = {
    "six convolutions, 28x28": Network(cnn6, lambda n: torch.randn(n, 1, 28, 28), 64, 90),
    "ResNet-20, 32x32": Network(resnet20, lambda n: torch.randn(n, 3, 32, 32), 128, 40, random_crop_flip),
    "ResNet-50, 224x224": Network(_resnet50, lambda n: torch.randn(n, 3, 224, 224), 64, 8),
    "BERT base, 128 tokens": Network(_bert, lambda n: torch.randint(1000, 30000, (n, 128)), 32, 12),
}


@contextmanager
def _tf32(enabled: bool) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if enabled else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def speeds(name: str, network: Network, setting: str, device: torch.device, n_epochs: int) -> dict[str, Any]:
    """A row: a network under a setting."""
    torch.manual_seed(0)
    n_examples = network.batch * network.steps
    examples = TensorSplit(network.inputs(n_examples), torch.randint(0, 10, (n_examples,)))
    task = Task(network.build, Data(examples, examples, examples), cross_entropy, accuracy, network.augment)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with _tf32("tf32" in setting):
        trainer = _trainer(task, task.build_model(), 1e-3, network.batch, n_epochs + 1, 0, SETTINGS[setting], device)
        first, *rest = (_seconds(trainer.run_epoch, device) for _ in range(n_epochs + 1))
        judged = _seconds(
            lambda: evaluate(trainer.model, task.data.validation, task, device, precision=SETTINGS[setting]), device
        )
    SETTINGS[setting].release_compiled()
    return {
        "network": name,
        "setting": setting,
        "examples_per_s": n_examples / median(rest),
        "slowest_per_s": n_examples / max(rest),
        "first_epoch_s": first,
        "evaluation_s": judged,
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None,
    }


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that it takes; on a CPU those of this process alone, whatever runs beside it."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    work()
    return clock() - start


def _trainer(
    task: Task, model: nn.Module, lr: float, batch: int, epochs: int, seed: int, precision: Precision, device: Any
) -> Trainer:
    return Trainer(
        model,
        task,
        optimizer=OptimizerConfig("sgd", {"momentum": 0.9, "weight_decay": 1e-4}),
        lr_schedule=ScheduleConfig("cosine", {"lr": lr, "warmup": 0.0}),
        batch_size_schedule=ScheduleConfig("constant", {"size": batch}),
        epochs=epochs,
        seed=seed,
        device=device,
        precision=precision,
    )


def accuracies(
    folder: Path, settings: Sequence[str], device: torch.device, seeds: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """A row a setting and seed: a ResNet-20 with half its MACs, retrained for three epochs."""
    data = parquet_images(
        train=folder / "cifar10_train.parquet",
        test=folder / "cifar10_test.parquet",
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
        validation=5000,
        validation_from="test",
        limit_train=N_TRAIN,
    )
    task = Task(lambda: resnet20(num_classes=10), data, cross_entropy, accuracy, random_crop_flip)
    dense = task.build_model()
    load_weights(dense, folder / "cifar10_resnet20.safetensors")
    plan = autoprune.plan(dense.eval(), task.example_inputs(2))
    for setting in settings:
        precision = SETTINGS[setting]
        for seed in seeds:
            with _tf32("tf32" in setting):
                model = plan.prune(widths=plan.widths_at(flops=0.5), criterion="l2")
                trainer = _trainer(task, model, 0.02, 128, 3, seed, precision, device)
                times = [_seconds(trainer.run_epoch, device) for _ in range(3)]
                found = evaluate(trainer.model, data.validation, task, device, precision=precision).metric
            precision.release_compiled()
            yield {
                "network": "ResNet-20 at 0.5x",
                "setting": setting,
                "seed": seed,
                "accuracy": found,
                "first_epoch_s": times[0],
                "examples_per_s": N_TRAIN / median(times[1:]),
            }


def table(rows: pd.DataFrame) -> Table:
    """A line for a network and setting."""
    found = Table(
        title=str(rows["device"].iloc[0]), title_justify="left", box=None, pad_edge=False, header_style="bold"
    )
    for heading in ("network", "setting", "examples/s", "x", "first epoch, s", "peak, MiB", "accuracy"):
        found.add_column(heading, justify="left" if heading in ("network", "setting") else "right")
    for network, part in rows.groupby("network", sort=False):
        plain = part.loc[part["setting"] == "float32", "examples_per_s"].median()
        for setting, rest in part.groupby("setting", sort=False):
            speed, accuracies = rest["examples_per_s"].median(), rest["accuracy"].dropna().tolist()
            spread = f" ±{stdev(accuracies):.4f}" if len(accuracies) > 1 else ""
            found.add_row(
                str(network),
                str(setting),
                _told(speed, ",.0f"),
                _told(speed / plain, ".2f"),
                _told(rest["first_epoch_s"].median(), ".2f"),
                _told(rest["peak_mib"].max(), ",.0f"),
                f"{mean(accuracies):.4f}{spread}" if accuracies else "",
            )
    return found


def readme_table(rows: pd.DataFrame) -> list[str]:
    """Return README's table: a row a setting, examples a second as a share of float32's, and accuracies."""
    gpu, cpu = (rows["device"].str.startswith(name) for name in IN_README)
    columns = [(gpu, name) for name in list(NETWORKS)[1:]] + [(cpu, name) for name in list(NETWORKS)[:2]]
    lines = []
    for setting in SETTINGS:
        cells = [setting]
        for there, network in columns:
            speed = rows[there & (rows["network"] == network)].set_index("setting")["examples_per_s"]
            cells.append(_told(speed.get(setting, math.nan) / speed["float32"], ".2f"))
        for there in (gpu, cpu):
            found = rows.loc[there & (rows["setting"] == setting), "accuracy"].dropna()
            cells.append(f"{found.mean():.3f} ± {found.std():.3f}" if len(found) else "")
        lines.append(cells)
    return markdown_table(README_HEADINGS, lines)


def _told(value: float, form: str) -> str:
    return "" if pd.isna(value) else format(value, form)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"), help="cuda or cpu")
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--epochs", type=int, default=5, help="after the first one")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4], help="of the retraining")
    parser.add_argument("--table", action="store_true", help="only print what the file holds")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = pd.read_parquet(args.out) if args.out.exists() else pd.DataFrame(columns=COLUMNS)
    if not args.table:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        for row in _measured(args):
            key = [name for name in ("network", "setting", "seed", "device") if row.get(name) is not None]
            rows = rows[(rows[key] != pd.Series(row)[key]).any(axis=1)]
            rows = pd.DataFrame([*rows.to_dict("records"), row], columns=COLUMNS)
            rows.to_parquet(args.out, index=False)
            print(row, flush=True)
    for _, part in rows.groupby("device", sort=False):
        Console(width=120).print(table(part))


def _measured(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    name = torch.cuda.get_device_name() if args.device.type == "cuda" else _processor()
    where = {"device": name, "torch": torch.__version__}
    for network in args.networks:
        for setting in args.settings:
            yield speeds(network, NETWORKS[network], setting, args.device, args.epochs) | where
    if "AUTOPRUNE_DATA" in os.environ:
        for row in accuracies(Path(os.environ["AUTOPRUNE_DATA"]), args.settings, args.device, args.seeds):
            yield row | where


def _processor() -> str:
    """The CPU's name, with what it has for products of bf16 matrices, and torch's threads."""
    info = Path("/proc/cpuinfo").read_text()
    name = next(line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name"))
    bf16 = [flag for flag in ("amx_bf16", "avx512_bf16") if f" {flag} " in info]
    return f"{name} ({', '.join(bf16) or 'no bf16'}), {torch.get_num_threads()} thread(s)"


if __name__ == "__main__":
    main()
