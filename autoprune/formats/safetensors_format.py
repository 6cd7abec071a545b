"""``model.safetensors`` and ``architecture.json``: no pickle; ``autoprune.load`` makes them a module again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from autoprune.formats._base import Format
from autoprune.formats.network import Network
from autoprune.formats.saved_model import load, save_model
from autoprune.network.call import Inputs, call_model


class SafetensorsFormat(Format):
    """The network as a PyTorch module, to train on or to change."""

    name = "safetensors"
    files = ("model.safetensors", "architecture.json")
    packages = ("safetensors",)

    def write(self, network: Network, folder: Path, batch: int | None = None) -> None:
        save_model(folder, network.model, network.architecture, pack_zeros=False)

    def load(self, folder: Path, base_dir: Path | None = None) -> Callable[[Inputs], Any]:
        model = load(folder, base_dir=base_dir).eval()

        def run(inputs: Inputs) -> Any:
            with torch.inference_mode():
                return call_model(model, inputs)

        return run
