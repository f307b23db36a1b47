"""A search of weights whose trials are Slurm jobs, and whose launcher is killed."""

import sys
from pathlib import Path

import pytest
from conftest import ROOT, SLURM, Cluster, given_again

from saliency_entropy.study.search_report import trials
from saliency_entropy.sweep.search import read_search


@pytest.mark.timeout(1200)
def test_a_search_goes_on_with_the_jobs_of_a_killed_launcher(
    cluster: Cluster, small: list[str], tmp_path: Path
) -> None:
    command = [
        sys.executable, str(ROOT / "experiments" / "train.py"), "experiment=weights", *small, *SLURM,
        "hydra.sweeper.n_trials=2", "hydra.sweeper.parallel=2", "trainer.max_epochs=1",
    ]  # fmt: skip
    study = tmp_path / "runs" / "weights"
    given_again(command, cluster, tmp_path, study)
    table = trials(read_search(study))
    assert table["val_auroc"].notna().tolist() == [True] * 2
