"""How much each block matters: the loss without it, or the angle by which it turns its input."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from autoprune.errors import PruningError
from autoprune.network.call import Inputs, call_model, to_device
from autoprune.network.device import device_of
from autoprune.network.modes import eval_mode
from autoprune.pruning.copies import shareable_tensors, weight_sharing_copy
from autoprune.pruning.plan import Block
from autoprune.tasks.task import Loss


def loss_rises(
    model: nn.Module, blocks: Sequence[Block], measure_loss: Callable[[nn.Module], float]
) -> dict[str, float]:
    """Measure how much the loss rises when each block alone is removed.

    Args:
        measure_loss: Loss of a network, on data of the caller's choice.

    Returns:
        Name -> rise of the loss, infinite where the loss of the network without the block is not finite.

    Raises:
        PruningError: If the loss of the network itself is not finite.
    """
    if not blocks:
        return {}
    whole = measure_loss(weight_sharing_copy(model, shareable_tensors(model)))
    if not math.isfinite(whole):
        raise PruningError(
            f"the loss of the dense network must be finite to rank its blocks, got {whole}. Check its weights."
        )
    rises: dict[str, float] = {}
    for block in blocks:
        rise = measure_loss(weight_sharing_copy(model, shareable_tensors(model), [block])) - whole
        rises[block.name] = rise if math.isfinite(rise) else math.inf
    return rises


def angular_distances(model: nn.Module, blocks: Sequence[Block], batches: Iterable[Inputs]) -> dict[str, float]:
    """Measure by what angle each block turns its input, in one forward pass for all blocks.

    Args:
        model: Left as it was; run in evaluation mode.
        batches: Inputs of the network.

    Returns:
        Name -> ``arccos(cosine similarity of input and output) / pi``, in [0, 1], the mean over all vectors: over
        tokens, padding included, where the stream has shape ``(batch, tokens, features)``, else over examples, each
        flattened to one vector.

    Raises:
        PruningError: If there is no batch, or a distance is not finite.

    Source:
        Gromov et al. 2024, https://arxiv.org/abs/2403.17887; there it is that of the last token alone.
    """
    sums = {block.name: 0.0 for block in blocks}
    counts = dict.fromkeys(sums, 0)
    streams: dict[str, torch.Tensor] = {}

    def before(block: Block) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            key = next(key for key in _tuple(block.gives) if key is not None)
            stream = kwargs[key] if isinstance(key, str) else args[key]
            streams[block.name] = stream.clone()  # the block may write into it

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            result = next(leaf for leaf in _tuple(output) if isinstance(leaf, torch.Tensor))
            vectors = [_vectors(tensor).double() for tensor in (streams.pop(name), result)]
            lengths = vectors[0].norm(dim=1) * vectors[1].norm(dim=1)
            # A vector of length 0 has no direction; where both are 0 the block did nothing.
            cosines = (vectors[0] * vectors[1]).sum(1) / lengths.clamp_min(torch.finfo(torch.float64).tiny)
            cosines[(vectors[0] == vectors[1]).all(1)] = 1.0
            sums[name] += float(cosines.clamp(-1, 1).arccos().sum()) / math.pi
            counts[name] += len(cosines)

        return hook

    modules = [(block, model.get_submodule(block.name)) for block in blocks]
    hooks = [module.register_forward_pre_hook(before(block), with_kwargs=True) for block, module in modules]
    hooks += [module.register_forward_hook(after(block.name)) for block, module in modules]
    device = device_of(model)
    try:
        with torch.no_grad(), eval_mode(model):
            for inputs in batches:
                call_model(model, to_device(inputs, device))
    finally:
        for handle in hooks:
            handle.remove()
    unmeasured = [name for name, count in counts.items() if not count or not math.isfinite(sums[name])]
    if unmeasured:
        raise PruningError(
            f"the angular distance of block '{unmeasured[0]}' must be finite, on at least one batch, "
            f"got {sums[unmeasured[0]]} from {counts[unmeasured[0]]} vectors. Check the calibration data."
        )
    return {name: total / counts[name] for name, total in sums.items()}


def mean_loss(model: nn.Module, batches: Iterable[tuple[Inputs, torch.Tensor]], loss: Loss) -> float:
    """Average a network's loss over the examples of batches of inputs and targets, in evaluation mode."""
    device = device_of(model)
    total, n_examples = 0.0, 0
    with torch.no_grad(), eval_mode(model):
        for inputs, targets in batches:
            value = loss(call_model(model, to_device(inputs, device)), targets.to(device))
            total, n_examples = total + float(value) * len(targets), n_examples + len(targets)
    return total / n_examples


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _vectors(stream: torch.Tensor) -> torch.Tensor:
    return stream.flatten(0, 1) if stream.dim() == 3 else stream.flatten(1)
