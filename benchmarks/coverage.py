"""What of many networks can be pruned, and whether what is pruned is right, side by side with Torch-Pruning alone.

Each network is planned, cut at ratios 0.1, 0.5 and 0.9 with random channels, run forward and backward, and compared
with the dense network whose lost elements are zero. At 0.5 that is done once more without half of the blocks; there the
dense network's blocks are bypassed by hooks. Torch-Pruning 1.6.1 gets the same network, a uniform ratio, its own
defaults and a minute of CPU time; its result is run, not compared.

    python -m benchmarks.coverage                           # hand-written networks and transformers
    python -m benchmarks.coverage --family torchvision      # in an environment with torchvision
"""

import argparse
import copy
import signal
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from autoprune.cost import count_macs
from autoprune.errors import PruningError
from autoprune.network.call import call_model
from autoprune.pruning.blocks.removed import remove_blocks
from autoprune.pruning.graph import Analysis, from_plain
from autoprune.pruning.graph.slice import remove_channels
from autoprune.pruning.kept_indices import masked_copy
from autoprune.pruning.plan import Block
from autoprune.pruning.planner import make_plan
from autoprune.pruning.proof import Bench, bench, randomised, run, tensors_in
from benchmarks import coverage_networks
from benchmarks.markdown import markdown_table

RATIOS = (0.1, 0.5, 0.9)
FAMILIES: Mapping[str, Callable[[], Any]] = {
    "hand-written": coverage_networks.hand_written,
    "transformers": coverage_networks.transformers_models,
    "torchvision": coverage_networks.torchvision_models,
}

IN_README = {
    "hand-written": "hand-written (shuffle, gates, shared and tied weights, U-Net, LSTM, attention)",
    "transformers": "transformers, small (BERT to Whisper's encoder, Llama to Falcon, eager and sdpa)",
    "torchvision": "torchvision's classifiers (`--family torchvision`), all of them",
}
"""Family -> its name in README."""


def rows_of(family: str, name: str, build: Callable[[], tuple[nn.Module, Any]], rival: bool) -> list[dict[str, Any]]:
    """One row a ratio."""
    torch.manual_seed(0)
    model, inputs = build()
    model = randomised(model.eval(), seed=0)
    row: dict[str, Any] = {"family": family, "model": name, "params": n_params(model)}
    start = time.perf_counter()
    plan = make_plan(model, inputs)
    row |= {
        "plan_s": time.perf_counter() - start,
        "groups": len(plan.groups),
        "blocks": len(plan.blocks),
        "left_out": [f"{item.module}: {item.reason}" for item in plan.left_out],
        "macs": count_macs(model, inputs),
    }
    analysis = from_plain(plan.graph)
    stand = bench(model, inputs)
    rows = []
    for ratio in RATIOS:
        removed = plan.blocks[::2] if ratio == 0.5 else ()
        generator = torch.Generator().manual_seed(1)
        kept = {g.name: max(1, round(g.width * (1 - ratio) / g.multiple)) * g.multiple for g in analysis.groups}
        lost = {g.name: torch.randperm(g.width, generator=generator)[kept[g.name] :].tolist() for g in analysis.groups}
        found = {"ratio": ratio} | tried(stand, analysis, lost, ())
        if removed:
            without = tried(stand, analysis, lost, removed)
            found |= {"blocks_removed": len(removed)} | {f"blocks_{name}": value for name, value in without.items()}
        rows.append(row | found | (torch_pruning(model, inputs, ratio) if rival else {}))
    return rows


def tried(
    stand: Bench, analysis: Analysis, lost: Mapping[str, Sequence[int]], removed: Sequence[Block]
) -> dict[str, Any]:
    """Cut a network, run it forward and backward, and compare it with the masked one."""
    pruned = copy.deepcopy(stand.model)
    remove_blocks(pruned, removed)
    start = time.perf_counter()
    found: dict[str, Any] = {}
    try:
        kept_indices = remove_channels(pruned, analysis, lost)
        found["cut_s"] = time.perf_counter() - start
        outputs = run(pruned, stand.inputs)
        torch.stack([o.square().mean() for o in outputs if o.requires_grad]).sum().backward()  # type: ignore[no-untyped-call]
        reference = masked_copy(stand.model, kept_indices)
        for block in removed:
            reference.get_submodule(block.name).register_forward_hook(bypass, with_kwargs=True)
        with torch.no_grad():
            expected = run(reference, stand.inputs)
        scale = max(1.0, *(float(tensor.abs().max()) for tensor in expected))
        apart = max(float((a.detach() - b).abs().max()) for a, b in zip(outputs, expected, strict=True)) / scale
        found |= {"params_after": n_params(pruned), "macs_after": count_macs(pruned, stand.inputs)}
        found |= {"difference": apart, "verdict": "ok" if apart <= stand.tolerance else "WRONG"}
    except (PruningError, RuntimeError, ValueError) as error:
        found["verdict"] = f"{type(error).__name__}: {error}"
    return found


def bypass(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """Put a block's input in the place of the first tensor that it returns."""
    stream = next(value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
    if isinstance(output, torch.Tensor):
        return stream
    place = next(place for place, leaf in enumerate(output) if isinstance(leaf, torch.Tensor))
    return (*output[:place], stream, *output[place + 1 :])


def torch_pruning(model: nn.Module, inputs: Any, ratio: float) -> dict[str, Any]:
    """What Torch-Pruning makes of the same network, on its own."""
    import torch_pruning as tp

    pruned = copy.deepcopy(model)
    signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, 60)  # CPU time, or a busy machine would count against it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            last = [m for m in pruned.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
            tp.pruner.BasePruner(
                pruned,
                inputs,
                importance=tp.importance.MagnitudeImportance(p=2),
                pruning_ratio=ratio,
                ignored_layers=[last],
                forward_fn=call_model,
                output_transform=lambda outputs: [t for t in tensors_in(outputs) if t.is_floating_point()],
            ).step()
        run(pruned, inputs)
        return {"rival_params_after": n_params(pruned), "rival_verdict": "runs"}
    except Exception as error:
        return {"rival_verdict": f"{type(error).__name__}: {str(error)[:80]}"}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _too_long(*_: Any) -> None:
    raise TimeoutError("took more than a minute of CPU time")


def n_params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def figures_of(rows: pd.DataFrame) -> dict[str, str]:
    """A family's figures: how many networks are right at every ratio, how many parameters are left, and of those that
    have blocks how many are right without half of them.
    """
    left = [(part["params_after"] / part["params"]).median() for _, part in rows.groupby("ratio")]
    right = rows.groupby("model")["verdict"].agg(lambda verdicts: (verdicts == "ok").all()).sum()
    without = rows[rows["blocks_removed"] > 0] if "blocks_removed" in rows else rows[:0]
    rival = "-"
    if "rival_verdict" in rows and rows["rival_verdict"].notna().any():
        rival = str(rows.groupby("model")["rival_verdict"].agg(lambda verdicts: (verdicts == "runs").all()).sum())
    return {
        "networks": str(rows["model"].nunique()),
        "right": str(right),
        "left": " / ".join(f"{share:.0%}" for share in left),
        "blocks": f"{(without['blocks_verdict'] == 'ok').sum()} of {len(without)}" if len(without) else "-",
        "rival": rival,
    }


def summary(frame: pd.DataFrame) -> Table:
    """A row a family."""
    table = Table(title="coverage", title_justify="left", box=None, pad_edge=False, header_style="bold")
    left_at = "params left at 0.1 / 0.5 / 0.9, median"
    for heading in ("family", "networks", "right", left_at, "without half of the blocks", "Torch-Pruning runs"):
        table.add_column(heading, justify="left" if heading == "family" else "right")
    for family, rows in frame.groupby("family", sort=False):
        figures = figures_of(rows)
        if figures["rival"] != "-":
            figures["rival"] += f" of {figures['networks']}"
        table.add_row(str(family), *figures.values())
    return table


def readme_table(rows: pd.DataFrame) -> list[str]:
    """Return README's table: a row a family."""
    headings = (
        "family",
        "networks",
        "right",
        "parameters left at 0.1 / 0.5 / 0.9, median",
        "right without blocks",
        "Torch-Pruning alone runs at all three",
    )
    return markdown_table(
        headings,
        [[IN_README[family], *figures_of(part).values()] for family, part in rows.groupby("family", sort=False)],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", nargs="+", choices=FAMILIES, default=["hand-written", "transformers"])
    parser.add_argument("--only", default="", help="networks whose name holds this")
    parser.add_argument("--out", type=Path, help="Parquet file to write; rows of other networks in it are kept")
    parser.add_argument("--resume", action="store_true", help="leave out the networks that --out has rows of")
    parser.add_argument("--no-rival", action="store_true", help="leave Torch-Pruning out")
    args = parser.parse_args()
    done = set(pd.read_parquet(args.out)["model"]) if args.resume and args.out and args.out.exists() else set()
    torch.set_num_threads(1)
    console = Console(soft_wrap=True, highlight=False)
    rows: list[dict[str, Any]] = []
    for family in args.family:
        for name, build in FAMILIES[family]():
            if args.only not in name or name in done:
                continue
            try:
                found = rows_of(family, name, build, not args.no_rival)
            except (PruningError, RuntimeError) as error:
                found = [{"family": family, "model": name, "verdict": f"{type(error).__name__}: {error}"}]
            for row in found:
                share = f"{row['params_after'] / row['params']:6.1%}" if "params_after" in row else "     -"
                console.print(
                    f"{name:30.30} {row.get('ratio', ''):4} groups {row.get('groups', 0):3} left out "
                    f"{len(row.get('left_out', [])):3} params {share} off by {row.get('difference', float('nan')):.0e} "
                    f"{row['verdict']:.60} | without {row.get('blocks_removed', 0)} of {row.get('blocks', 0)} blocks: "
                    f"{row.get('blocks_verdict', '-'):.60} | Torch-Pruning: {row.get('rival_verdict', '-'):.40}"
                )
            rows += found
            if args.out:
                _write(args.out, pd.DataFrame(rows))
    frame = pd.read_parquet(args.out) if args.out else pd.DataFrame(rows)
    console.print(summary(frame))


def _write(path: Path, frame: pd.DataFrame) -> None:
    if path.exists():
        old = pd.read_parquet(path)
        done = frame[["family", "model"]].apply(tuple, axis=1)
        frame = pd.concat([old[~old[["family", "model"]].apply(tuple, axis=1).isin(done)], frame], ignore_index=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False)


if __name__ == "__main__":
    main()
