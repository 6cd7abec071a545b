"""SearchConfig: a space file as one frozen, validated object."""

import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    GetPydanticSchema,
    PlainValidator,
    Tag,
    WrapValidator,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from autoprune.config.dimension import Dimension, Range, as_type, searchable
from autoprune.config.methods import METHODS, LayerMethod, NeuronMethod, WeightMethod
from autoprune.config.optimizers import OPTIMIZERS
from autoprune.config.strict import Mistake, StrictModel, all_of, also, repeated, unknown
from autoprune.config.task import TaskSettings
from autoprune.training.schedules import BATCH_SIZE_SCHEDULES, LR_SCHEDULES
from autoprune.training.schedules.parameters import KindSpec, ParameterSpec
from autoprune.trial import MAX_SEEDS

COSTS = ("params", "nonzero_params", "size_bytes", "macs", "flops", "latency_ms")
OBJECTIVES = ("accuracy", "params", "nonzero_params", "size_bytes", "flops", "latency_ms")
SAMPLERS = ("auto", "cost_aware", "tpe", "nsga2", "nsga3", "gp", "random", "qmc")
LEAST_AMOUNT = 0.0001
"""The smallest share of a resource that Ray tells from none."""
PrecisionName = Literal["float32", "bf16", "fp16"]


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _told_apart_by(tag: str, known: tuple[str, ...], members: Any) -> Any:
    """A union of sections whose member is named by the key ``tag``."""

    def tag_of(value: Any) -> Any:
        return value.get(tag) if isinstance(value, dict) else getattr(value, tag, None)

    def check(value: Any) -> Any:
        if tag_of(value) is None:
            raise PydanticCustomError(
                "no_kind", "needs a '{tag}'. Known: {known}", {"tag": tag, "known": ", ".join(known)}
            )
        if tag_of(value) not in known:
            raise unknown(tag, tag_of(value), known)
        return value

    return Annotated[members, Discriminator(tag_of), BeforeValidator(check)]


def _no_repeats(tag: str) -> WrapValidator:
    def find(sections: list[Any]) -> list[Mistake]:
        rule = "names the {tag} '{name}' twice; put the values of both into one"
        names = [section.get(tag) for section in sections if isinstance(section, dict) and tag in section]
        return [
            Mistake((), PydanticCustomError("repeated", rule, {"tag": tag, "name": str(name)}), sections)
            for name in repeated(names)
        ]

    return also(find)


def _sections(registry: Mapping[str, KindSpec], tag: str, what: str) -> GetPydanticSchema:
    """One section class a registered kind, told apart by the key ``tag``; a list of them is a choice."""
    members: Any = None
    for kind, member_kind in registry.items():
        fields: dict[str, Any] = {
            name: (Annotated[Dimension, searchable(parameter)], ... if parameter.required else parameter.default)
            for name, parameter in member_kind.params.items()
        }
        fields[tag] = (Literal[kind], kind)
        section = create_model(f"{what} {kind}", __base__=StrictModel, **fields)
        member = Annotated[section, Tag(kind)]
        members = member if members is None else members | member
    sections = Annotated[Any, as_type(_told_apart_by(tag, tuple(registry), members))]
    return as_type(
        Annotated[
            list[sections],
            Field(min_length=1),
            _no_repeats(tag),
            BeforeValidator(_as_list),
        ]
    )


LR_SECTIONS = _sections(LR_SCHEDULES, "kind", "lr_schedule")
BATCH_SIZE_SECTIONS = _sections(BATCH_SIZE_SCHEDULES, "kind", "batch_size_schedule")
OPTIMIZER_SECTIONS = _sections(OPTIMIZERS, "name", "optimizer")


class Ceiling(StrictModel):
    """The most that a network may cost: absolute, or a multiple of the dense network's cost."""

    value: float = Field(gt=0)
    relative: bool = False

    def limit(self, dense: float) -> float:
        """The ceiling in the cost's own unit, given the dense network's cost."""
        return self.value * dense if self.relative else self.value


_MULTIPLE = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*x\s*")


def _parse_ceiling(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"value": value}
    if isinstance(value, dict | Ceiling):
        return value
    if isinstance(value, str) and (multiple := _MULTIPLE.fullmatch(value)):
        return {"value": float(multiple[1]), "relative": True}
    rule = "must be a number or a multiple of dense such as 0.5x, got {value}"
    raise PydanticCustomError("ceiling", rule, {"value": repr(value)})


CeilingField = Annotated[Ceiling, BeforeValidator(_parse_ceiling)] | None


class Constraints(StrictModel):
    """Limits that every trial must hold, checked before it is trained (``accuracy_drop``: when a point is chosen)."""

    accuracy_drop: Annotated[float, Field(ge=0)] | None = None
    params: CeilingField = None
    nonzero_params: CeilingField = None
    size_bytes: CeilingField = None
    macs: CeilingField = None
    flops: CeilingField = None
    latency_ms: CeilingField = None

    @property
    def ceilings(self) -> dict[str, Ceiling]:
        """The cost ceilings that are set, by cost name."""
        return {name: getattr(self, name) for name in COSTS if getattr(self, name) is not None}


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

    weight: Annotated[Dimension, searchable(ParameterSpec("float", low=0, high=1))] = 0
    temperature: Annotated[Dimension, searchable(ParameterSpec("float", low=1))] = 4


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

    epochs: Annotated[Dimension, searchable(ParameterSpec("int", low=1))] = 5
    optimizer: Annotated[list[Any], OPTIMIZER_SECTIONS] = [
        {"name": "sgd", "momentum": 0.9, "weight_decay": {"low": 1.0e-5, "high": 1.0e-3, "log": True}}
    ]
    lr_schedule: Annotated[list[Any], LR_SECTIONS] = [
        {"kind": "cosine", "lr": {"low": 0.001, "high": 0.3, "log": True}}
    ]
    batch_size_schedule: Annotated[list[Any], BATCH_SIZE_SECTIONS] = [{"kind": "constant", "size": [32, 64, 128]}]
    gradual_pruning: Annotated[Dimension, searchable(ParameterSpec("float", low=0, high=1))] = 0
    distillation: Distillation = Distillation()
    reference_batch_size: int | None = Field(None, ge=1)
    max_device_batch: int | None = Field(None, ge=1)
    recalibration_examples: int = Field(1024, ge=0)
    precision: Annotated[PrecisionName, BeforeValidator(_check_precision)] = "float32"
    channels_last: bool = False
    compile: bool = False


Method = _told_apart_by(
    "method",
    METHODS,
    Annotated[NeuronMethod, Tag("neuron")]
    | Annotated[LayerMethod, Tag("layer")]
    | Annotated[WeightMethod, Tag("weight")],
)


def _auto_or_integer(value: Any, low: int) -> Any:
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or value < low):
        rule = f"must be auto or an integer in [{low}, inf), got {{v}}"
        raise PydanticCustomError("auto_or_integer", rule, {"v": repr(value)})
    return value


def _check_sampler(name: Any) -> Any:
    if not isinstance(name, str) or (name not in SAMPLERS and ":" not in name):
        raise unknown("sampler", name, (*SAMPLERS, "module:callable"))
    return name


_PASSWORDS = re.compile(r"://[^:/?]*:([^?]*)@|[?&](?!passfile)\w*pass\w*=([^&]*)")
_KEYS = re.compile(r"://[^:/?]*:([^?]*)@|[?&]\w*(?:pass|secret|token|key|sas)\w*=([^&]*)", re.IGNORECASE)


def _refuse_secrets(url: str, secrets: re.Pattern[str], what: str) -> None:
    for found in secrets.finditer(url):
        if not re.fullmatch(r"(\$\{\w+\})?", found[1] or found[2] or ""):
            raise PydanticCustomError(
                "secret",
                "must not hold a {what}, as space files are copied into results: write ${NAME} in its place, and set "
                "that environment variable",
                {"what": what},
            )


def _check_storage(url: str) -> str:
    _refuse_secrets(url, _PASSWORDS, "password")
    return url


def _check_checkpoints(uri: str) -> str:
    _refuse_secrets(uri, _KEYS, "secret key")
    if not re.match(r"[A-Za-z][\w+.-]*://|\$\{\w+\}", uri):
        raise PydanticCustomError("uri", "must be a URI such as s3://bucket/folder or file:///some/folder")
    return uri


class Search(StrictModel):
    """How the study is run.

    Attributes:
        epochs: Training epochs of all trials together, after which none is begun, even if ``trials`` are not reached.
        ladder: Uniform ratios that are tried from the dense network first; ``auto`` is 4, or 0 with the start ``tree``.
        sampler: One of ``SAMPLERS``, or ``module:callable`` for a function from a seed to an Optuna sampler.
        start: Where trials start: each from a parent that the sampler picks, from the cheapest trained network that
            holds all they keep, or from the dense network; ``auto`` is ``tree`` with the sampler ``cost_aware``.
        sensitivity: Whether the sampler ``cost_aware`` first measures how the accuracy falls with each group alone cut,
            and cuts by that; else by the channels' norms.
        stop_early: Whether a trial ends before its last epoch when several others were as accurate by then at no more
            cost.
        scale: Axis of the costs on which the sampler ``cost_aware`` seeks hypervolume.
        warm_start: Folder of another study of the same network, whose finished trials and networks this one begins
            with; relative to the space file, or else to where the command runs.
        trial_timeout: Seconds that a trial may take each time it is begun or taken up again; then it has failed.
        storage: SQLAlchemy URL of the database that holds the study, environment variables as ``${NAME}``; ``None`` is
            an SQLite file in the study's folder.
        checkpoints: URI of a folder in any filesystem that pyarrow can name, for the trials' networks and epoch
            checkpoints, environment variables as ``${NAME}``; ``None`` is the study's folder.
    """

    trials: int = Field(60, ge=1)
    epochs: int | None = Field(None, ge=1)
    sampler: Annotated[str, BeforeValidator(_check_sampler)] = "auto"
    seed: int = Field(0, ge=0)
    start: Literal["auto", "tree", "nearest", "dense"] = "auto"
    scale: Literal["log", "linear"] = "log"
    sensitivity: bool = False
    stop_early: bool = False
    warm_start: str | None = None
    ladder: Annotated[Literal["auto"] | int, PlainValidator(partial(_auto_or_integer, low=0))] = "auto"
    max_failures: int = Field(5, ge=1)
    max_retries: int = Field(2, ge=0)
    trial_timeout: float | None = Field(None, gt=0)
    storage: Annotated[str, AfterValidator(_check_storage)] | None = None
    checkpoints: Annotated[str, AfterValidator(_check_checkpoints)] | None = None

    @model_validator(mode="after")
    def _check_tree(self) -> Self:
        if self.start == "tree" and self.sampler not in ("auto", "cost_aware"):
            rule = "must be nearest or dense with the sampler {sampler}: only cost_aware picks parents"
            error = PydanticCustomError("tree", rule, {"sampler": self.sampler})
            raise all_of([Mistake(("start",), error, self.start)])
        return self


class Certify(StrictModel):
    """Over how many seeds the points of the front are trained again, once the search has all its trials."""

    seeds: int = Field(3, ge=1, le=MAX_SEEDS)


RESERVED = {
    "CPU": "cpus_per_trial",
    "GPU": "gpus_per_trial",
    "memory": "memory_per_trial_gib",
    "object_store_memory": "memory_per_trial_gib",
}
"""Names that Ray keeps for itself -> the setting to use instead."""


def _check_custom(amounts: Any) -> Any:
    if not isinstance(amounts, dict):
        rule = "must be a mapping from names of Ray resources to amounts, got {value}"
        raise PydanticCustomError("no_mapping", rule, {"value": repr(amounts)})
    mistakes = []
    for name, amount in amounts.items():
        if not isinstance(name, str) or not name:
            error = PydanticCustomError("name", "must have texts as names, got {name}", {"name": repr(name)})
            mistakes.append(Mistake((), error, amounts))
        elif name in RESERVED:
            rule = "must not be one of Ray's own resources: set resources.{setting} instead"
            mistakes.append(Mistake((name,), PydanticCustomError("own", rule, {"setting": RESERVED[name]}), amount))
        elif isinstance(amount, bool) or not isinstance(amount, int | float) or not LEAST_AMOUNT <= amount < math.inf:
            rule = f"must be a number of {LEAST_AMOUNT} or more, got {{value}}"
            mistakes.append(Mistake((name,), PydanticCustomError("amount", rule, {"value": repr(amount)}), amount))
    if mistakes:
        raise all_of(mistakes)
    return amounts


def _check_gpus(n_gpus: float) -> float:
    if 0 < n_gpus < LEAST_AMOUNT or (n_gpus > 1 and n_gpus != int(n_gpus)):
        rule = f"must be 0, a share of a GPU in [{LEAST_AMOUNT}, 1], or a whole number, got {{value}}"
        raise PydanticCustomError("gpus", rule, {"value": f"{n_gpus:g}"})
    return n_gpus


class Resources(StrictModel):
    """Where trials run.

    Attributes:
        workers: Trials at the same time; ``auto`` is as many as there is room for.
        cpus_per_trial: Cores, and torch threads, of a trial; ``None`` divides this machine's among the workers.
        gpus_per_trial: GPUs of a trial: 0 trains on the CPU; 0.25 is four trials on each GPU.
        custom: Ray resource -> amount of it that a trial takes, of a Ray that is joined by ``--address``.
        memory_per_trial_gib: Main memory, in units of 2**30 bytes, that a trial may take beyond what its process holds
            with the data loaded, about 0.5 and the data; a trial that asks for more has failed.
    """

    workers: Annotated[Literal["auto"] | int, PlainValidator(partial(_auto_or_integer, low=1))] = "auto"
    cpus_per_trial: int | None = Field(None, ge=1)
    gpus_per_trial: Annotated[float, Field(ge=0), AfterValidator(_check_gpus)] = 0
    custom: Annotated[dict[str, float], BeforeValidator(_check_custom)] = {}
    memory_per_trial_gib: float | None = Field(None, gt=0)


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
        list[Any], as_type(list[Method]), Field(min_length=1), _no_repeats("method"), BeforeValidator(_as_list)
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
