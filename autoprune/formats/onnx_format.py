"""``model.onnx``: the network for ONNX Runtime and the many tools that read ONNX, weights inside the one file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from autoprune.formats._base import Exporter
from autoprune.formats.network import Network, tensors
from autoprune.network.call import Inputs


class OnnxExporter(Exporter):
    """The network for runtimes without PyTorch; checked with ONNX Runtime on the CPU."""

    name = "onnx"
    files = ("model.onnx",)
    packages = ("onnx", "onnxscript", "onnxruntime")

    def write(self, folder: Path, network: Network, batch: int | None) -> None:
        torch.onnx.export(
            network.program(batch),
            f=folder / "model.onnx",
            input_names=network.input_names(),
            output_names=network.output_names(),
            dynamic_shapes=None if batch else network.dynamic_shapes("batch"),
            dynamo=True,
            external_data=False,
            verbose=False,
        )

    def load(self, folder: Path, network: Network) -> Callable[[Inputs], Any]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        names = [node.name for node in session.get_inputs()]

        def run(inputs: Inputs) -> Any:
            arrays = [tensor.numpy() for tensor in tensors(inputs)]
            return [torch.from_numpy(array) for array in session.run(None, dict(zip(names, arrays, strict=True)))]

        return run
