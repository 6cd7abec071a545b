"""Optuna's storage of a study: one SQLite file in the study's folder, or any database that a URL names."""

from collections.abc import Callable, Sequence

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from sqlalchemy.exc import SQLAlchemyError

from autoprune.errors import StudyError
from autoprune.store import StudyFolder

SQLITE_TIMEOUT_S = 60
"""How long a write waits for another process that reads the file."""


def open_study(folder: StudyFolder, url: str | None, name: str, directions: Sequence[str]) -> optuna.Study:
    """Open a study, or create it; raises StudyError if its storage can't be used."""
    study = _opened(
        folder,
        url,
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
    return study


def load_study(folder: StudyFolder, url: str | None, name: str) -> optuna.Study:
    """Open a study that was started before; raises StudyError if its storage can't be used or does not hold it."""
    if url is None and not folder.database.exists():
        raise StudyError(f"{folder.database}: no such file. `autoprune search` on the space file starts the study.")
    return _opened(folder, url, lambda storage: optuna.load_study(storage=storage, study_name=name))


def _opened(folder: StudyFolder, url: str | None, opening: Callable[[RDBStorage], optuna.Study]) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = RDBStorage(
            url or f"sqlite:///{folder.database}",
            engine_kwargs={} if url else {"connect_args": {"timeout": SQLITE_TIMEOUT_S}},
        )
        study = opening(storage)
        study.get_trials(deepcopy=False)  # damage shows when the trials are read
        return study
    except (SQLAlchemyError, StorageInternalError, RuntimeError, ImportError, KeyError) as error:
        cause = " ".join(str(getattr(error, "orig", None) or error).split()).rstrip(".")
        raise StudyError(
            f"{url or folder.database}: can't be opened as a study: {cause}. "
            "Restore it, or give the study another name."
        ) from None
