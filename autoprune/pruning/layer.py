"""Layer pruning: which modules are residual blocks, what each is worth, and replacing them by the identity."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from autoprune.errors import PruningError
from autoprune.pruning.proof import run
from autoprune.pruning.replica import lent, replica
from autoprune.tasks.task import Inputs


def find_blocks(model: nn.Module, example_inputs: Inputs) -> tuple[str, ...]:
    """Find the modules that compute ``x + f(x)``, by a probe of what they do.

    With all of its parameters at zero, such a module gives its input back. A block that ends in a ReLU passes too
    where its input is the output of another ReLU. Where passing modules nest, as blocks in a stage, the innermost
    count.

    Args:
        example_inputs: Inputs on the network's device, for which its activations are not all zero.

    Returns:
        Names, in module order, of modules that are called once, with one tensor, and give one tensor of its shape.

    Raises:
        PruningError: If the network can't run on the inputs.
    """
    probed = replica(model, lent(model)).eval()
    seen: dict[str, list[torch.Tensor | None]] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
            alone = len(args) == 1 and not kwargs and isinstance(args[0], torch.Tensor)
            # A clone, because the module may write into its input.
            seen.setdefault(name, []).append(args[0].detach().clone() if alone else None)  # type: ignore[attr-defined]

        return hook

    def compare_shapes(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[object, ...], outputs: object) -> None:
            inputs = seen[name][-1]
            if inputs is None or not isinstance(outputs, torch.Tensor) or outputs.shape != inputs.shape:
                seen[name][-1] = None

        return hook

    candidates = {
        name: module
        for name, module in probed.named_modules()
        if name and not _is_plain_layer(module) and any(parameter.dim() > 1 for parameter in module.parameters())
    }
    hooks = [module.register_forward_pre_hook(record(name), with_kwargs=True) for name, module in candidates.items()]
    hooks += [module.register_forward_hook(compare_shapes(name)) for name, module in candidates.items()]
    with torch.no_grad():
        run(probed, example_inputs)
    for handle in hooks:
        handle.remove()
    passing: list[str] = []
    for name in sorted(candidates, key=lambda name: name.count("."), reverse=True):
        inside = any(other.startswith(name + ".") for other in passing)
        if not inside and len(seen.get(name, [])) == 1 and _gives_input_back(candidates[name], seen[name][0]):
            passing.append(name)
    return tuple(name for name in candidates if name in passing)


def block_importance(
    model: nn.Module, names: Sequence[str], measure_loss: Callable[[nn.Module], float]
) -> dict[str, float]:
    """Measure how much the loss rises when each block alone is replaced by the identity.

    Args:
        measure_loss: Loss of a network, on data of the caller's choice.

    Returns:
        Name -> rise of the loss, infinite where the loss of the network without the block is not finite.

    Raises:
        PruningError: If the loss of the network itself is not finite.
    """
    if not names:
        return {}
    whole = measure_loss(replica(model, lent(model)))
    if not math.isfinite(whole):
        raise PruningError(
            f"the loss of the dense network must be finite to rank its blocks, got {whole}. Check its weights."
        )
    rises: dict[str, float] = {}
    for name in names:
        rise = measure_loss(replica(model, lent(model), [name])) - whole
        rises[name] = rise if math.isfinite(rise) else math.inf
    return rises


def _is_plain_layer(module: nn.Module) -> bool:
    """Whether the module is a layer of torch's own without others inside: with parameters at zero it gives zeros."""
    return type(module).__module__.startswith("torch.nn.modules") and not any(True for _ in module.children())


def _gives_input_back(module: nn.Module, inputs: torch.Tensor | None) -> bool:
    if inputs is None or not bool(inputs.any()):
        return False
    zeros = {name: torch.zeros_like(parameter) for name, parameter in module.named_parameters(remove_duplicate=False)}
    with torch.no_grad():
        try:
            outputs = replica(module, zeros)(inputs.clone())
        except Exception:
            return False
    return isinstance(outputs, torch.Tensor) and outputs.shape == inputs.shape and torch.allclose(outputs, inputs)
