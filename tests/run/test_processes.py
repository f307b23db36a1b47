"""Two processes train what one trains: the same losses, metrics, weights and scores, but for rounding."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from saliency_entropy.errors import UserError
from saliency_entropy.run import devices as processes
from saliency_entropy.run.attempts import read_attempts
from saliency_entropy.run.checkpoint import checkpoint_to_resume

# Each launches several times two processes, which import PyTorch.
pytestmark = pytest.mark.timeout(900)

TRAIN = Path(__file__).parents[2] / "experiments" / "train.py"
# Without batch normalisation, which needs GPUs to be over all processes. 21 training images of which 14 have a map, in
# batches of 8: the last one is of 5, so that shares are uneven, and of images with a map as well.
NETWORK = [
    "backbone.timm_name=test_vit", "backbone.image_size=160", "~backbone.output_stride",
    "backbone.last_activation=null", "+backbone.timm_options={global_pool:avg,fc_norm:false}",
]  # fmt: skip


def train(folder: Path, small: list[str], *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TRAIN), *overrides, *small]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400)


# Eq. 5 squares a difference of means over the batch; Eq. 8 has means over images and over images with a map.
@pytest.mark.parametrize("method", ["hseb", "droid_cyborg"])
def test_two_processes_are_as_one(method: str, small: list[str], tmp_path: Path) -> None:
    small = [value for value in small if not value.startswith("backbone.image_size")]
    for study, devices in (("one", 1), ("two", 2)):
        ran = train(tmp_path, small, *NETWORK, f"method={method}", f"study={study}", f"trainer.devices={devices}")
        assert ran.returncode == 0, ran.stderr
        assert "epoch 2/2" in ran.stdout
        # The second process is silent.
        assert ran.stdout.count("epoch 2/2") == ran.stdout.count("results: ") == 1
    one, two = (tmp_path / "runs" / study / method / "seed0" for study in ("one", "two"))
    epochs = [pd.read_csv(run / "metrics.csv") for run in (one, two)]
    pd.testing.assert_frame_equal(*epochs, check_exact=False, rtol=1e-4, atol=1e-5)
    for split, images in (("val", 10), ("test", 12)):
        scores = [pd.read_parquet(run / "scores" / f"{split}.parquet") for run in (one, two)]
        assert len(scores[1]) == images
        pd.testing.assert_frame_equal(*scores, check_exact=False, rtol=1e-4, atol=1e-5)
    weights = [torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"] for run in (one, two)]
    for name, value in weights[0].items():
        np.testing.assert_allclose(weights[1][name], value, atol=1e-5, err_msg=name)
    # Whether a batch was shared is no other configuration: the command of one says that the run is done.
    again = train(tmp_path, small, *NETWORK, f"method={method}", "study=two")
    assert again.returncode == 0
    assert "is done: nothing to do" in again.stdout


def test_the_first_process_replaces_a_damaged_checkpoint(
    small: list[str], train_small: Callable[..., Path], tmp_path: Path
) -> None:
    run = train_small(tmp_path / "runs" / "s" / "hseb" / "seed0", *NETWORK, "method=hseb", "study=s")
    expected = pd.read_csv(run / "metrics.csv")
    (run / "result.json").unlink()
    newest = run / "checkpoints" / "resume.ckpt"
    damaged = newest.read_bytes()[:1000]
    newest.write_bytes(damaged)
    # Another process leaves it to the first, which might be replacing it at this moment.
    assert checkpoint_to_resume(run, first=False) == newest
    assert newest.read_bytes() == damaged

    small = [value for value in small if not value.startswith("backbone.image_size")]
    ran = train(tmp_path, small, *NETWORK, "method=hseb", "study=s", "trainer.devices=2")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("going on from the checkpoint before it") == 1
    pd.testing.assert_frame_equal(pd.read_csv(run / "metrics.csv"), expected, check_exact=False, rtol=1e-4, atol=1e-5)
    assert torch.load(newest, weights_only=True)["epoch"] == 1


STRIKE = """
import os, signal
from pytorch_lightning.callbacks import Callback

class Strike(Callback):
    def __init__(self):
        self.rank, hook = os.environ["STRIKE"].split()
        setattr(self, hook, self.strike)

    def strike(self, trainer, *_):
        if trainer.global_rank == int(self.rank):
            os.kill(os.getpid(), signal.SIGTERM)
"""


def test_sigterm_to_one_of_two_processes_ends_both_and_the_same_command_goes_on(
    small: list[str], train_small: Callable[..., Path], tmp_path: Path
) -> None:
    """Whatever the other one is doing: a checkpoint is written by both, images are scored by each for itself."""
    (tmp_path / "strike.py").write_text(STRIKE)
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    small = [value for value in small if not value.startswith("backbone.image_size")]
    command = [
        sys.executable, str(TRAIN), *small, *NETWORK, "method=hseb", "study=s", "trainer.devices=2",
        "+callbacks.strike._target_=strike.Strike",
    ]  # fmt: skip
    run = tmp_path / "runs" / "s" / "hseb" / "seed0"

    def struck(moment: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": path, "STRIKE": moment}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400)

    for moment in ("0 on_save_checkpoint", "1 on_predict_batch_end"):
        ended = struck(moment)
        assert ended.returncode == 128 + signal.SIGTERM, (moment, ended.stderr)
        assert ended.stderr == "ended by SIGTERM: give the same command again to go on\n"
        assert not (run / "result.json").exists()
    assert [attempt["state"] for attempt in read_attempts(run)] == ["killed"] * 2
    assert all(attempt["ended"] for attempt in read_attempts(run))  # by themselves
    # The second launch has trained to the end.
    one = train_small(tmp_path / "one", *NETWORK, "method=hseb")
    epochs = [pd.read_csv(folder / "metrics.csv") for folder in (one, run)]
    pd.testing.assert_frame_equal(*epochs, check_exact=False, rtol=1e-4, atol=1e-5)


def test_a_sweep_of_runs_of_several_processes_needs_slurm(small: list[str], tmp_path: Path) -> None:
    ran = train(tmp_path, small, "-m", "seed=0,1", "trainer.devices=2")
    assert ran.returncode == 1
    assert "trainer.devices is 2 in a sweep, where only Slurm starts the processes of a run" in ran.stderr


@pytest.mark.parametrize(("name", "value"), [("devices", 0), ("devices", "auto"), ("num_nodes", True)])
def test_numbers_of_devices_that_are_none(name: str, value: object) -> None:
    trainer = OmegaConf.create({"devices": 1} | {name: value})
    with pytest.raises(UserError, match=rf"^trainer\.{name} is {value!r}; give a whole number from 1 on$"):
        processes.check_launch(trainer)


LISTENING = """
import os, re
from pathlib import Path
from pytorch_lightning.callbacks import Callback

class Listening(Callback):
    def on_train_start(self, trainer, module):
        sockets = {os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}
        for table in ("tcp", "tcp6"):
            for line in Path("/proc/self/net", table).read_text().splitlines()[1:]:
                _, local, _, state, *rest = line.split()
                if state == "0A" and f"socket:[{rest[5]}]" in sockets:
                    with Path("listening.txt").open("a") as file:
                        file.write(f"{trainer.global_rank} {local.split(':')[0]}\\n")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_processes_of_one_machine_listen_on_its_loopback_only(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "listening.py").write_text(LISTENING)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    options = "trainer.devices=2", "trainer.max_epochs=1", "+callbacks.listening._target_=listening.Listening"
    ran = train(tmp_path, small, "method=hseb", "study=s", *options)
    assert ran.returncode == 0, ran.stderr
    listening = [line.split() for line in (tmp_path / "listening.txt").read_text().splitlines()]
    assert {rank for rank, _ in listening} == {"0", "1"}
    assert {address for _, address in listening} == {"0100007F"}  # 127.0.0.1
