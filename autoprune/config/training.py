"""The `dense` and `training` sections of a space file: how the dense and the pruned networks are trained."""

from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from autoprune.config.kinds import sections_of
from autoprune.config.optimizers import OPTIMIZERS
from autoprune.config.searchable import Range, Searchable, searchable
from autoprune.config.strict import Mistake, StrictModel, all_of, unknown
from autoprune.training.schedules import BATCH_SIZE_SCHEDULES, LR_SCHEDULES
from autoprune.training.schedules.parameters import ParameterSpec

PrecisionName = Literal["float32", "bf16", "fp16"]
LR_SECTIONS = sections_of(LR_SCHEDULES, "kind", "lr_schedule")
BATCH_SIZE_SECTIONS = sections_of(BATCH_SIZE_SCHEDULES, "kind", "batch_size_schedule")
OPTIMIZER_SECTIONS = sections_of(OPTIMIZERS, "name", "optimizer")


def _fixed_only(sections: list[Any]) -> list[Any]:
    if len(sections) > 1:
        raise PydanticCustomError("fixed_only", "must be one, not a list: the dense network is trained one way only")
    error = PydanticCustomError("fixed_only", "must be a fixed value: the dense network is trained once")
    mistakes = [Mistake((0, name), error, value) for name, value in sections[0] if isinstance(value, Range | list)]
    if mistakes:
        raise all_of(mistakes)
    return sections


class DenseTraining(StrictModel):
    """How the dense network is trained when no weights are given; every value is fixed."""

    epochs: int = Field(20, ge=1)
    optimizer: Annotated[list[Any], OPTIMIZER_SECTIONS, AfterValidator(_fixed_only)] = [
        {"name": "sgd", "momentum": 0.9, "weight_decay": 5.0e-4}
    ]
    lr_schedule: Annotated[list[Any], LR_SECTIONS, AfterValidator(_fixed_only)] = [{"kind": "one_cycle", "lr": 0.1}]
    batch_size: int = Field(64, ge=1)


def _check_precision(name: Any) -> Any:
    if name not in get_args(PrecisionName):
        raise unknown("precision", name, get_args(PrecisionName))
    return name


class Distillation(StrictModel):
    """How far the retraining follows the dense network's outputs; values, ranges and lists are searched.

    Attributes:
        weight: Share of the loss that compares the outputs with the dense network's; 0 leaves that network alone.
        temperature: What the class scores of both are divided by.
    """

    weight: Annotated[Searchable, searchable(ParameterSpec("float", low=0, high=1))] = 0
    temperature: Annotated[Searchable, searchable(ParameterSpec("float", low=1))] = 4


class Training(StrictModel):
    """How a pruned network is retrained; values, ranges and lists are searched.

    What follows here is fixed for a study, and holds for the dense network's training too.

    Attributes:
        max_device_batch: Most examples in one forward pass of the training; a larger batch is accumulated. Halved for a
            trial where a GPU's memory is not enough.
        precision: Of forward passes in training and evaluation, by torch's autocast: ``float32``, ``bf16``, or ``fp16``
            with scaled gradients. Weights, files, costs and the proof of a cut are float32 always.
        channels_last: Whether networks and 4-d inputs have their channels last in memory in training, and the inputs in
            evaluation.
        compile: Whether the forward pass of the training goes through ``torch.compile``, anew for every network.
    """

    epochs: Annotated[Searchable, searchable(ParameterSpec("int", low=1))] = 5
    optimizer: Annotated[list[Any], OPTIMIZER_SECTIONS] = [
        {"name": "sgd", "momentum": 0.9, "weight_decay": {"low": 1.0e-5, "high": 1.0e-3, "log": True}}
    ]
    lr_schedule: Annotated[list[Any], LR_SECTIONS] = [
        {"kind": "cosine", "lr": {"low": 0.001, "high": 0.3, "log": True}}
    ]
    batch_size_schedule: Annotated[list[Any], BATCH_SIZE_SECTIONS] = [{"kind": "constant", "size": [32, 64, 128]}]
    gradual_pruning: Annotated[Searchable, searchable(ParameterSpec("float", low=0, high=1))] = 0
    distillation: Distillation = Distillation()
    reference_batch_size: int | None = Field(None, ge=1)
    max_device_batch: int | None = Field(None, ge=1)
    recalibration_examples: int = Field(1024, ge=0)
    precision: Annotated[PrecisionName, BeforeValidator(_check_precision)] = "float32"
    channels_last: bool = False
    compile: bool = False
