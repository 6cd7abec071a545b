"""Optuna's storage of a study: one SQLite file in the study's folder, or any database that a URL names."""

import warnings
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.study import StudyDirection
from sqlalchemy import orm
from sqlalchemy.exc import SQLAlchemyError

from autoprune.errors import StudyError, UnwritableError
from autoprune.study.database import Database, cause_of
from autoprune.study.folder import StudyFolder, unwritable
from autoprune.study.optuna_private import HoldingStorage, StudyRecord, read_record, set_first

SQLITE_TIMEOUT_S = 60
"""How long a write waits for another process that reads the file."""

FOLDER = "autoprune:folder"
"""Name of the study's user attribute that says, in a database of many studies, whose folder has its networks."""

_UNWRITABLE = ("disk is full", "readonly database", "unable to open database file")
"""What SQLite says when its file or the journal beside it can't be written."""

_STORAGE_ERRORS = (SQLAlchemyError, StorageInternalError, RuntimeError, ImportError, KeyError)
"""What Optuna and SQLAlchemy raise where a study can't be opened."""


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
    study, storage = _opened(
        folder,
        _database(url),
        lambda storage: optuna.create_study(
            storage=storage,
            study_name=name,
            directions=[StudyDirection[name.upper()] for name in directions],
            load_if_exists=True,
        ),
    )
    found = [direction.name.lower() for direction in study.directions]
    if found != list(directions):
        raise StudyError(
            f"{url or folder.database}: holds a study '{name}' with directions {found}, not {list(directions)}."
        )
    if url is not None:
        _claim(study, storage, folder, url)
    if study.metric_names is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(list(objectives))  # so that Optuna's tools label their axes
    return study


def _claim(study: optuna.Study, storage: HoldingStorage, folder: StudyFolder, url: str) -> None:
    """Bind a study in a database to the folder with its networks, of two machines' folders to the first one's."""
    identity = folder.identity()
    if FOLDER not in study.user_attrs:
        set_first(storage, study.study_name, FOLDER, identity)
    if study.user_attrs[FOLDER] != identity:
        raise StudyError(
            f"{url}: the study '{study.study_name}' there belongs to another results folder than {folder.root}, which "
            "has its networks. Name that folder with --results, or give this study another name."
        )


def load_record(
    folder: StudyFolder, url: str | None, name: str, keys: Collection[str], *, read_only: bool = False
) -> StudyRecord:
    """Read of a study's trials only the user attributes of these names.

    Args:
        url: As ``search.storage`` names a database; ``None`` is the file in the folder.
        read_only: Whether the file in the folder stays as it is, also where a crash left it half written.

    Raises:
        StudyError: If the storage can't be read, or does not hold the study.
    """
    _check_exists(folder, url)
    database = _database(url)
    if read_only and database is None:
        try:
            return _read(_read_only_url(folder), {}, name, keys)
        except _STORAGE_ERRORS as error:
            raise StudyError(
                f"{folder.database}: can't be read as a study: {cause_of(error)}. If a crash left it half written, "
                "`autoprune status` on its folder mends it."
            ) from None
    with _errors_told(folder, database):
        return _read(*_connection(folder, database), name, keys)


def _read(url: str, options: Mapping[str, Any], name: str, keys: Collection[str]) -> StudyRecord:
    """Read a study without Optuna's storage, which loads Alembic and takes long."""
    engine = sqlalchemy.create_engine(url, **options)
    try:
        with orm.Session(engine) as session:
            return read_record(session, name, keys)
    finally:
        engine.dispose()


def _read_only_url(folder: StudyFolder) -> str:
    path = quote(quote(str(folder.database)))  # SQLAlchemy undoes one, SQLite the other
    return f"sqlite:///file:{path}?mode=ro&uri=true&timeout={SQLITE_TIMEOUT_S}"


def _check_exists(folder: StudyFolder, url: str | None) -> None:
    if url is None and not folder.database.exists():
        raise StudyError(f"{folder.database}: no such file. `autoprune search` on the space file starts the study.")


def _database(url: str | None) -> Database | None:
    return None if url is None else Database.named(url)


def _opened(
    folder: StudyFolder, database: Database | None, opening: Callable[[HoldingStorage], optuna.Study]
) -> tuple[optuna.Study, HoldingStorage]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with _errors_told(folder, database):
        storage = HoldingStorage(*_connection(folder, database))
        weakref.finalize(storage, storage.engine.dispose)  # closes its connections
        study = opening(storage)
        study.get_trials(deepcopy=False)  # damage shows when the trials are read
        return study, storage


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
    except _STORAGE_ERRORS as error:
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
