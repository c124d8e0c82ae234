"""A real Slurm on this machine: one controller and two nodes that are only processes."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "sinfo")

NODES = 2
CORES_PER_NODE = 2

_CONFIGURATION = """\
ClusterName=bigearth
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
KillWait=10
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
NodeName=node[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{node_ports}] \
CPUs={cores} RealMemory=4000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
"""`cred_expire`: Slurm holds a job that starts again for as long as its old credential lives."""


@dataclass(frozen=True, slots=True)
class Job:
    """One submitted job."""

    slurm: "Slurm"
    number: str
    output: Path

    def field(self, name: str) -> str:
        """A field of what `scontrol show job` prints, such as `JobState`."""
        listing = self.slurm.call("scontrol", "show", "job", self.number)
        fields = dict(part.split("=", 1) for part in listing.split() if "=" in part)
        return fields[name]

    def await_end(self, timeout_s: float) -> str:
        """Its last state; a job that starts again has not ended."""
        ends = {"COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY"}
        wait_until(lambda: self.field("JobState") in ends, timeout_s, self.describe)
        return self.field("JobState")

    def describe(self) -> str:
        """What can be said of it when it does not do as it should."""
        output = self.output.read_text() if self.output.exists() else "no output"
        return f"job {self.number} is {self.field('JobState')}:\n{output[-4000:]}"


@dataclass(frozen=True, slots=True)
class Slurm:
    """A Slurm that runs."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """For processes that are to find it."""
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def call(self, *command: str) -> str:
        """The standard output of one of Slurm's commands."""
        return subprocess.run(
            command, env=self.environment, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def submit(
        self,
        script: Path,
        arguments: Sequence[str | Path],
        *,
        folder: Path,
        options: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> Job:
        """A job of this script, started in this folder."""
        command = ["sbatch", "--parsable", "--output=%j.out", *options, script, *arguments]
        done = subprocess.run(
            [str(part) for part in command],
            env=self.environment | dict(variables or {}),
            cwd=folder,
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        number = done.stdout.strip()
        return Job(self, number, folder / f"{number}.out")


def stand_in_container(folder: Path) -> Path:
    """A command that runs another one, as `apptainer exec IMAGE` does, and says so."""
    command = folder / "container"
    command.write_text('#!/bin/sh\necho "inside: $1"\nexec "$@"\n')
    command.chmod(0o755)
    return command


def missing_programs() -> list[str]:
    """What this machine lacks for a Slurm; empty where it can have one."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    return missing or ([] if os.geteuid() == 0 else ["root"])


def wait_until(holds: Callable[[], bool], timeout_s: float, describe: Callable[[], str]) -> None:
    """Return once this holds; fail with what `describe` says where it never does."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, describe()
        time.sleep(0.3)


@contextmanager
def run_slurm(folder: Path) -> Iterator[Slurm]:
    """A Slurm for the time of the block; its files and logs are in the folder."""
    slurm = Slurm(folder)
    _write_configuration(folder)
    munge = [f"--{name}={folder}/munge.{name}" for name in ("socket", "pid-file", "log-file")]
    munge += [f"--key-file={folder}/munge.key", f"--seed-file={folder}/munge.seed"]
    with ExitStack() as daemons:

        def start(*command: str) -> None:
            daemons.enter_context(_daemon(command, slurm.environment, folder))

        start("munged", "--force", "--foreground", *munge)
        wait_until((folder / "munge.socket").exists, 30, lambda: "munged does not start")
        start("slurmctld", "-D", "-c")
        for number in range(1, NODES + 1):
            start("slurmd", "-D", "-N", f"node{number}")

        def nodes_idle() -> bool:
            command = ["sinfo", "--noheader", "--states=idle", "--format=%D"]
            listing = subprocess.run(
                command, env=slurm.environment, capture_output=True, text=True, check=False
            )
            return listing.stdout.strip() == str(NODES)

        wait_until(nodes_idle, 60, lambda: (folder / "slurmctld.log").read_text()[-4000:])
        yield slurm
        subprocess.run(["scancel", "--user=root"], env=slurm.environment, check=False)


@contextmanager
def _daemon(command: Sequence[str], environment: dict[str, str], folder: Path) -> Iterator[None]:
    with (folder / "daemons.out").open("ab") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _write_configuration(folder: Path) -> None:
    folder.chmod(0o755)
    (folder / "state").mkdir()
    for number in range(1, NODES + 1):
        (folder / f"spool.node{number}").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    controller, *nodes = _free_ports(1 + NODES)
    text = _CONFIGURATION.format(
        host=socket.gethostname().split(".")[0],
        folder=folder,
        controller_port=controller,
        nodes=NODES,
        node_ports=",".join(map(str, nodes)),
        cores=CORES_PER_NODE,
    )
    (folder / "slurm.conf").write_text(text)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as sockets:
        opened = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for one in opened:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in opened]
