"""Trials read from Optuna's tables as plain rows, which its own way, one object a row, takes many times as long for."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy
from optuna.distributions import json_to_distribution
from optuna.storages._rdb.models import (
    StudyModel,
    StudyUserAttributeModel,
    TrialIntermediateValueModel,
    TrialModel,
    TrialParamModel,
    TrialSystemAttributeModel,
    TrialUserAttributeModel,
    TrialValueModel,
)
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import orm

from autoprune.trial import parse_json

Session = orm.Session | orm.scoped_session[orm.Session]
Wanted = sqlalchemy.ColumnElement[bool]

_distribution = lru_cache(maxsize=4096)(json_to_distribution)  # the dimensions of a space are few, its trials many


def newer_trials(study_id: int, among: Collection[int], above: int) -> Wanted:
    """The condition for a study's trials with ids above one, and those among some that are not above it."""
    newer = TrialModel.trial_id > above
    older = [trial_id for trial_id in among if trial_id <= above]
    return (TrialModel.study_id == study_id) & (newer | TrialModel.trial_id.in_(older) if older else newer)


def read_trials(session: Session, wanted: Wanted) -> list[FrozenTrial]:
    """Trials by id, as Optuna's storage gives them; the number of queries does not depend on how many there are."""
    trials: Sequence[Any] = session.scalars(
        sqlalchemy.select(TrialModel).where(wanted).order_by(TrialModel.trial_id)
    ).all()
    if not trials:
        return []

    def rows(model: Any, *columns: str) -> Mapping[int, list[Any]]:
        found: dict[int, list[Any]] = defaultdict(list)
        query = sqlalchemy.select(model.trial_id, *(getattr(model, column) for column in columns))
        for trial_id, *row in session.execute(query.join(TrialModel).where(wanted)):
            found[trial_id].append(row)
        return found

    params = rows(TrialParamModel, "param_id", "param_name", "param_value", "distribution_json")
    values = rows(TrialValueModel, "objective", "value", "value_type")
    user_attrs = rows(TrialUserAttributeModel, "key", "value_json")
    system_attrs = rows(TrialSystemAttributeModel, "key", "value_json")
    steps = rows(TrialIntermediateValueModel, "step", "intermediate_value", "intermediate_value_type")
    value_of = TrialValueModel.stored_repr_to_value
    step_of = TrialIntermediateValueModel.stored_repr_to_intermediate_value
    built = []
    for trial in trials:
        key = trial.trial_id
        suggested = [(name, value, _distribution(text)) for _, name, value, text in sorted(params.get(key, []))]
        built.append(
            FrozenTrial(
                number=trial.number,
                state=trial.state,
                value=None,
                values=[value_of(value, kind) for _, value, kind in sorted(values.get(key, []))] or None,
                datetime_start=trial.datetime_start,
                datetime_complete=trial.datetime_complete,
                params={name: distribution.to_external_repr(value) for name, value, distribution in suggested},
                distributions={name: distribution for name, _, distribution in suggested},
                user_attrs={name: parse_json(text) for name, text in user_attrs.get(key, [])},
                system_attrs={name: parse_json(text) for name, text in system_attrs.get(key, [])},
                intermediate_values={step: step_of(value, kind) for step, value, kind in steps.get(key, [])},
                trial_id=key,
            )
        )
    return built


@dataclass(frozen=True)
class TrialRecord:
    """Of a trial only what this package itself keeps of it, in ``user_attrs``."""

    number: int
    state: TrialState
    user_attrs: Mapping[str, Any]


@dataclass(frozen=True)
class StudyRecord:
    """Of a study only what this package itself keeps of it, in ``user_attrs``."""

    user_attrs: Mapping[str, Any]
    trials: Sequence[TrialRecord]


def read_record(session: orm.Session, name: str, keys: Collection[str]) -> StudyRecord:
    """A study, and its trials by number with the user attributes of these names, in few queries.

    Raises:
        KeyError: If there is no study of this name.
    """
    study_id = StudyModel.find_or_raise_by_name(name, session).study_id
    of_study = sqlalchemy.select(StudyUserAttributeModel.key, StudyUserAttributeModel.value_json).where(
        StudyUserAttributeModel.study_id == study_id
    )
    user_attrs = {key: parse_json(text) for key, text in session.execute(of_study)}
    wanted = TrialModel.study_id == study_id
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    attributes = (
        sqlalchemy.select(TrialModel.number, TrialUserAttributeModel.key, TrialUserAttributeModel.value_json)
        .select_from(TrialUserAttributeModel)
        .join(TrialModel)
        .where(wanted, TrialUserAttributeModel.key.in_(keys))
    )
    for number, key, text in session.execute(attributes):
        found[number][key] = parse_json(text)
    trials = sqlalchemy.select(TrialModel.number, TrialModel.state).where(wanted).order_by(TrialModel.number)
    records = [TrialRecord(number, state, found.get(number, {})) for number, state in session.execute(trials)]
    return StudyRecord(user_attrs, records)
