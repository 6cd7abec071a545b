"""The `resources` section of a space file: where trials run."""

import math
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator
from pydantic_core import PydanticCustomError

from autoprune.config.strict import Mistake, StrictModel, all_of, auto_or_integer

LEAST_AMOUNT = 0.0001
"""The smallest share of a resource that Ray tells from none."""
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

    workers: Annotated[Literal["auto"] | int, PlainValidator(partial(auto_or_integer, low=1))] = "auto"
    cpus_per_trial: int | None = Field(None, ge=1)
    gpus_per_trial: Annotated[float, Field(ge=0), AfterValidator(_check_gpus)] = 0
    custom: Annotated[dict[str, float], BeforeValidator(_check_custom)] = {}
    memory_per_trial_gib: float | None = Field(None, gt=0)
