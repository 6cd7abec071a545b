"""SearchConfig: a space file as one frozen, validated object."""

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from autoprune.config.constraints import Constraints
from autoprune.config.kinds import as_list, no_repeats
from autoprune.config.pruning import Method
from autoprune.config.resources import Resources
from autoprune.config.search import Certify, Search
from autoprune.config.searchable import as_type
from autoprune.config.strict import Mistake, StrictModel, all_of, repeated, unknown
from autoprune.config.task import TaskSettings
from autoprune.config.training import DenseTraining, Training

OBJECTIVES = ("accuracy", "params", "nonzero_params", "size_bytes", "flops", "latency_ms")


def _check_study_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise PydanticCustomError(
            "study_name",
            "must start with a letter or digit and hold only letters, digits, '.', '_' and '-', got '{name}'",
            {"name": name},
        )
    return name


def _check_objectives(objectives: Any) -> Any:
    mistakes = []
    if not isinstance(objectives, list) or not 2 <= len(objectives) <= 3:
        error = PydanticCustomError("n_objectives", "must be a list of two or three out of: " + ", ".join(OBJECTIVES))
        mistakes.append(Mistake((), error, objectives))
    names = objectives if isinstance(objectives, list) else []
    for index, name in enumerate(names):
        if name not in OBJECTIVES:
            mistakes.append(Mistake((index,), unknown("objective", name, OBJECTIVES), name))
    for name in repeated(names):
        error = PydanticCustomError("repeated", "names '{name}' twice", {"name": str(name)})
        mistakes.append(Mistake((), error, objectives))
    if not mistakes and "accuracy" not in names:
        error = PydanticCustomError("no_accuracy", "must hold 'accuracy': without it the smallest network is best")
        mistakes.append(Mistake((), error, objectives))
    if mistakes:
        raise all_of(mistakes)
    return objectives


class SearchConfig(StrictModel):
    """A whole space file."""

    study: Annotated[str, AfterValidator(_check_study_name)]
    task: TaskSettings
    objectives: Annotated[list[str], BeforeValidator(_check_objectives)] = ["accuracy", "flops"]
    constraints: Constraints = Constraints()
    dense: DenseTraining = DenseTraining()
    training: Training = Training()
    pruning: Annotated[
        list[Any], as_type(list[Method]), Field(min_length=1), no_repeats("method"), BeforeValidator(as_list)
    ] = [{"method": "neuron"}]
    search: Search = Search()
    certify: Certify | None = None
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _check_distillation(self) -> Self:
        own_loss = self.task.loss is not None and self.task.distillation_loss is None
        if own_loss and self.training.distillation.weight != 0:
            rule = "needs task.distillation_loss where task.loss is your own: how to compare two networks' outputs"
            place = ("training", "distillation", "weight")
            error = PydanticCustomError("distillation", rule)
            raise all_of([Mistake(place, error, self.training.distillation.weight)])
        return self

    @property
    def directions(self) -> list[str]:
        """``"maximize"`` for accuracy and ``"minimize"`` for every cost, one per objective."""
        return ["maximize" if name == "accuracy" else "minimize" for name in self.objectives]

    @property
    def round_to(self) -> int:
        """What every width must be a multiple of."""
        neuron = self.method("neuron")
        return int(neuron.round_to) if neuron else 1

    def method(self, name: str) -> Any:
        """The block of one pruning method, or ``None`` if the file does not use it."""
        return next((block for block in self.pruning if block.method == name), None)
