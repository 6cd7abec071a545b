"""Does a file hold all that a network learns? A few training steps of a copy tell, before the dense training."""

import inspect
import reprlib
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoprune.config.task import CallableRef
from autoprune.errors import AutopruneError, SavedModelError, TaskError, describe_error, is_interrupt
from autoprune.formats.architecture import architecture_diff, named_tensors
from autoprune.formats.outputs import TOLERANCE, relative_difference, reproducible_outputs
from autoprune.formats.reload import load_judged, reference_inputs
from autoprune.formats.saved_model import save_model
from autoprune.network.call import Inputs, call_model
from autoprune.network.copies import copy_network
from autoprune.tasks.task import Task

N_STEPS, N_EXAMPLES, LR = 4, 4, 1e-3

_REPR = reprlib.Repr()
_REPR.maxdict = _REPR.maxlist = _REPR.maxdeque = 100


def check_kept_state(task: Task, model: nn.Module, model_ref: CallableRef) -> None:
    """Train a copy for a few steps, save it, load it again, and compare its outputs with those of the copy.

    So a state that is in no ``state_dict``, and matters, is found before the dense network is trained: an attribute
    that training changes, a buffer that is not persistent, a part that is drawn anew at each build.

    Args:
        model: The dense network; it is not touched.

    Raises:
        TaskError: If the outputs differ, a module's extra state can't be saved, networks share what training changes,
            or there is nothing to train.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise TaskError(
            "task.model: it has nothing to train: every parameter is frozen (requires_grad is False), or there is "
            "none. Unfreeze some, or set task.frozen to train."
        )
    try:
        with torch.random.fork_rng(devices=[]):
            _compare(task, model, model_ref)
    except BaseException as error:
        if isinstance(error, AutopruneError) or is_interrupt(error):
            raise
        told = describe_error(error).rstrip(".")
        raise TaskError(f"task.model: saving it and loading it again failed: {told}. Mend the model.") from error


def _compare(task: Task, model: nn.Module, model_ref: CallableRef) -> None:
    inputs = reference_inputs(task)
    trained, other = copy_network(model), copy_network(model)
    before = reproducible_outputs(other, inputs)
    reproducible_outputs(trained, inputs)  # a network may keep what its first evaluation computes
    held = _shared_state(model)
    _train(trained, task)
    after = reproducible_outputs(other, inputs)
    if before is not None and (after is None or relative_difference(after, before) > TOLERANCE):
        changed = _changed(held, _shared_state(model))
        raise TaskError(
            f"task.model: training one network changes what another one gives: they share {changed or 'a state'} "
            "outside of the networks, which no file holds. Keep it in a buffer of the module (self.register_buffer)."
        )
    _check_shapes(model, trained)
    problem = _problem(trained, task, model_ref, inputs)
    if problem is None:
        return
    if _problem(copy_network(model), task, model_ref, inputs) is None:
        raise TaskError(f"task.model: after {N_STEPS} training steps, {problem}")
    raise TaskError(
        f"task.model: each call builds another network, in more than its parameters and buffers: {problem} "
        "What is drawn at random may be drawn from a seed of its own instead."
    )


def _check_shapes(model: nn.Module, trained: nn.Module) -> None:
    """Raise TaskError if a parameter or buffer has another shape after training."""
    before = {name: tuple(tensor.shape) for name, tensor in named_tensors(model).items()}
    kept = trained.state_dict()
    for name, tensor in named_tensors(trained).items():
        shape = tuple(tensor.shape)
        if name in kept and before.get(name) != shape:
            raise TaskError(
                f"task.model: training changes the shape of '{name}' from {before.get(name)} to {shape}, so it "
                "doesn't fit the network that is built anew. Give it its last shape from the start."
            )


def _shared_state(model: nn.Module) -> dict[str, str]:
    """Describe what the classes of a network's modules share, and those above, all but torch's own.

    That is their attributes, the variables around their functions, and the globals of their files.
    """
    classes = {kind for module in model.modules() for kind in type(module).__mro__}
    shared: dict[str, Any] = {}
    for kind in sorted(classes, key=lambda kind: kind.__qualname__):
        if kind.__module__.partition(".")[0] in ("torch", "builtins"):
            continue
        for name, value in vars(kind).items():
            shared[f"attribute '{name}' of class {kind.__name__}"] = value
            if inspect.isfunction(value):
                for variable, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
                    with suppress(ValueError):  # it is empty
                        shared[f"variable '{variable}' around {kind.__name__}.{name}"] = cell.cell_contents
        for name, value in vars(sys.modules.get(kind.__module__, kind)).items():
            if not name.startswith("__"):
                shared.setdefault(f"global '{name}' of module '{kind.__module__}'", value)
    return {name: _shown(value) for name, value in shared.items() if not (callable(value) or inspect.ismodule(value))}


def _shown(value: Any) -> str:
    try:
        return _REPR.repr(value)
    except Exception:
        return ""


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> str | None:
    """Name what has changed or come, one of them."""
    return next((name for name, value in after.items() if before.get(name) != value), None)


def _problem(model: nn.Module, task: Task, model_ref: CallableRef, inputs: Inputs) -> str | None:
    """Save a network and load it again; returns what goes wrong, if anything does.

    Raises:
        TaskError: If it can't be saved at all.
    """
    with tempfile.TemporaryDirectory() as scratch:
        try:
            save_model(Path(scratch), model, architecture_diff(model, model, model_ref))
        except SavedModelError as error:
            raise TaskError(f"task.model: {error}") from error
        try:
            load_judged(Path(scratch), model, task.build_model, inputs)
        except SavedModelError as error:
            return str(error)
    return None


def _train(model: nn.Module, task: Task) -> None:
    """Take a few steps of gradient descent, as far as the network and the loss take so few examples."""
    train = task.data.train
    model.train()
    for step in range(N_STEPS):
        try:
            indices = torch.arange(step * N_EXAMPLES, (step + 1) * N_EXAMPLES) % len(train)
            batch, targets = train.batch(indices)
            model.zero_grad()
            torch.autograd.backward(task.loss(call_model(model, batch), targets))
        except BaseException as error:
            if isinstance(error, AutopruneError) or is_interrupt(error):
                raise
            return  # a step of the training itself, with as many examples as it takes, will tell
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(LR * parameter.grad)
