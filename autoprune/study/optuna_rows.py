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
from sqlalchemy import bindparam, orm

from autoprune.trial import parse_json

Session = orm.Session | orm.scoped_session[orm.Session]

_distribution = lru_cache(maxsize=4096)(json_to_distribution)  # the dimensions of a space are few, its trials many

_TRIALS = sqlalchemy.inspect(TrialModel).local_table


def _statements(wanted: sqlalchemy.ColumnElement[bool]) -> dict[type, sqlalchemy.Select[Any]]:
    """What reads the trials for which a condition holds, table by table; made once, which takes SQLAlchemy long."""
    columns = {
        TrialParamModel: ("param_id", "param_name", "param_value", "distribution_json"),
        TrialValueModel: ("objective", "value", "value_type"),
        TrialUserAttributeModel: ("key", "value_json"),
        TrialSystemAttributeModel: ("key", "value_json"),
        TrialIntermediateValueModel: ("step", "intermediate_value", "intermediate_value_type"),
    }
    statements: dict[type, sqlalchemy.Select[Any]] = {
        TrialModel: sqlalchemy.select(
            *(_TRIALS.c[name] for name in ("trial_id", "number", "state", "datetime_start", "datetime_complete"))
        )
        .where(wanted)
        .order_by(_TRIALS.c.trial_id)
    }
    for model, names in columns.items():
        table = sqlalchemy.inspect(model).local_table
        query = sqlalchemy.select(*(table.c[name] for name in ("trial_id", *names)))
        statements[model] = query.select_from(table.join(_TRIALS)).where(wanted)
    return statements


_ONE = _statements(_TRIALS.c.trial_id == bindparam("trial_id"))
_NEWER = _statements(
    (_TRIALS.c.study_id == bindparam("study_id"))
    & ((_TRIALS.c.trial_id > bindparam("above")) | _TRIALS.c.trial_id.in_(bindparam("among", expanding=True)))
)


def newer_trials(session: Session, study_id: int, among: Collection[int], above: int) -> list[FrozenTrial]:
    """A study's trials with ids above one, and those among some that are not above it, by id."""
    older = [trial_id for trial_id in among if trial_id <= above]
    return _read(session, _NEWER, {"study_id": study_id, "above": above, "among": older})


def one_trial(session: Session, trial_id: int) -> FrozenTrial | None:
    """The trial with this id, if there is one."""
    found = _read(session, _ONE, {"trial_id": trial_id})
    return found[0] if found else None


def _read(
    session: Session, statements: Mapping[type, sqlalchemy.Select[Any]], parameters: dict[str, Any]
) -> list[FrozenTrial]:
    """Trials as Optuna's storage gives them; the number of queries does not depend on how many there are."""
    connection = session.connection()
    trials = connection.execute(statements[TrialModel], parameters).all()
    if not trials:
        return []

    def rows(model: type) -> Mapping[int, list[Any]]:
        found: dict[int, list[Any]] = defaultdict(list)
        for trial_id, *row in connection.execute(statements[model], parameters):
            found[trial_id].append(row)
        return found

    params, values, steps = rows(TrialParamModel), rows(TrialValueModel), rows(TrialIntermediateValueModel)
    user_attrs, system_attrs = rows(TrialUserAttributeModel), rows(TrialSystemAttributeModel)
    value_of = TrialValueModel.stored_repr_to_value
    step_of = TrialIntermediateValueModel.stored_repr_to_intermediate_value
    built = []
    for key, number, state, start, complete in trials:
        suggested = [(name, value, _distribution(text)) for _, name, value, text in sorted(params.get(key, []))]
        built.append(
            FrozenTrial(
                number=number,
                state=state,
                value=None,
                values=[value_of(value, kind) for _, value, kind in sorted(values.get(key, []))] or None,
                datetime_start=start,
                datetime_complete=complete,
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
