"""The `search` and `certify` sections of a space file: how the study is run."""

import re
from functools import partial
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from autoprune.config.strict import Mistake, StrictModel, all_of, auto_or_integer, unknown
from autoprune.trial import MAX_SEEDS

SAMPLERS = ("auto", "cost_aware", "tpe", "nsga2", "nsga3", "gp", "random", "qmc")


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
        sensitivity: Whether the sampler ``cost_aware`` first measures how the metric suffers with each group alone cut,
            and cuts by that; else by the channels' norms.
        stop_early: Whether a trial ends before its last epoch when several others were as good by then at no more
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
    ladder: Annotated[Literal["auto"] | int, PlainValidator(partial(auto_or_integer, low=0))] = "auto"
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
