"""A real PostgreSQL for tests: a cluster of its own on loopback, which asks for a password, apart from any other."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import sqlalchemy

USER, PASSWORD = "searcher", "p@ss/w:rd %24"


def missing_programs() -> str | None:
    """Why no server can be started here; ``None`` if one can."""
    if _programs() is None:
        return "initdb and pg_ctl are not installed (apt-get install postgresql)"
    return None


def _programs() -> Path | None:
    """The folder of the server's programs: Debian keeps them off the path, one folder a version."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "pg_ctl").exists() and (folder / "initdb").exists()), None)


class Postgres:
    """A server.

    Attributes:
        host: Where it listens, with the port.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: int = probe.getsockname()[1]
        self.host = f"127.0.0.1:{self._port}"
        self._owner = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}  # it refuses to run as root

    def make(self) -> None:
        """Make its files."""
        (self._root / "password").write_text(f"{PASSWORD}\n")
        if self._owner:
            shutil.chown(self._root, **self._owner)
        self._call("initdb", "--username", USER, "--pwfile=password", "--auth=scram-sha-256", "--no-sync", "data")

    def url(self, database: str, password: str = quote(PASSWORD, safe="")) -> str:
        """A database's URL."""
        return f"postgresql+psycopg://{USER}:{password}@{self.host}/{database}"

    def add_database(self, name: str) -> None:
        """Make an empty database."""
        engine = sqlalchemy.create_engine(self.url("postgres"), poolclass=sqlalchemy.NullPool)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -c port={self._port} -c unix_socket_directories= -c fsync=off"
        self._call("pg_ctl", "--pgdata=data", "--log=server.log", "--wait", "-o", options, "start")

    def stop(self) -> None:
        """Cut every connection and end."""
        self._call("pg_ctl", "--pgdata=data", "--wait", "--mode=fast", "stop")

    def _call(self, program: str, *arguments: str) -> None:
        folder = _programs()
        assert folder is not None
        with (self._root / "out.log").open("w+") as out:  # no pipe, which the server would hold open
            done = subprocess.run(
                [folder / program, *arguments],
                cwd=self._root,
                stdout=out,
                stderr=out,
                check=False,
                **self._owner,  # type: ignore[call-overload]
            )
            out.seek(0)
            assert done.returncode == 0, out.read()


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Start a server; it ends with the context."""
    root = Path(tempfile.mkdtemp(prefix="autoprune-postgres-"))
    server = Postgres(root)
    try:
        server.make()
        server.start()
        try:
            yield server
        finally:
            if (root / "data" / "postmaster.pid").exists():
                server.stop()
    finally:
        shutil.rmtree(root)
