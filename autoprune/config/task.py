"""The `task` section of a space file: which callables give the model, the data, the loss and the metric."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

from autoprune.config.strict import StrictModel, unknown


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", name):
        raise PydanticCustomError("callable", "must have the form module:callable, got '{name}'", {"name": name})
    return name


class CallableRef(StrictModel):
    """A callable by name, and the keyword arguments it is called with."""

    callable: Annotated[str, AfterValidator(_check_name)]
    args: Mapping[str, Any] = {}


def _from_name(value: Any) -> Any:
    if isinstance(value, str):
        return {"callable": value}
    if not isinstance(value, dict | CallableRef):
        rule = "must be module:callable, or a mapping with callable and args, got {value}"
        raise PydanticCustomError("callable", rule, {"value": repr(value)})
    return value


Callable = Annotated[CallableRef, BeforeValidator(_from_name)]
"""Either ``module:callable`` or ``{callable: "module:callable", args: {...}}``."""


Frozen = Literal["keep", "train"]


def _check_frozen(name: Any) -> Any:
    if name not in get_args(Frozen):
        raise unknown("frozen", name, get_args(Frozen))
    return name


class TaskSettings(StrictModel):
    """What the user brings. Names are looked up from the space file's folder first, then on the Python path.

    Attributes:
        model: Called with its arguments, returns the network.
        data: Called with its arguments, returns the three splits.
        loss: Is itself the ``loss(outputs, targets)``, its arguments bound; ``None`` is cross-entropy.
        distillation_loss: Is itself the ``distillation_loss(outputs, dense_outputs, temperature)``, its arguments
            bound; ``None`` is the divergence of the class probabilities with the default loss, and none with another.
        metric: Is itself the ``metric(outputs, targets)``, its arguments bound; ``None`` is top-1 accuracy.
        augment: Is itself the ``augment(inputs, generator)``, its arguments bound; ``None`` changes nothing.
        weights: Path of the dense network's weights, relative to the space file; ``None`` trains them first.
        frozen: ``keep`` leaves what the network froze as it is, but for channels that are removed: parameters without
            ``requires_grad``, and batch norms whose statistics its training does not move. ``train`` trains all
            parameters, and estimates the statistics of all batch norms anew after a cut.
    """

    model: Callable
    data: Callable
    weights: str | None = None
    loss: Callable | None = None
    distillation_loss: Callable | None = None
    metric: Callable | None = None
    augment: Callable | None = None
    frozen: Annotated[Frozen, BeforeValidator(_check_frozen)] = "keep"
