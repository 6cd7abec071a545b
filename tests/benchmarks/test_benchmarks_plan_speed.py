"""The speed benchmark runs, and README says what its committed rows say."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks import plan_speed

ROOT = Path(__file__).parents[2]


def test_a_small_network_is_measured() -> None:
    n_threads = torch.get_num_threads()
    try:
        row = plan_speed.measure("ResNet-20 (32x32)", n_runs=1)
    finally:
        torch.set_num_threads(n_threads)
    assert row["params"] == 269_722
    assert row["groups"] > 0
    assert min(row["plan_s"], row["prune_s"], row["memory"]) > 0
    assert row["candidates_per_s"] > 0


@pytest.mark.benchmarks
def test_the_committed_rows() -> None:
    rows = pd.read_parquet(ROOT / plan_speed.OUT).set_index("model")
    assert list(rows.index) == list(plan_speed.NETWORKS)
    assert (rows["candidates_per_s"] > 100_000).all()
    resnet, bert = (rows.loc[name] for name in ("ResNet-50 (224x224)", "BERT-base (32 tokens)"))
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"takes {resnet.plan_s:.1f} s of CPU time for ResNet-50" in readme
    assert f"and {bert.plan_s:.1f} s for BERT-base" in readme
    assert f"proof included, {resnet.prune_s:.2f} s and {bert.prune_s:.2f} s" in readme
    assert f"with {resnet.memory:.1f} and {bert.memory:.1f} times the network's size" in readme
