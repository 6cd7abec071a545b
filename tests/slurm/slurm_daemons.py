"""A real Slurm of one node for tests: munged, slurmctld and slurmd, without systemd and apart from any other Slurm."""

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
SchedulerParameters=sched_interval=5,bf_interval=5
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=all Nodes=ALL Default=YES
"""


def missing_daemons() -> list[str]:
    """What of Slurm is not installed here."""
    return [name for name in DAEMONS if shutil.which(name, path=SBIN) is None]


class Slurm:
    """A running Slurm.

    Attributes:
        environment: What makes ``sbatch`` and the like speak to it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {**os.environ, "PATH": SBIN, "SLURM_CONF": str(root / "slurm.conf")}

    def call(self, *command: str, cwd: Path | None = None) -> str:
        """The output of one of its commands."""
        done = subprocess.run(command, env=self.environment, cwd=cwd, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}\n{self.logs()}"
        return done.stdout

    def job(self, job_id: str) -> dict[str, str]:
        """What Slurm knows of a job, such as ``JobState``, ``ExitCode`` and ``Restarts``."""
        shown = self.call("scontrol", "show", "job", "--oneliner", job_id)
        return dict(field.split("=", 1) for field in shown.split() if "=" in field)

    def logs(self) -> str:
        """The last of what the daemons wrote down."""
        return "\n".join("\n".join(path.read_text().splitlines()[-30:]) for path in self.root.glob("*.log"))


@contextmanager
def running_slurm(root: Path) -> Iterator[Slurm]:
    """Start a Slurm of one idle node of two cores; its daemons end with the context."""
    ports = [_free_port(), _free_port()]
    (root / "munge.key").write_bytes(secrets.token_bytes(128))
    (root / "munge.key").chmod(0o600)
    for name in ("state", "spool"):
        (root / name).mkdir()
    host = socket.gethostname().split(".")[0]
    (root / "slurm.conf").write_text(
        CONFIGURATION.format(host=host, user=getpass.getuser(), root=root, controller_port=ports[0], node_port=ports[1])
    )
    slurm = Slurm(root)
    munge = [f"--{kind}-file={root}/munge.{kind}" for kind in ("key", "pid", "log", "seed")]
    commands = (
        ["munged", "--foreground", "--force", f"--socket={root}/munge.socket", *munge],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-N", host],
    )
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            with (root / f"{command[0]}.out.log").open("wb") as out:
                daemons.append(subprocess.Popen(command, env=slurm.environment, stdout=out, stderr=out))
            time.sleep(1)
        deadline = time.monotonic() + 30
        while (
            "idle"
            not in subprocess.run(
                ["sinfo", "-h", "-o", "%T"], env=slurm.environment, capture_output=True, text=True, check=False
            ).stdout.split()
        ):
            assert time.monotonic() < deadline, slurm.logs()
            time.sleep(0.5)
        yield slurm
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
