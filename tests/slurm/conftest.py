"""A Slurm cluster of one node on this machine, for the tests in this folder."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Holds a run of a seed above 0 in its second epoch, see held_term.py.
HELD = ["+loss.terms.held._target_=held_term.Held", "+loss.terms.held.weight=0"]
SLURM = [
    "hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1",
    "hydra.launcher.timeout_min=30",
]  # fmt: skip
DAEMONS = ("munged", "slurmctld", "slurmd")

# A job in urgent takes the node from those in normal, which are queued again. The node's cores exist on paper only: the
# jobs mostly wait. cred_expire cuts the time until a job that was queued again begins from two minutes to seconds.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
JobRequeue=1
MailProg=/bin/true
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=20000
PartitionName=normal Nodes={host} Default=YES State=UP PriorityTier=1
PartitionName=urgent Nodes={host} State=UP PriorityTier=2
"""


@dataclass(frozen=True)
class Cluster:
    """The cluster's configuration file, which every Slurm command needs."""

    configuration: Path

    @property
    def environment(self) -> dict[str, str]:
        """Of a process that submits jobs."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SUBMITIT_"))}
        return ours | {"SLURM_CONF": str(self.configuration), "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}

    def call(self, *command: str) -> str:
        """A Slurm command's output."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def states(self) -> dict[str, str]:
        """The state of every job in the queue, by its id."""
        told = self.call("squeue", "--noheader", "--array", "--format=%i %T")
        return dict(line.split() for line in told.splitlines())

    def about(self, job: str) -> dict[str, str]:
        """What Slurm knows of a job: Restarts, RunTime ..."""
        return dict(field.partition("=")[::2] for field in self.call("scontrol", "show", "job", job).split())

    def restarts(self, job: str) -> int:
        """How often a job has been queued again."""
        return int(self.about(job)["Restarts"])


def until(condition: Callable[[], object], what: str, seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain: {what}"
        time.sleep(0.1)


@contextmanager
def launched(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def given_again(command: list[str], cluster: Cluster, folder: Path, study: Path) -> None:
    """Give a command of two runs, kill it when they are in the queue, and give it again, to its end."""
    options = {"cwd": folder, "env": cluster.environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with launched(subprocess.Popen(command, **options, text=True)) as launcher:
        until(lambda: any((study / ".submitit").glob("*.json")) or launcher.poll(), "the jobs of both runs")
    again = subprocess.run(command, **options, text=True, timeout=400, check=False)
    assert again.returncode == 0, again.stderr
    assert "2 of 2 runs are in Slurm's queue already" in again.stdout
    assert len(list((study / ".submitit").rglob("*_submission.sh"))) == 1


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("Slurm's daemons are started by root only")
    paths = {name: shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in (*DAEMONS, "srun")}
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        pytest.skip(f"Slurm is not installed ({', '.join(missing)}): apt-get install slurm-wlm munge")
    folder = tmp_path_factory.mktemp("slurm")
    # munged wants every folder above its socket to be safe from others, and the path of a socket to be short.
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(mode=0o700)
    key = folder / "munge" / "key"
    key.touch(mode=0o400)
    key.write_bytes(os.urandom(128))
    configuration = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    ports = {"controller_port": _free_port(), "node_port": _free_port()}
    configuration.write_text(CONFIGURATION.format(host=host, folder=folder, **ports))
    cluster = Cluster(configuration)
    munge = [
        "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket",
        f"--pid-file={folder}/munge/pid", f"--log-file={folder}/munge/log", f"--seed-file={folder}/munge/seed",
    ]  # fmt: skip
    daemons: list[subprocess.Popen[bytes]] = []

    def start(name: str, *options: str) -> None:
        with (folder / f"{name}.out").open("wb") as out:
            daemons.append(subprocess.Popen([paths[name], *options], stdout=out, stderr=out, env=cluster.environment))

    def ready(condition: Callable[[], object], name: str) -> None:
        end = time.monotonic() + 120
        while not condition():
            if time.monotonic() > end:
                logs = "; ".join(
                    f"{path.name}: {' '.join(path.read_text(errors='replace').split())[-300:]}"
                    for path in (folder / f"{daemon}.out" for daemon in DAEMONS)
                    if path.exists()
                )
                pytest.skip(f"Slurm is installed, but {name} does not start on this machine ({logs})")
            time.sleep(0.1)

    def answers(*command: str) -> str:
        done = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, check=False)
        return done.stdout

    try:
        start("munged", *munge)
        ready(lambda: (folder / "munge.socket").exists(), "munged")
        start("slurmctld", "-D", "-f", str(configuration))
        start("slurmd", "-D", "-f", str(configuration))
        ready(lambda: "idle" in answers("sinfo", "--noheader", "--format=%T"), "slurmd")
        yield cluster
        answers("scancel", "--user=root", "--full", "--signal=KILL")
        answers("scancel", "--user=root")
        with_jobs = time.monotonic() + 20
        while answers("squeue", "--noheader") and time.monotonic() < with_jobs:
            time.sleep(0.2)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
