"""SearchConfig: a space file as one frozen, validated object."""

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from autoprune.config.constraints import Constraints
from autoprune.config.kinds import as_list, no_repeats
from autoprune.config.metric import MetricSpec
from autoprune.config.pruning import Method
from autoprune.config.resources import Resources
from autoprune.config.search import Certify, Search
from autoprune.config.searchable import as_type
from autoprune.config.strict import Mistake, StrictModel, all_of, mistakes_of, repeated, unknown
from autoprune.config.task import TaskSettings, completed_metric
from autoprune.config.training import DenseTraining, Training

COST_OBJECTIVES = ("params", "nonzero_params", "size_bytes", "flops", "latency_ms")


def _check_study_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise PydanticCustomError(
            "study_name",
            "must start with a letter or digit and hold only letters, digits, '.', '_' and '-', got '{name}'",
            {"name": name},
        )
    return name


def _objective_mistakes(objectives: Any, metric: str) -> list[Mistake]:
    known = (metric, *COST_OBJECTIVES)
    mistakes = []
    if not isinstance(objectives, list) or not 2 <= len(objectives) <= 3:
        error = PydanticCustomError("n_objectives", "must be a list of two or three out of: " + ", ".join(known))
        mistakes.append(Mistake((), error, objectives))
    names = objectives if isinstance(objectives, list) else []
    for index, name in enumerate(names):
        if name not in known:
            mistakes.append(Mistake((index,), unknown("objective", name, known), name))
    for name in repeated(names):
        error = PydanticCustomError("repeated", "names '{name}' twice", {"name": str(name)})
        mistakes.append(Mistake((), error, objectives))
    if not mistakes and metric not in names:
        rule = "must hold '{metric}', the metric: without it the smallest network is best"
        mistakes.append(Mistake((), PydanticCustomError("no_metric", rule, {"metric": metric}), objectives))
    return mistakes


def _metric_name(task: Any) -> str:
    """The metric's name in a `task` section that may have mistakes."""
    metric = completed_metric(task.get("metric", "accuracy") if isinstance(task, dict) else "accuracy")
    return str(metric["name"] if isinstance(metric, dict) else metric.name)


class SearchConfig(StrictModel):
    """A whole space file.

    Attributes:
        objectives: The metric's name and one or two costs; by default the metric and ``flops``.
    """

    study: Annotated[str, AfterValidator(_check_study_name)]
    task: TaskSettings
    objectives: list[str] = ["accuracy", "flops"]
    constraints: Constraints = Constraints()
    dense: DenseTraining = DenseTraining()
    training: Training = Training()
    pruning: Annotated[
        list[Any], as_type(list[Method]), Field(min_length=1), no_repeats("method"), BeforeValidator(as_list)
    ] = [{"method": "neuron"}]
    search: Search = Search()
    certify: Certify | None = None
    resources: Resources = Resources()

    @model_validator(mode="wrap")
    @classmethod
    def _check_objectives(cls, value: Any, handler: ModelWrapValidatorHandler["SearchConfig"]) -> "SearchConfig":
        if not isinstance(value, dict):
            return handler(value)
        metric = _metric_name(value.get("task"))
        default = [metric, "flops"]
        mistakes = _objective_mistakes(value["objectives"], metric) if "objectives" in value else []
        if mistakes or "objectives" not in value:
            value = {**value, "objectives": default}
        mistakes = [mistake._replace(place=("objectives", *mistake.place)) for mistake in mistakes]
        try:
            checked = handler(value)
        except ValidationError as error:
            raise all_of([*mistakes_of(error), *mistakes]) from None
        if mistakes:
            raise all_of(mistakes)
        return checked

    @model_validator(mode="after")
    def _check_distillation(self) -> Self:
        own_loss = self.task.loss.name != "cross_entropy" and self.task.distillation_loss is None
        if own_loss and self.training.distillation.weight != 0:
            rule = (
                "needs task.distillation_loss unless task.loss is cross_entropy: how to compare two networks' outputs"
            )
            place = ("training", "distillation", "weight")
            error = PydanticCustomError("distillation", rule)
            raise all_of([Mistake(place, error, self.training.distillation.weight)])
        return self

    @property
    def metric(self) -> MetricSpec:
        """Name and direction of the metric."""
        return self.task.metric_spec

    @property
    def directions(self) -> list[str]:
        """The metric's direction for the metric and ``"minimize"`` for every cost, one per objective."""
        return list(self.metric.directions(self.objectives))

    @property
    def cost_objectives(self) -> list[str]:
        """The objectives but for the metric, in their order; at least one."""
        return [name for name in self.objectives if name != self.metric.name]

    @property
    def round_to(self) -> int:
        """What every width must be a multiple of."""
        neuron = self.method("neuron")
        return int(neuron.round_to) if neuron else 1

    def method(self, name: str) -> Any:
        """The block of one pruning method, or ``None`` if the file does not use it."""
        return next((block for block in self.pruning if block.method == name), None)
