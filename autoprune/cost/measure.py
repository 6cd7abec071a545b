"""What a network costs, all figures together."""

import torch
from torch import nn

from autoprune.cost.flops import count_macs
from autoprune.cost.latency import LATENCY_S, measure_latency
from autoprune.network.call import Inputs
from autoprune.trial import Cost


def measure_cost(
    model: nn.Module,
    example_inputs: Inputs,
    size_bytes: int,
    device: torch.device | str,
    latency: bool,
    threads: int | None = None,
    max_seconds: float = LATENCY_S,
) -> Cost:
    """Count and measure a network's cost.

    Args:
        example_inputs: MACs are of the first example, latency is of the whole batch.
        size_bytes: Size of the network's saved file.
        device: Where latency is measured.
        latency: Whether it is.
        threads: Torch threads it is measured with; ``None`` is as many as are set now.
        max_seconds: As of :func:`autoprune.cost.measure_latency`.
    """
    parameters = list(model.parameters())
    measured = measure_latency(model, example_inputs, device, threads, max_seconds=max_seconds) if latency else None
    return Cost(
        params=sum(parameter.numel() for parameter in parameters),
        nonzero_params=sum(int(torch.count_nonzero(parameter)) for parameter in parameters),
        size_bytes=size_bytes,
        macs=count_macs(model, example_inputs),
        latency_ms=measured.latency_ms if measured else None,
    )
