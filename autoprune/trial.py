"""What goes into a trial and what comes out of it: frozen, plain, and turned to JSON and back without loss."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic_core import from_json, to_jsonable_python

Scalar = float | int | bool | str
TrialState = Literal["finished", "stopped", "failed", "infeasible", "repeated"]
WeightScope = Literal["layer", "global", "lamp"]
WeightPattern = Literal["none", "2:4"]

MAX_SEEDS = 1000
"""Seeds over which a trial can be repeated at most."""


@dataclass(frozen=True)
class SensitivityJob:
    """A look at the dense network with one group pruned and not trained, before the first trial.

    Attributes:
        index: Which point of the sensitivity map, 0-based.
    """

    index: int


@dataclass(frozen=True)
class Replicate:
    """A trial that is trained again with another seed, after the last trial.

    Attributes:
        trial: Number of the trial in the search.
        index: Which of the seeds, in [0, ``MAX_SEEDS``).
        from_dense: Whether all its lineage's epochs are trained in one go from the dense network, instead of its own
            from its parent's replicate of the same index.
    """

    trial: int
    index: int
    from_dense: bool = False

    def __str__(self) -> str:
        return f"{self.trial}-seed{self.index}{'-dense' if self.from_dense else ''}"


RunId = int | SensitivityJob | Replicate
"""Which run a worker is given: a trial, by its number, a sensitivity job, or a replicate of a trial."""


@dataclass(frozen=True)
class ScheduleConfig:
    """One learning-rate or batch-size schedule: its kind and the parameters of that kind."""

    kind: str
    params: Mapping[str, Scalar]


@dataclass(frozen=True)
class OptimizerConfig:
    """An optimizer and its settings, but for the learning rate, which the schedule gives."""

    name: str
    params: Mapping[str, Scalar]


@dataclass(frozen=True)
class DistillationConfig:
    """How far a trial's training follows the dense network's outputs.

    Attributes:
        weight: Share of the loss that compares the outputs with the dense network's, in [0, 1]; 0 does not look at it.
        temperature: What the class scores of both are divided by, 1 or more: the higher, the more it counts how the
            dense network ranks the classes that it does not choose.
    """

    weight: float = 0.0
    temperature: float = 4.0


@dataclass(frozen=True)
class PruningConfig:
    """What to remove from the dense network, all three methods together.

    Attributes:
        widths: Group name -> channels to keep, for the groups that lose some; a group not named keeps its width.
        criterion: Importance criterion for the neuron method.
        reconstruct: Whether the layers that read lost channels are fitted to what they gave before.
        removed_blocks: Names of the blocks that are removed.
        weight_ratios: Parameter name -> share of its single weights set to zero, in [0, 1).
        weight_scope: ``"layer"`` ranks weights within each parameter; ``"global"`` ranks all named parameters together,
            at the overall share that the ratios amount to; ``"lamp"`` does so by LAMP score instead of magnitude.
        weight_pattern: ``"2:4"`` zeroes two of every four consecutive weights along the input of the named parameters,
            whose ratio is then 0.5; ``"none"`` lets the zeros fall anywhere.
        gradual_share: Share of the retraining over which ratios grow from the parent's to the asked ones; 0 prunes at
            once.
    """

    widths: Mapping[str, int] = field(default_factory=dict)
    criterion: str = "l2"
    reconstruct: bool = False
    removed_blocks: tuple[str, ...] = ()
    weight_ratios: Mapping[str, float] = field(default_factory=dict)
    weight_scope: WeightScope = "layer"
    weight_pattern: WeightPattern = "none"
    gradual_share: float = 0.0


@dataclass(frozen=True)
class TrialConfig:
    """Everything a worker needs to know to run one trial.

    Attributes:
        run: Which run this is.
        seed: Seed of this trial alone, derived from the study's.
        epochs: Epochs of retraining.
        parent: Number of the finished trial to start from; ``None`` is the dense network. A replicate starts from its
            parent's replicate: see :attr:`parent_run`.
        params: The flat parameters as suggested, for the record.
        with_test: Whether the test split is read at the end; no trial of a search does.
    """

    run: RunId
    seed: int
    epochs: int
    optimizer: OptimizerConfig
    lr_schedule: ScheduleConfig
    batch_size_schedule: ScheduleConfig
    pruning: PruningConfig
    parent: int | None = None
    distillation: DistillationConfig = DistillationConfig()
    params: Mapping[str, Scalar] = field(default_factory=dict)
    with_test: bool = False

    @property
    def number(self) -> int:
        """The trial's number; raises TypeError for a run that is no trial."""
        return trial_number(self.run)

    @property
    def parent_run(self) -> RunId | None:
        """The run to start from; ``None`` is the dense network."""
        if self.parent is not None and isinstance(self.run, Replicate):
            return Replicate(self.parent, self.run.index)
        return self.parent


def sensitivity_config(job: SensitivityJob, widths: Mapping[str, int], seed: int) -> TrialConfig:
    """Return the configuration of a job: the dense network at these widths, batch norm recalibrated, not trained."""
    untrained = ScheduleConfig("constant", {})
    return TrialConfig(
        run=job,
        seed=seed,
        epochs=0,
        optimizer=OptimizerConfig("sgd", {}),
        lr_schedule=untrained,
        batch_size_schedule=untrained,
        pruning=PruningConfig(widths=widths),
    )


@dataclass(frozen=True)
class Cost:
    """What a network costs, every figure in the unit that its name ends with.

    ``macs`` counts one multiply-accumulate as 1 for a batch of one example. ``latency_ms`` is the median over repeated
    runs and ``None`` where it was not measured.
    """

    params: int
    nonzero_params: int
    size_bytes: int
    macs: int
    latency_ms: float | None = None

    @property
    def flops(self) -> int:
        """Floating-point operations, two for each multiply-accumulate."""
        return 2 * self.macs

    def figures(self) -> dict[str, float]:
        """Return the figures by name, ``flops`` too; a latency that was not measured is left out."""
        return {name: value for name, value in {**asdict(self), "flops": self.flops}.items() if value is not None}


@dataclass(frozen=True)
class Latency:
    """A measured latency and its circumstances.

    Attributes:
        latency_ms: Median time of one forward pass of the batch.
        device: Name of the processor or GPU.
        threads: Threads that torch uses on the CPU.
        n_runs: Passes that the median is of, the warm-up not among them.
    """

    latency_ms: float
    device: str
    batch_size: int
    threads: int
    n_runs: int

    def conditions(self) -> dict[str, str | int]:
        """Return what must be alike for two latencies to compare: device, batch size and threads."""
        return {"device": self.device, "batch_size": self.batch_size, "threads": self.threads}


@dataclass(frozen=True)
class EpochReport:
    """How a trial stands after one more epoch.

    Attributes:
        epoch: Epochs done so far, 1 after the first.
        metric: The task's metric on the validation split.
        loss: Mean loss on the validation split.
        train_loss: Mean loss over the epoch's training steps.
        lr: Learning rate at the epoch's last step.
        batch_size: Batch size at the epoch's last full step.
        kept: Group name -> channels that the network has now; 0 where the group's block was removed.
        cost: Of the network as it is now, its latency not measured; ``None`` where the study stops no trial early.
        device_batch: Most examples in one forward pass of the training by now: fewer than the batch, or than
            ``training.max_device_batch``, where the device's memory was not enough; ``None`` if nothing limits them.
    """

    run: RunId
    epoch: int
    metric: float
    loss: float
    train_loss: float
    lr: float
    batch_size: int
    train_time_s: float
    kept: Mapping[str, int] = field(default_factory=dict)
    removed_blocks: tuple[str, ...] = ()
    cost: Cost | None = None
    device_batch: int | None = None

    @property
    def number(self) -> int:
        """The trial's number; raises TypeError for a run that is no trial."""
        return trial_number(self.run)


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended.

    Of a trial that was stopped, all is told of the network as it was after its last epoch.

    Attributes:
        metric: The task's metric on the validation split; ``None`` unless the trial was trained.
        cost: ``None`` if the trial failed before it was measured; without a latency if it was stopped.
        kept: Group name -> channels that the network really has; 0 where the group's block was removed.
        epochs_lineage: Epochs of this trial and of all its ancestors, the dense network's own training not counted.
        error: Cause of a failure, the ceiling that an infeasible trial broke, or the trial that one repeats.
        left_dense: Parameters asked to take a weight pattern that does not fit them, and that lost no weight.
        metric_test: The task's metric on the test split, where the configuration asked for it.
        device_batch: As in its last :class:`EpochReport`.
        metric_se: Standard error of ``metric``; ``None`` where it is not known.
    """

    run: RunId
    state: TrialState
    metric: float | None = None
    loss: float | None = None
    cost: Cost | None = None
    kept: Mapping[str, int] = field(default_factory=dict)
    removed_blocks: tuple[str, ...] = ()
    epochs: int = 0
    epochs_lineage: int = 0
    train_time_s: float = 0.0
    seed: int = 0
    error: str | None = None
    left_dense: tuple[str, ...] = ()
    metric_test: float | None = None
    device_batch: int | None = None
    metric_se: float | None = None

    @property
    def number(self) -> int:
        """The trial's number; raises TypeError for a run that is no trial."""
        return trial_number(self.run)


def run_name(run: RunId) -> str:
    """Return the name of a run as logs show it.

    Example:
        >>> [run_name(run) for run in (12, Replicate(3, 0), SensitivityJob(5))]
        ['trial 12', 'trial 3-seed0', 'sensitivity job 5']
    """
    return f"sensitivity job {run.index}" if isinstance(run, SensitivityJob) else f"trial {run}"


def trial_number(run: RunId) -> int:
    """Return the number of a run that is a trial; raises TypeError for any other."""
    if not isinstance(run, int):
        raise TypeError(f"{run!r} is no trial, so it has no trial number.")
    return run


# Made once: making one takes a millisecond, using it a few microseconds.
_CONFIG, _REPORT, _RESULT = TypeAdapter(TrialConfig), TypeAdapter(EpochReport), TypeAdapter(TrialResult)


def to_dict(record: TrialConfig | EpochReport | TrialResult | Cost) -> dict[str, Any]:
    """Turn a record into plain JSON values; NaN and infinity stay, as Python's ``json`` writes and reads them."""
    plain: dict[str, Any] = to_jsonable_python(record)
    if not isinstance(record, Cost):
        del plain["run"]
        plain = {"number": _run_to_json(record.run), **plain}
    if isinstance(record, TrialConfig) and record.parent_run is not None:
        plain["parent"] = _run_to_json(record.parent_run)
    return plain


_FIRST_REPLICATE = -1_000_000
"""In records a run is one integer: a trial's number, sensitivity jobs from -1 down, replicates from here down."""


def _run_to_json(run: RunId) -> int:
    if isinstance(run, SensitivityJob):
        return -1 - run.index
    if isinstance(run, Replicate):
        return _FIRST_REPLICATE - 2 * (run.trial * MAX_SEEDS + run.index) - run.from_dense
    return run


def _run_from_json(number: int) -> RunId:
    if number >= 0:
        return number
    if number > _FIRST_REPLICATE:
        return SensitivityJob(-1 - number)
    rest, from_dense = divmod(_FIRST_REPLICATE - number, 2)
    return Replicate(*divmod(rest, MAX_SEEDS), bool(from_dense))


_FORMER_NAMES = {"accuracy": "metric", "accuracy_test": "metric_test"}
"""Fields as records of schema 1 have them -> as they are called now."""


def _with_run(record: Any) -> Any:
    """Return a record with the run that its ``number`` and ``parent`` stand for; what is no record stays as it is."""
    if not isinstance(record, Mapping):
        return record
    values = {_FORMER_NAMES.get(name, name): value for name, value in record.items()}
    if isinstance(values.get("number"), int):
        values["run"] = _run_from_json(values.pop("number"))
    if isinstance(parent := values.get("parent"), int) and isinstance(run := _run_from_json(parent), Replicate):
        values["parent"] = run.trial
    return values


def parse_json(text: str) -> Any:
    """What Python's ``json`` reads, two to four times as fast."""
    try:
        return from_json(text)
    except ValueError:  # half of a surrogate pair, which only Python's takes, in the message of some error
        return json.loads(text)


def config_from_dict(record: Mapping[str, Any]) -> TrialConfig:
    """Rebuild a trial's configuration; raises ``pydantic.ValidationError`` if the record is not one."""
    return _CONFIG.validate_python(_with_run(record))


def report_from_dict(record: Mapping[str, Any]) -> EpochReport:
    """Rebuild an epoch's report; raises ``pydantic.ValidationError`` if the record is not one."""
    return _REPORT.validate_python(_with_run(record))


def result_from_dict(record: Mapping[str, Any]) -> TrialResult:
    """Rebuild a trial's result; raises ``pydantic.ValidationError`` if the record is not one."""
    return _RESULT.validate_python(_with_run(record))
