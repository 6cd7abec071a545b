"""``model.pt2``: a program of ``torch.export``, which runs without the network's Python code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from autoprune.files import replacing
from autoprune.formats._base import Format
from autoprune.formats.network import Network
from autoprune.network.call import Inputs, call_model

FILE = "model.pt2"


class TorchFormat(Format):
    """The network for PyTorch alone, ahead-of-time compilers among its users."""

    name = "torch"
    files = (FILE,)
    packages = ("torch",)

    def write(self, network: Network, folder: Path, batch: int | None = None) -> None:
        with replacing(folder / FILE) as handle:
            torch.export.save(network.program(batch), handle)

    def load(self, folder: Path, base_dir: Path | None = None) -> Callable[[Inputs], Any]:
        model = torch.export.load(folder / FILE).module()

        def run(inputs: Inputs) -> Any:
            with torch.inference_mode():
                return call_model(model, inputs)

        return run
