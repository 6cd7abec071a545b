"""How long one forward pass takes, measured."""

import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from autoprune.network.call import Inputs, call_model, to_device
from autoprune.network.copies import copy_network
from autoprune.network.device import device_of
from autoprune.network.modes import eval_mode
from autoprune.trial import Latency

N_WARM_UP = 5

LATENCY_S = 0.5
"""How long a latency is measured, unless said otherwise."""


def measure_latency(
    model: nn.Module,
    example_inputs: Inputs,
    device: torch.device | str,
    threads: int | None = None,
    min_runs: int = 20,
    max_seconds: float = LATENCY_S,
) -> Latency:
    """Measure the median time of a forward pass in eval mode, after a warm-up.

    Args:
        model: Is copied if it is on another device, and left where it is.
        example_inputs: The batch to run.
        threads: Torch threads to run with; ``None`` is as many as are set now.
        min_runs: Passes at least, however long they take.
        max_seconds: Passes beyond ``min_runs`` end after this time.
    """
    device = torch.device(device)
    if device_of(model) != device and not (device.index is None and device_of(model).type == device.type):
        model = copy_network(model).to(device)
    inputs = to_device(example_inputs, device)
    times: list[float] = []
    with eval_mode(model), torch.inference_mode(), _threads(threads):
        for _ in range(N_WARM_UP):
            call_model(model, inputs)
        _finish(device)
        begin = time.perf_counter()
        while len(times) < min_runs or time.perf_counter() - begin < max_seconds:
            start = time.perf_counter()
            call_model(model, inputs)
            _finish(device)
            times.append(time.perf_counter() - start)
    return Latency(
        latency_ms=1000 * statistics.median(times),
        device=_device_name(device),
        batch_size=len(tree_leaves(inputs)[0]),
        threads=threads or torch.get_num_threads(),
        n_runs=len(times),
    )


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.processor() or platform.machine()})"
