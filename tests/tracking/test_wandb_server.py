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

from saliency_entropy.tracking.wandb_run import ROC_KEYS

pytest.importorskip("openwandb", reason="openwandb, a W&B server, is not installed: extra wandb-server")

ROOT = Path(__file__).parents[2]
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
        self.interval = "1"  # seconds between two requests of a client
        self.environment = kept | {"HOME": str(folder), "OMP_NUM_THREADS": "1"}
        self.start()

    @property
    def client(self) -> dict[str, str]:
        """The environment of a command that logs to it."""
        return self.environment | {
            "WANDB_BASE_URL": f"http://127.0.0.1:{self.port}",
            "WANDB_API_KEY": KEY,
            "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": self.interval,
        }

    def start(self) -> None:
        with (self.folder / "server.log").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "tests" / "tracking" / "openwandb_with_resume.py"), str(self.port)],
                env=self.environment | {"OPENWANDB_DATA_DIR": str(self.folder / "data")},
                cwd=self.folder, stdout=output, stderr=subprocess.STDOUT,
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

    def history(self, run: Path) -> list[dict[str, object]]:
        files = (self.folder / "data" / "files").glob(f"*/*/{wandb_id(run)}/history_by_row.jsonl")
        return [json.loads(row) for file in files for row in file.read_text().splitlines()]

    def check(self, run: Path) -> None:
        """One W&B run; a row an epoch in their order, with the figures of ``metrics.csv``; and then the ROC."""
        ((runs,),) = self._select("select count(*) from runs where run_id = ?", wandb_id(run))
        assert runs == 1
        table, rows = pd.read_csv(run / "metrics.csv"), self.history(run)
        assert [row["epoch"] for row in rows if "epoch" in row] == list(range(len(table)))
        assert all({*ROC_KEYS} <= row.keys() for row in rows[len(table) :])
        assert len(rows) > len(table)
        for name in table.columns:
            assert [row[name] for row in rows if name in row] == table[name].dropna().to_list(), name

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
                [*command, "study=s", "method=droid", "logger=wandb", "logger.begin_seconds=60", *overrides],
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
    file = run / "wandb_id"
    return file.read_text() if file.exists() else "none"


def epochs_done(run: Path) -> int:
    try:
        return len(pd.read_csv(run / "metrics.csv"))
    except FileNotFoundError:
        return 0


def sync(server: Server, *arguments: str) -> str:
    ended = subprocess.run(
        [str(Path(sys.executable).with_name("wandb")), "sync", "--yes", *arguments],
        env=server.client, cwd=server.folder, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


def test_an_online_run_arrives_whole(server, launch, run, tmp_path):
    ended_well(launch("trainer.max_epochs=3"), tmp_path)
    server.check(run)
    result = json.loads((run / "result.json").read_text())
    assert server.summary(run)["best/test_auroc"] == result["test"]["auroc"]
    assert KEY not in (tmp_path / "printed").read_text()


def killed(process: subprocess.Popen, run: Path) -> None:
    os.killpg(process.pid, signal.SIGKILL)  # W&B's own process with it, as a cluster does it
    process.wait()
    assert not (run / "result.json").exists()


@pytest.mark.parametrize("interval", ["1", "60"])
def test_killed_online_and_gone_on_with(server, launch, run, tmp_path, monkeypatch, interval):
    """The killed process had sent some of its epochs; or, with a minute between two requests, none."""
    monkeypatch.setattr(server, "interval", interval)
    first = launch("trainer.max_epochs=20")
    wait_for(lambda: len(server.history(run)) > 0 if interval == "1" else epochs_done(run) >= 3, "the third epoch")
    killed(first, run)
    assert (len(server.history(run)) > 0) == (interval == "1")
    ended_well(launch("trainer.max_epochs=20"), tmp_path)
    server.check(run)


def test_killed_offline_gone_on_with_and_sent(server, launch, run, tmp_path):
    offline = ("trainer.max_epochs=20", "logger.mode=offline")
    first = launch(*offline)
    wait_for(lambda: epochs_done(run) >= 3, "the third epoch")
    killed(first, run)
    ended_well(launch(*offline), tmp_path)
    folders = sorted(run.glob("wandb/offline-run-*"))
    assert len(folders) == 2
    sync(server, *map(str, folders))
    server.check(run)
    # Nothing is sent twice.
    sync(server, *map(str, folders))
    server.check(run)


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["down", "silent"])
def test_a_server_that_fails_in_the_middle_gets_the_rest_from_the_same_command(tmp_path, launch, run, server, fault):
    process = launch("trainer.max_epochs=20", "logger.end_seconds=1")
    wait_for(lambda: len(server.history(run)) > 0, "the first epochs on the server")
    server.process.send_signal(fault)  # stopped, it takes connections and answers none
    try:
        ended_well(process, tmp_path)
        assert "has not taken all of this run in 1 s" in (tmp_path / "printed").read_text()
    finally:
        if fault == signal.SIGKILL:
            server.process.wait()
            server.start()
        else:
            server.process.send_signal(signal.SIGCONT)
    again = ("trainer.max_epochs=20", "logger.end_seconds=120")
    ended_well(launch(*again), tmp_path)
    server.check(run)
    # And no more of it.
    ended_well(launch(*again), tmp_path)
    assert len(list(run.glob("wandb/run-*"))) == 2
