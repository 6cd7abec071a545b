"""All that leans on private parts of Optuna: its tables, its storage's inner methods, a study's link to its storage.

Trials are read as plain rows, which Optuna's own way, one object a row, takes many times as long for, and written with
few commits. The tests of this file say which part an upgrade of Optuna broke.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb.models import (
    NOT_FOUND_MSG,
    StudyModel,
    StudyUserAttributeModel,
    TrialIntermediateValueModel,
    TrialModel,
    TrialParamModel,
    TrialSystemAttributeModel,
    TrialUserAttributeModel,
    TrialValueModel,
)
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import bindparam, orm
from sqlalchemy.exc import IntegrityError

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


_Held = tuple[int, str, float, BaseDistribution, BaseDistribution | None]


class HoldingStorage(RDBStorage):
    """Optuna's database, but the values suggested for a trial are written in one transaction.

    Optuna commits each value by itself, which takes milliseconds. Here they are held until anything else is read or
    written, as Optuna's contract for its cached storage allows: whoever sees what was written later sees them too.
    """

    _held: list[_Held]
    _sessions: orm.scoped_session[orm.Session]

    @property
    def scoped_session(self) -> orm.scoped_session[orm.Session]:
        """The sessions through which all else is read and written."""
        held, self._held = self._held, []
        if held:
            with _create_scoped_session(self._sessions) as session:
                self._write(session, held)
        return self._sessions

    @scoped_session.setter
    def scoped_session(self, sessions: orm.scoped_session[orm.Session]) -> None:
        self._sessions, self._held = sessions, []

    def _set_trial_param(
        self, trial_id: int, name: str, value: float, distribution: BaseDistribution, previous: BaseDistribution | None
    ) -> None:
        self._held.append((trial_id, name, value, distribution, previous))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Read a trial; raises KeyError if there is none with this id."""
        with _create_scoped_session(self.scoped_session) as session:
            trial = one_trial(session, trial_id)
        if trial is None:
            raise KeyError(NOT_FOUND_MSG)
        return trial

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        with _create_scoped_session(self.scoped_session) as session:
            StudyModel.find_or_raise_by_id(study_id, session)
            trials = newer_trials(session, study_id, included_trial_ids, trial_id_greater_than)
        return [trial for trial in trials if states is None or trial.state in states]

    def _write(self, session: orm.Session, held: Sequence[_Held]) -> None:
        rows = []
        for trial_id, name, value, distribution, previous in held:
            if previous is None:
                self._set_trial_param_without_commit(session, trial_id, name, value, distribution)
                continue
            check_distribution_compatibility(previous, distribution)
            as_json = distribution_to_json(distribution)
            rows.append({"trial_id": trial_id, "param_name": name, "param_value": value, "distribution_json": as_json})
        if rows:
            session.execute(sqlalchemy.insert(TrialParamModel), rows)


def set_user_attr(study: optuna.Study, number: int, key: str, value: Any) -> None:
    """Set a user attribute of a trial that has not ended."""
    storage, trial_id = _stored(study, number)
    storage.set_trial_user_attr(trial_id, key, value)


def requeue(study: optuna.Study, number: int) -> None:
    """Let a running trial wait, so that :meth:`optuna.Study.ask` gives it out again."""
    storage, trial_id = _stored(study, number)
    storage.set_trial_state_values(trial_id, state=TrialState.WAITING)


def read_trial(study: optuna.Study, number: int) -> FrozenTrial:
    """Read one trial, without all others."""
    storage, trial_id = _stored(study, number)
    return storage.get_trial(trial_id)


def _stored(study: optuna.Study, number: int) -> tuple[BaseStorage, int]:
    storage = study._storage
    return storage, storage.get_trial_id_from_study_id_trial_number(study._study_id, number)


def set_first(storage: RDBStorage, name: str, key: str, value: Any) -> None:
    """Set a study's user attribute unless it is set: of several processes the first wins, by Optuna's way the last."""
    row = StudyUserAttributeModel(study_id=storage.get_study_id_from_name(name), key=key, value_json=json.dumps(value))
    with suppress(IntegrityError), orm.Session(storage.engine) as session, session.begin():
        session.add(row)


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
