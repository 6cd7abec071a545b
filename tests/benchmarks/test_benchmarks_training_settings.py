"""What the settings of training bring: a row is measured."""

import pandas as pd
import torch

from autoprune.zoo import cnn6
from benchmarks import training_settings as benchmark


def test_a_row_is_measured_for_a_network_and_setting() -> None:
    small = benchmark.Network(cnn6, lambda n: torch.randn(n, 1, 28, 28), batch=4, steps=2)
    row = benchmark.speeds("small", small, "float32, tf32 products", torch.device("cpu"), 2)
    assert torch.get_float32_matmul_precision() == "highest"
    assert row["examples_per_s"] >= row["slowest_per_s"] > 0
    assert row["first_epoch_s"] > 0
    assert row["peak_mib"] is None
    printed = benchmark.table(pd.DataFrame([row | {"device": "CPU"}]).reindex(columns=benchmark.COLUMNS))
    assert printed.row_count == 1
