"""Optuna's storage of a study: one SQLite file in the study's folder, or any database that a URL names."""

import json
import warnings
import weakref
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import quote

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, check_distribution_compatibility, distribution_to_json
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb.models import NOT_FOUND_MSG, StudyModel, StudyUserAttributeModel, TrialParamModel
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import orm
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from autoprune.errors import StudyError, UnwritableError
from autoprune.study.database import Database, cause_of
from autoprune.study.folder import StudyFolder, unwritable
from autoprune.study.optuna_rows import StudyRecord, newer_trials, one_trial, read_record

T = TypeVar("T")

SQLITE_TIMEOUT_S = 60
"""How long a write waits for another process that reads the file."""

FOLDER = "autoprune:folder"
"""Name of the study's user attribute that says, in a database of many studies, whose folder has its networks."""

_UNWRITABLE = ("disk is full", "readonly database", "unable to open database file")
"""What SQLite says when its file or the journal beside it can't be written."""

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


def open_study(
    folder: StudyFolder, url: str | None, name: str, objectives: Sequence[str], directions: Sequence[str]
) -> optuna.Study:
    """Open a study, or create it.

    Args:
        url: As ``search.storage`` names a database; ``None`` is the file in the folder.

    Raises:
        StudyError: If the storage can't be used, or holds another study of this name: of other directions, or one whose
            networks are in another folder.
    """
    study = _opened(
        folder,
        _database(url),
        lambda storage: _read(
            optuna.create_study(
                storage=storage,
                study_name=name,
                directions=[StudyDirection[name.upper()] for name in directions],
                load_if_exists=True,
            )
        ),
    )
    found = [direction.name.lower() for direction in study.directions]
    if found != list(directions):
        raise StudyError(
            f"{url or folder.database}: holds a study '{name}' with directions {found}, not {list(directions)}."
        )
    if url is not None:
        _claim(study, folder, url)
    if study.metric_names is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(list(objectives))  # so that Optuna's tools label their axes
    return study


def _claim(study: optuna.Study, folder: StudyFolder, url: str) -> None:
    """Bind a study in a database to the folder with its networks, of two machines' folders to the first one's."""
    storage, identity = study._storage, folder.identity()
    if FOLDER not in study.user_attrs:
        row = StudyUserAttributeModel(study_id=study._study_id, key=FOLDER, value_json=json.dumps(identity))
        with suppress(IntegrityError), orm.Session(_rows_of(storage).engine) as session, session.begin():
            session.add(row)  # not Optuna's way, by which the last one to write would have it
    if study.user_attrs[FOLDER] != identity:
        raise StudyError(
            f"{url}: the study '{study.study_name}' there belongs to another results folder than {folder.root}, which "
            "has its networks. Name that folder with --results, or give this study another name."
        )


def _rows_of(storage: BaseStorage) -> RDBStorage:
    """The database below the cache that Optuna lays over it."""
    inner = storage._backend if isinstance(storage, _CachedStorage) else storage
    assert isinstance(inner, RDBStorage)
    return inner


def load_study(folder: StudyFolder, url: str | None, name: str) -> optuna.Study:
    """Open a study that was started before; raises StudyError if its storage can't be used or does not hold it."""
    _check_exists(folder, url)
    return _loaded(folder, _database(url), name)


def _loaded(folder: StudyFolder, database: Database | None, name: str) -> optuna.Study:
    return _opened(folder, database, lambda storage: _read(optuna.load_study(storage=storage, study_name=name)))


def load_record(folder: StudyFolder, url: str | None, name: str, keys: Collection[str]) -> StudyRecord:
    """Read a study as :func:`load_study` does, but of its trials only the user attributes of these names."""
    _check_exists(folder, url)
    database = _database(url)
    with _errors_told(folder, database):
        url, options = _connection(folder, database)
        engine = sqlalchemy.create_engine(url, **options)
        try:  # not through Optuna's storage, which loads Alembic and takes long
            with orm.Session(engine) as session:
                return read_record(session, name, keys)
        finally:
            engine.dispose()


def _check_exists(folder: StudyFolder, url: str | None) -> None:
    if url is None and not folder.database.exists():
        raise StudyError(f"{folder.database}: no such file. `autoprune search` on the space file starts the study.")


def read_study(folder: StudyFolder, url: str | None, name: str) -> optuna.Study:
    """Open a study that another process may be writing, as :func:`load_study` does, but only to read."""
    if url is not None or not folder.database.exists():
        return load_study(folder, url, name)
    path = quote(quote(str(folder.database)))  # SQLAlchemy undoes one, SQLite the other
    read_only = f"sqlite:///file:{path}?mode=ro&uri=true&timeout={SQLITE_TIMEOUT_S}"
    try:
        return _loaded(folder, Database(read_only, sqlalchemy.make_url(read_only)), name)
    except StudyError as error:
        cause = (
            str(error).removeprefix(f"{read_only}: can't be opened as a study: ").removesuffix(" Mend search.storage.")
        )
        raise StudyError(
            f"{folder.database}: can't be read as a study: {cause} If a crash left it half written, "
            "`autoprune status` on its folder mends it."
        ) from None


def _read(study: optuna.Study) -> optuna.Study:
    study.get_trials(deepcopy=False)  # damage shows when the trials are read
    return study


def _database(url: str | None) -> Database | None:
    return None if url is None else Database.named(url)


def _opened(folder: StudyFolder, database: Database | None, opening: Callable[[HoldingStorage], T]) -> T:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with _errors_told(folder, database):
        storage = HoldingStorage(*_connection(folder, database))
        weakref.finalize(storage, storage.engine.dispose)  # closes its connections
        return opening(storage)


def _connection(folder: StudyFolder, database: Database | None) -> tuple[str, dict[str, Any]]:
    """The URL that a study is opened by, and the settings of SQLAlchemy's engine."""
    if database is not None:
        return database.url.render_as_string(hide_password=False), database.engine_options
    return f"sqlite:///{folder.database}", {"connect_args": {"timeout": SQLITE_TIMEOUT_S}}


@contextmanager
def _errors_told(folder: StudyFolder, database: Database | None) -> Iterator[None]:
    """Tell why a study can't be opened; raises StudyError."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, RuntimeError, ImportError, KeyError) as error:
        if database is not None:
            cause, way_out = database.cause_of(error), database.way_out(error)
            raise StudyError(f"{database.name}: can't be opened as a study: {cause}. {way_out}") from None
        cause = cause_of(error)
        if any(sign in cause for sign in _UNWRITABLE):
            raise unwritable(folder.database, cause) from None
        raise StudyError(
            f"{folder.database}: can't be opened as a study: {cause}. Restore it, or give the study another name."
        ) from None


def storage_error(folder: StudyFolder, url: str | None, error: Exception) -> UnwritableError:
    """The error for a study that can't be written any more amid a search, with the cause and the way out."""
    if url is None or isinstance(error, OSError):
        return unwritable(folder.root, cause_of(error))
    cause = Database.named(url).cause_of(error)
    return UnwritableError(
        f"{url}: the study can't be written: {cause}. Start the database again; then the same command goes on."
    )
