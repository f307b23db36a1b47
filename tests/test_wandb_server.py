"""Runs that are logged to a real W&B server on localhost, which goes away in the middle; and runs that do.

Skipped where openwandb is not installed: ``pip install -c constraints.txt -e '.[wandb-server]'``.
"""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("openwandb", reason="openwandb, a W&B server, is not installed: extra wandb-server")

ROOT = Path(__file__).parents[1]
KEY = "local0000000000000000000000000000000000000000"
SECONDS = 240


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, f"{what} did not come in {SECONDS} s"
        time.sleep(0.02)


class Server:
    """A W&B server of its own, whose data stay when it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "OPENWANDB_"))}
        self.environment = kept | {"HOME": str(folder), "OMP_NUM_THREADS": "1"}
        self.start()

    @property
    def client(self) -> dict[str, str]:
        """The environment of a command that logs to it."""
        return self.environment | {"WANDB_BASE_URL": f"http://127.0.0.1:{self.port}", "WANDB_API_KEY": KEY}

    def start(self) -> None:
        command = [sys.executable, "-m", "openwandb", "serve", "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.folder / "server.log").open("ab") as output:
            self.process = subprocess.Popen(
                [*command, "--data-dir", str(self.folder / "data")],
                env=self.environment, stdout=output, stderr=subprocess.STDOUT, cwd=self.folder,
            )  # fmt: skip
        wait_for(self._answers, "the server")

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "server.log").read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/login", timeout=5):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _select(self, query: str, identity: str) -> list[tuple]:
        connection = sqlite3.connect(self.folder / "data" / "openwandb.db", timeout=60)
        try:
            return connection.execute(query, (identity,)).fetchall()
        finally:
            connection.close()

    def epochs(self, run: Path) -> list[int]:
        rows = self._select("select value from metrics where run_id = ? and key = 'epoch'", wandb_id(run))
        return sorted(int(value) for (value,) in rows)

    def curve(self, run: Path, key: str) -> list[float]:
        """Its values in the order of the epochs, with which they share a row."""
        query = (
            "select e.value, m.value from metrics m join metrics e on e.run_id = m.run_id and e.key = 'epoch' "
            "and e.step = m.step and e.wall_time = m.wall_time where m.run_id = ? and m.key = '" + key + "'"
        )
        return [value for _, value in sorted(set(self._select(query, wandb_id(run))))]

    def summary(self, run: Path) -> dict[str, object]:
        ((text,),) = self._select("select summary_json from runs where run_id = ?", wandb_id(run))
        return json.loads(text)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("server"))
    yield started
    started.kill()


@pytest.fixture
def launch(server: Server, small: list[str], tmp_path: Path) -> Callable[..., subprocess.Popen]:
    """``experiments/train.py``, logged to the server, with its own process group."""

    def launched(*overrides: str) -> subprocess.Popen:
        command = [sys.executable, str(ROOT / "experiments" / "train.py"), *small, f"runs_dir={tmp_path}"]
        with (tmp_path / "printed").open("ab") as output:
            return subprocess.Popen(
                [*command, "study=s", "method=droid", "logger=wandb", *overrides],
                env=server.client | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path, start_new_session=True,
                stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    return launched


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "s" / "droid" / "seed0"


def ended_well(process: subprocess.Popen, folder: Path) -> None:
    assert process.wait(SECONDS) == 0, (folder / "printed").read_text()


def wandb_id(run: Path) -> str:
    return (run / "wandb_id").read_text()


def epochs_done(run: Path) -> int:
    try:
        return len(pd.read_csv(run / "metrics.csv"))
    except FileNotFoundError:
        return 0


def sync(server: Server, *arguments: str) -> str:
    ended = subprocess.run(
        [str(Path(sys.executable).with_name("wandb")), "sync", "--yes", *arguments],
        env=server.client, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


def test_an_online_run_arrives_whole(server, launch, run, tmp_path):
    ended_well(launch("trainer.max_epochs=3"), tmp_path)
    table = pd.read_csv(run / "metrics.csv")
    assert server.epochs(run) == [0, 1, 2]
    assert server.curve(run, "val/cam_entropy") == table["val/cam_entropy"].to_list()
    result = json.loads((run / "result.json").read_text())
    assert server.summary(run)["best/test_auroc"] == result["test"]["auroc"]
    assert KEY not in (tmp_path / "printed").read_text()


def test_killed_offline_gone_on_with_and_sent(server, launch, run, tmp_path):
    offline = ("trainer.max_epochs=60", "logger.mode=offline")
    first = launch(*offline)
    wait_for(lambda: epochs_done(run) >= 3, "the third epoch")
    os.killpg(first.pid, signal.SIGKILL)  # W&B's own process with it, as a cluster does it
    first.wait()
    assert not (run / "result.json").exists()
    ended_well(launch(*offline), tmp_path)
    folders = sorted(run.glob("wandb/offline-run-*"))
    assert len(folders) == 2
    sync(server, *map(str, folders))
    assert server.epochs(run) == list(range(60))
    assert server.curve(run, "val/cam_entropy") == pd.read_csv(run / "metrics.csv")["val/cam_entropy"].to_list()
    # Nothing is sent twice.
    sync(server, *map(str, folders))
    assert server.epochs(run) == list(range(60))


def test_a_server_that_dies_in_the_middle_stops_nothing(tmp_path, launch, run, server):
    process = launch("trainer.max_epochs=40", "logger.end_seconds=3")
    wait_for(lambda: epochs_done(run) >= 3, "the third epoch")
    server.kill()
    try:
        wait_for((run / "result.json").exists, "the result")
        done = time.monotonic()
        ended_well(process, tmp_path)
        assert time.monotonic() - done < 30  # without a limit it is hours
    finally:
        server.start()
    (folder,) = run.glob("wandb/run-*")
    sync(server, "--include-online", str(folder))
    # This server adds what comes again; no epoch is missing.
    assert set(server.epochs(run)) == set(range(40))
