"""The network to write, with its example inputs, its traced programs, and the comparison with what was written."""

import inspect
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_leaves, tree_map_only

from autoprune.errors import ExportError
from autoprune.formats.architecture import Architecture
from autoprune.network.call import Inputs, call_model, to_device
from autoprune.network.copies import copy_network
from autoprune.network.outputs import plain_outputs


class Network:
    """A copy of a trained network, on the CPU and in evaluation mode, and real inputs to compare its files on.

    It returns what has tensors in its outputs: a program can't return objects that torch doesn't know.

    Args:
        example_inputs: A tensor, or a tuple or dict of tensors, whose first dimension is the batch.
        base_dir: Folder that the user's own modules are imported from.

    Raises:
        ExportError: If the inputs hold no tensor, or the network's outputs hold none.
    """

    def __init__(
        self, model: nn.Module, example_inputs: Inputs, architecture: Architecture, base_dir: Path | None = None
    ) -> None:
        self.model = copy_network(model).cpu().eval()
        self.model.register_forward_hook(lambda module, args, outputs: plain_outputs(outputs))
        self.inputs = to_device(example_inputs, "cpu")
        self.architecture = architecture
        self.base_dir = base_dir
        self._programs: dict[int | None, ExportedProgram] = {}
        if not tensors(self.inputs):
            raise ExportError("example_inputs must be a tensor, or a tuple or dict of tensors, got none.")
        self.outputs = self.run(self.inputs)
        if not tensors(self.outputs):
            raise ExportError(
                "the network must return tensors, in tuples, dicts or attributes, to be exported, got none."
            )

    @property
    def batch_size(self) -> int:
        """Number of examples in the example inputs."""
        return len(tensors(self.inputs)[0])

    def run(self, inputs: Inputs) -> Any:
        """Run the network itself."""
        with torch.inference_mode():
            return call_model(self.model, inputs)

    def batches(self, batch: int | None) -> list[Inputs]:
        """The example inputs as batches of ``batch`` examples; ``None`` gives two sizes, one of them 1."""
        if batch is None:
            return [_examples(self.inputs, range(max(2, self.batch_size))), _examples(self.inputs, range(1))]
        return [_examples(self.inputs, range(start, start + batch)) for start in range(0, self.batch_size, batch)]

    def program(self, batch: int | None) -> ExportedProgram:
        """Trace the network, for batches of ``batch`` examples or, with ``None``, of any size.

        The trace sees zeros in place of the example inputs, so that no data of the user's end up in the exported file.

        Raises:
            Exception: Whatever the trace raises; networks fail to be traced in many ways.
        """
        if batch not in self._programs:
            # A trace of a single example would take the size 1 for a constant.
            examples = _examples(self.inputs, range(batch or max(2, self.batch_size)))
            blank = tree_map_only(torch.Tensor, torch.zeros_like, examples)
            args, kwargs = _arguments(blank)
            shapes = None if batch else self.dynamic_shapes(Dim("batch"))
            self._programs[batch] = torch.export.export(self.model, args, kwargs, dynamic_shapes=shapes)
        return self._programs[batch]

    def dynamic_shapes(self, dim: Any) -> Any:
        """Say of every input that its first dimension is ``dim``, in the form that ``torch.export`` wants."""
        args, kwargs = _arguments(self.inputs)
        return tree_map_only(torch.Tensor, lambda _: {0: dim}, kwargs or args)

    def input_names(self) -> list[str]:
        """One name a tensor, after the parameters of the network's ``forward``."""
        args, kwargs = _arguments(self.inputs)
        bound = inspect.signature(self.model.forward).bind(*args, **kwargs).arguments
        # Back in the order that the inputs have, which a dict need not share with the signature.
        ordered = {name: bound[name] for name in kwargs if name in bound} or bound
        return _leaf_names(ordered, "input")

    def output_names(self) -> list[str]:
        """One name a tensor: the keys of a dict, ``output`` for a single tensor."""
        taken = set(self.input_names())
        return [f"output_{name}" if name in taken else name for name in _leaf_names(self.outputs, "output")]


def tensors(tree: Any) -> list[torch.Tensor]:
    """The tensors in nested tuples, lists and dicts, in order."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def max_difference(outputs: Any, expected: Any) -> tuple[float, float]:
    """Compare two networks' outputs.

    Returns:
        The largest absolute difference, infinite where one has a NaN that the other has not, and the largest absolute
        value expected.

    Raises:
        ExportError: If the number of tensors, a shape or a dtype differs.
    """
    got, wanted = tensors(plain_outputs(outputs)), tensors(plain_outputs(expected))
    kinds = [[(tuple(tensor.shape), tensor.dtype) for tensor in side] for side in (got, wanted)]
    if kinds[0] != kinds[1]:
        raise ExportError(f"the outputs must have shapes and dtypes {kinds[1]}, got {kinds[0]}")
    difference, scale = 0.0, 0.0
    for left, right in zip(got, wanted, strict=True):
        left, right = left.double(), right.double()
        same = (left == right) | (left.isnan() & right.isnan())
        gap = torch.where(same, 0.0, (left - right).abs()).nan_to_num(torch.inf, torch.inf)
        difference = max(difference, gap.max().item() if gap.numel() else 0.0)
        scale = max(scale, right.nan_to_num(0.0, 0.0, 0.0).abs().max().item() if right.numel() else 0.0)
    return difference, scale


def _examples(inputs: Inputs, positions: range) -> Inputs:
    """Pick examples by position, from the start again past the end."""
    return tree_map_only(torch.Tensor, lambda tensor: tensor[[index % len(tensor) for index in positions]], inputs)


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Split inputs into the positional and the named arguments of the network, as ``call_model`` hands them over."""
    if isinstance(inputs, dict):
        return (), inputs
    return (tuple(inputs), {}) if isinstance(inputs, tuple | list) else ((inputs,), {})


def _leaf_names(tree: Any, root: str) -> list[str]:
    names = []
    for path, leaf in tree_flatten_with_path(tree)[0]:
        if isinstance(leaf, torch.Tensor):
            words = re.findall(r"\w+", keystr(path))
            names.append("_".join(words if words and not words[0].isdigit() else [root, *words]))
    return names
