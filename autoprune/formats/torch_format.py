"""``model.pt2``: a program of ``torch.export``, which runs without the network's Python code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from autoprune.formats._base import Exporter
from autoprune.formats.network import Network
from autoprune.network.call import Inputs, call_model


class TorchExporter(Exporter):
    """The network for PyTorch alone, ahead-of-time compilers among its users."""

    name = "torch"
    files = ("model.pt2",)
    packages = ("torch",)

    def write(self, folder: Path, network: Network, batch: int | None) -> None:
        torch.export.save(network.program(batch), folder / "model.pt2")

    def load(self, folder: Path, network: Network) -> Callable[[Inputs], Any]:
        model = torch.export.load(folder / "model.pt2").module()

        def run(inputs: Inputs) -> Any:
            with torch.inference_mode():
                return call_model(model, inputs)

        return run
