"""The database that `search.storage` names: its URL with environment variables put in, and no secret ever told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from autoprune.errors import StudyError
from autoprune.study.urls import expand_url, hide

CONNECT_TIMEOUT_S = 10
"""How long a PostgreSQL server may take to answer."""

_LIBPQ = ("psycopg", "psycopg2")
"""Drivers that take libpq's settings."""


@dataclass(frozen=True)
class Database:
    """A database that is not the SQLite file in the study's folder.

    Attributes:
        name: As the space file has it, variables not put in: it holds no secret.
        url: As SQLAlchemy takes it.
    """

    name: str
    url: sqlalchemy.URL

    @classmethod
    def named(cls, name: str) -> "Database":
        """The database that a space file names; raises StudyError if that is no URL, or a variable is not set."""
        try:
            return cls(name, sqlalchemy.make_url(expand_url("search.storage", name)))
        except (SQLAlchemyError, ValueError):
            raise StudyError(
                f"search.storage: '{name}' can't be used: it is no URL. It looks like "
                "postgresql+psycopg://USER:${PASSWORD}@HOST/DATABASE."
            ) from None

    @property
    def engine_options(self) -> dict[str, Any]:
        """What SQLAlchemy's engine is to be made with: a server may be started anew while the search goes on."""
        options: dict[str, Any] = {"pool_pre_ping": True}
        if self.url.get_backend_name() == "postgresql" and self.url.drivername.partition("+")[2] in ("", *_LIBPQ):
            options["connect_args"] = {"connect_timeout": self.url.query.get("connect_timeout", CONNECT_TIMEOUT_S)}
        return options

    def check(self) -> None:
        """Try it without making a study in it; raises StudyError if it can't be reached."""
        try:
            if self.url.get_backend_name() == "sqlite" and self.url.database:
                parent = Path(self.url.database).absolute().parent
                if not parent.is_dir():
                    raise OSError(f"there is no folder {parent}")
                return
            engine = sqlalchemy.create_engine(self.url, poolclass=sqlalchemy.NullPool, **self.engine_options)
            engine.connect().close()
        except (SQLAlchemyError, ImportError, OSError, ValueError) as error:
            raise StudyError(
                f"search.storage: '{self.name}' can't be used: {self.cause_of(error)}. {self.way_out(error)}"
            ) from None

    def way_out(self, error: BaseException) -> str:
        """What to do about an error."""
        error = _root_of(error)
        if isinstance(error, ImportError):
            return "Install the driver that the URL names: pip install 'autoprune[postgres]' has psycopg."
        is_server = isinstance(error, DBAPIError) and self.url.get_backend_name() != "sqlite"
        return "Start the server, or mend search.storage." if is_server else "Mend search.storage."

    def cause_of(self, error: BaseException) -> str:
        """What the database says of an error, on one line, without the password."""
        told = cause_of(error).replace(self.url.render_as_string(hide_password=False), self.name)
        settings = [str(value) for key, value in self.url.query.items() if "pass" in key and key != "passfile"]
        return hide([self.url.password, *settings], told)


def cause_of(error: BaseException) -> str:
    """What the database itself says of an error that Optuna or SQLAlchemy reports, on one line."""
    root = _root_of(error)
    return " ".join(str(getattr(root, "orig", None) or root).split()).rstrip(".")


def _root_of(error: BaseException) -> BaseException:
    """The error that Optuna has wrapped in one of its own, if it has."""
    cause = error.__cause__
    return cause if cause is not None and isinstance(error, StorageInternalError | ImportError) else error
