"""A run of two processes that srun starts, in a sweep."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import HELD, ROOT, Cluster, launched, until

from saliency_entropy.run import lock as run_lock

# Without batch normalisation, which is over all processes on GPUs only.
NETWORK = [
    "backbone.timm_name=test_vit", "backbone.image_size=160", "~backbone.output_stride",
    "backbone.last_activation=null", "+backbone.timm_options={global_pool:avg,fc_norm:false}",
]  # fmt: skip


@pytest.mark.timeout(1200)
def test_two_processes_under_srun_are_as_one(cluster: Cluster, small: list[str], tmp_path: Path) -> None:
    """Though they are told to leave, and queued again."""
    common = [*(value for value in small if not value.startswith("backbone.image_size")), *NETWORK, *HELD]
    train = [sys.executable, str(ROOT / "experiments" / "train.py"), "-m", *common, "method=hseb"]
    two = [
        "hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=4",
        "hydra.launcher.timeout_min=30", "hydra.launcher.tasks_per_node=2", "trainer.devices=2",
    ]  # fmt: skip
    options = {"cwd": tmp_path, "env": cluster.environment, "text": True}
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    alone = subprocess.run([*train, "study=one", "seed=1"], **options, timeout=400, check=False)
    assert alone.returncode == 0, alone.stderr
    study = tmp_path / "runs" / "two"
    # The first process of seed 0 finds that it is being trained, and leaves while the second waits for it.
    begun = study / "hseb" / "seed1" / "checkpoints" / "resume.ckpt"
    with (
        run_lock.held(study / "hseb" / "seed0"),
        launched(subprocess.Popen([*train, "study=two", "seed=0,1", *two], **options)) as launcher,
    ):
        until(lambda: begun.exists() or launcher.poll(), "an epoch")
        (array,) = {job.partition("_")[0] for job in cluster.states()}
        until(lambda: set(cluster.states()) == {f"{array}_1"}, "the second process of seed 0 to be ended", 240)
        cluster.call("scancel", "--signal=USR2", f"{array}_1")
        until(lambda: cluster.restarts(f"{array}_1") or launcher.poll(), "it to be queued again")
        _, err = launcher.communicate(timeout=400)
    assert launcher.returncode == 1
    assert re.search(r"hseb/seed0 is being trained by process \d+", err)
    one, both = (study.with_name(name) / "hseb" / "seed1" for name in ("one", "two"))
    said = [path.read_text() for path in (study / ".submitit").rglob("*.out")]
    assert sum("epoch 2/2" in text for text in said) == 1  # the first process speaks for both
    epochs = [pd.read_csv(run / "metrics.csv") for run in (one, both)]
    pd.testing.assert_frame_equal(*epochs, check_exact=False, rtol=1e-4, atol=1e-5)
    for split, images in (("val", 10), ("test", 12)):
        scores = [pd.read_parquet(run / "scores" / f"{split}.parquet") for run in (one, both)]
        assert len(scores[1]) == images
        pd.testing.assert_frame_equal(*scores, check_exact=False, rtol=1e-4, atol=1e-5)
