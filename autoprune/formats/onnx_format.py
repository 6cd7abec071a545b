"""``model.onnx``: the network for ONNX Runtime and the many tools that read ONNX, weights inside the one file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from autoprune.files import replacing
from autoprune.formats._base import Format
from autoprune.formats.network import Network, tensors
from autoprune.network.call import Inputs

FILE = "model.onnx"


class OnnxFormat(Format):
    """The network for runtimes without PyTorch; it is run with ONNX Runtime on the CPU."""

    name = "onnx"
    files = (FILE,)
    packages = ("onnx", "onnxscript", "onnxruntime")

    def write(self, network: Network, folder: Path, batch: int | None = None) -> None:
        program = torch.onnx.export(
            network.program(batch),
            input_names=network.input_names(),
            output_names=network.output_names(),
            dynamic_shapes=None if batch else network.dynamic_shapes("batch"),
            dynamo=True,
            verbose=False,
        )
        assert program is not None  # with `dynamo`
        with replacing(folder / FILE) as handle:
            handle.write(program.model_proto.SerializeToString())

    def load(self, folder: Path, base_dir: Path | None = None) -> Callable[[Inputs], Any]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(folder / FILE, options, providers=["CPUExecutionProvider"])
        names = [node.name for node in session.get_inputs()]

        def run(inputs: Inputs) -> Any:
            arrays = [tensor.numpy() for tensor in tensors(inputs)]
            return [torch.from_numpy(array) for array in session.run(None, dict(zip(names, arrays, strict=True)))]

        return run
