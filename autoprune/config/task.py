"""The `task` section of a space file: which callables give the model, the data, the loss and the metric."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

from autoprune.config.constraints import COSTS
from autoprune.config.metric import METRICS, Direction, MetricSpec
from autoprune.config.strict import Mistake, StrictModel, also, unknown

_CALLABLE = r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*"


def _check_name(name: str) -> str:
    if not re.fullmatch(_CALLABLE, name):
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


LOSSES = ("cross_entropy", "nll", "bce_with_logits", "bce", "mse", "l1", "smooth_l1", "huber")
"""Names of the built-in losses."""


class LossSettings(StrictModel):
    """The loss: a built-in one by its name, or a callable; each with its arguments.

    Attributes:
        name: One of ``LOSSES``; ``None`` for a callable.
        callable: Is itself the ``loss(outputs, targets)``, its arguments bound; of a class, an instance is.
    """

    name: str | None = None
    callable: Annotated[str, AfterValidator(_check_name)] | None = None
    args: Mapping[str, Any] = {}


def _completed_loss(value: Any) -> Any:
    if isinstance(value, LossSettings):
        return value
    if isinstance(value, str):
        return {"callable": value} if ":" in value else {"name": value}
    return value if isinstance(value, dict) else {"name": "cross_entropy"}  # a mistake is told by _loss_mistakes


def _loss_mistakes(value: Any) -> list[Mistake]:
    """Find what is wrong with a loss as the space file has it, but for the types of its parts."""
    if value is None or isinstance(value, LossSettings):
        return []
    if not isinstance(value, str | dict):
        rule = "must be a name such as mse, module:callable, or a mapping with name or callable, and args, got {value}"
        return [Mistake((), PydanticCustomError("loss", rule, {"value": repr(value)}), value)]
    completed = _completed_loss(value)
    name, function = completed.get("name"), completed.get("callable")
    if (name is None) == (function is None):
        rule = "needs a name out of: {known}; or a callable, and not both"
        return [Mistake((), PydanticCustomError("loss", rule, {"known": ", ".join(LOSSES)}), value)]
    if name is not None and name not in LOSSES:
        return [Mistake(("name",), unknown("loss", name, (*LOSSES, "or module:callable")), name)]
    return []


LossField = Annotated[LossSettings, BeforeValidator(_completed_loss), also(_loss_mistakes)]
"""A built-in loss's name, ``module:callable``, or a mapping with one of them and ``args``."""


Frozen = Literal["keep", "train"]


def _check_frozen(name: Any) -> Any:
    if name not in get_args(Frozen):
        raise unknown("frozen", name, get_args(Frozen))
    return name


RESERVED = {*COSTS, "loss", "number", "state", "parent", "lineage", "epochs", "epochs_lineage", "train_time_s", "seed"}
"""Names that tables and conditions have for something else than the metric."""


def _check_metric_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z][\w@-]{0,31}", name):
        rule = "must start with a letter and hold at most 32 letters, digits, '_', '-' and '@', got '{name}'"
        raise PydanticCustomError("metric_name", rule, {"name": name})
    if name in RESERVED:
        raise PydanticCustomError("metric_name", "must not be '{name}', which names another figure", {"name": name})
    return name


class MetricSettings(StrictModel):
    """The metric: a built-in one by its name, or a callable with a name and a direction.

    Attributes:
        name: What it is called wherever a person looks; of a callable by default its own name.
        direction: Which values are better; a built-in metric knows it.
        callable: Is itself the ``metric(outputs, targets)``, its arguments bound; ``None`` is the built-in metric.
    """

    name: Annotated[str, AfterValidator(_check_metric_name)]
    direction: Direction
    callable: Annotated[str, AfterValidator(_check_name)] | None = None
    args: Mapping[str, Any] = {}


def completed_metric(value: Any) -> Any:
    """Complete a metric as the space file has it by what follows from the rest: its name and its direction."""
    if isinstance(value, MetricSettings):
        return value
    if isinstance(value, str):
        value = {"callable": value} if ":" in value else {"name": value}
    if not isinstance(value, dict):
        value = {"name": "accuracy"}  # the mistake is told by _metric_mistakes
    function, name = value.get("callable"), value.get("name")
    if name is None:
        is_named = isinstance(function, str) and re.fullmatch(_CALLABLE, function)
        name = re.split(r"[:.]", str(function))[-1] if is_named else "accuracy"
    direction = METRICS.get(name, "maximize") if isinstance(name, str) and function is None else "maximize"
    return {"direction": direction, **value, "name": name}


def _metric_mistakes(value: Any) -> list[Mistake]:
    """Find what is wrong with a metric as the space file has it, but for the types of its parts."""
    if isinstance(value, MetricSettings):
        return []
    if not isinstance(value, str | dict):
        rule = "must be a name such as accuracy, or a mapping with callable, name and direction, got {value}"
        return [Mistake((), PydanticCustomError("metric", rule, {"value": repr(value)}), value)]
    completed = completed_metric(value)
    name, function, direction = (completed.get(key) for key in ("name", "callable", "direction"))
    if function is None:
        if isinstance(value, dict) and value.get("name") is None:
            rule = "needs a name out of: {known}; or a callable, with name and direction"
            return [Mistake((), PydanticCustomError("metric", rule, {"known": ", ".join(METRICS)}), value)]
        if name not in METRICS:
            error = unknown("metric", name, (*METRICS, "or {callable: module:callable, name: ..., direction: ...}"))
            return [Mistake(("name",), error, name)]
        if direction != METRICS[name]:
            error = _told("direction", f"must be {METRICS[name]}: {name} is built in and knows its direction")
            return [Mistake(("direction",), error, direction)]
    elif not isinstance(value, dict) or "direction" not in value:
        way_out = f'{{callable: "{function}", name: {name}, direction: maximize}}'
        error = _told("direction", f"needs a direction: write {way_out}, or minimize if lower is better")
        return [Mistake((), error, value)]
    return []


def _told(kind: Literal["direction"], message: str) -> PydanticCustomError:
    """An error whose message may hold braces."""
    return PydanticCustomError(kind, "{message}", {"message": message})


Metric = Annotated[MetricSettings, BeforeValidator(completed_metric), also(_metric_mistakes)]
"""A built-in metric's name, ``{name: ..., args: {...}}`` or ``{callable: ..., name: ..., direction: ...}``."""


class TaskSettings(StrictModel):
    """What the user brings. Names are looked up from the space file's folder first, then on the Python path.

    Attributes:
        model: Called with its arguments, returns the network.
        data: Called with its arguments, returns the three splits.
        loss: What is minimised: one of ``LOSSES`` by its name, or a callable.
        distillation_loss: Is itself the ``distillation_loss(outputs, dense_outputs, temperature)``, its arguments
            bound; ``None`` is the divergence of the class probabilities with cross-entropy, and none with another loss.
        metric: What networks are judged by: one of ``METRICS`` by its name, or a callable.
        augment: Is itself the ``augment(inputs, generator)``, its arguments bound; ``None`` changes nothing.
        weights: Path of the dense network's weights, relative to the space file; ``None`` trains them first.
        frozen: ``keep`` leaves what the network froze as it is, but for channels that are removed: parameters without
            ``requires_grad``, and batch norms whose statistics its training does not move. ``train`` trains all
            parameters, and estimates the statistics of all batch norms anew after a cut.
    """

    refused: ClassVar[Mapping[str, str]] = {
        "batch_dim": "must be left out: a search trains on batches of examples, the first dimension. Plan a network "
        "without one in Python: autoprune.plan(..., batch_dim=None)"
    }

    model: Callable
    data: Callable
    weights: str | None = None
    loss: LossField = LossSettings(name="cross_entropy")
    distillation_loss: Callable | None = None
    metric: Metric = MetricSettings(name="accuracy", direction="maximize")
    augment: Callable | None = None
    frozen: Annotated[Frozen, BeforeValidator(_check_frozen)] = "keep"

    @property
    def metric_spec(self) -> MetricSpec:
        """Name and direction of the metric."""
        return MetricSpec(self.metric.name, self.metric.direction)
