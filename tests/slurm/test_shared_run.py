"""A run of two processes that srun starts, in a sweep."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT, Cluster

# Without batch normalisation, which is over all processes on GPUs only.
NETWORK = [
    "backbone.timm_name=test_vit", "backbone.image_size=160", "~backbone.output_stride",
    "backbone.last_activation=null", "+backbone.timm_options={global_pool:avg,fc_norm:false}",
]  # fmt: skip


@pytest.mark.timeout(600)
def test_two_processes_under_srun_are_as_one(cluster: Cluster, small: list[str], tmp_path: Path) -> None:
    common = [*(value for value in small if not value.startswith("backbone.image_size")), *NETWORK, "method=hseb"]
    train = [sys.executable, str(ROOT / "experiments" / "train.py"), "-m", *common]
    two = [
        "hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=4",
        "hydra.launcher.timeout_min=10", "hydra.launcher.tasks_per_node=2", "trainer.devices=2",
    ]  # fmt: skip
    for options in (["study=one"], ["study=two", *two]):
        ran = subprocess.run(
            [*train, *options], cwd=tmp_path, env=cluster.environment, capture_output=True, text=True, timeout=400,
            check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
    one, both = (tmp_path / "runs" / study / "hseb" / "seed0" for study in ("one", "two"))
    said = [path.read_text() for path in (tmp_path / "runs" / "two" / ".submitit").rglob("*.out")]
    assert sum("epoch 2/2" in text for text in said) == 1  # the first process speaks for both
    epochs = [pd.read_csv(run / "metrics.csv") for run in (one, both)]
    pd.testing.assert_frame_equal(*epochs, check_exact=False, rtol=1e-4, atol=1e-5)
    for split, images in (("val", 10), ("test", 12)):
        scores = [pd.read_parquet(run / "scores" / f"{split}.parquet") for run in (one, both)]
        assert len(scores[1]) == images
        pd.testing.assert_frame_equal(*scores, check_exact=False, rtol=1e-4, atol=1e-5)
