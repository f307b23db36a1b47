"""A search of weights whose trials are Slurm jobs, and whose launcher is killed."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Cluster, launched, until

from saliency_entropy.study.search_report import trials
from saliency_entropy.sweep.search import read_search


@pytest.mark.timeout(1200)
def test_a_search_goes_on_with_the_jobs_of_a_killed_launcher(
    cluster: Cluster, small: list[str], tmp_path: Path
) -> None:
    command = [
        sys.executable, str(ROOT / "experiments" / "train.py"), "experiment=weights", *small, "hydra/launcher=slurm",
        "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1", "hydra.launcher.timeout_min=30",
        "hydra.sweeper.n_trials=2", "hydra.sweeper.parallel=2", "trainer.max_epochs=1",
    ]  # fmt: skip
    study = tmp_path / "runs" / "weights"
    options = {"cwd": tmp_path, "env": cluster.environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with launched(subprocess.Popen(command, **options, text=True)) as launcher:
        until(lambda: any((study / ".submitit").glob("*.json")) or launcher.poll(), "the first two trials")
    again = subprocess.run(command, **options, text=True, timeout=400, check=False)
    assert again.returncode == 0, again.stderr
    assert "2 of 2 runs are in Slurm's queue already" in again.stdout
    table = trials(read_search(study))
    assert table["val_auroc"].notna().tolist() == [True] * 2
    assert len(list((study / ".submitit").rglob("*_submission.sh"))) == 1
