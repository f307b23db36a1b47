"""A sweep over an axis, as an array of jobs whose launcher is killed, and as a plain array."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, SLURM, Cluster, given_again

from saliency_entropy.run.variants import variant_folders
from saliency_entropy.sweep.status import study_status

VALUES = ("0.5", "1.0")


@pytest.mark.timeout(1200)
def test_the_jobs_of_a_killed_launcher_are_found_by_their_variants(
    cluster: Cluster, small: list[str], tmp_path: Path
) -> None:
    common = [*small, "trainer.max_epochs=1", f"runs_dir={tmp_path}"]
    command = [
        sys.executable, str(ROOT / "experiments" / "train.py"), "-m", *common, *SLURM, "method=droid",
        f"data.human_maps.fraction={','.join(VALUES)}", "study=array",
    ]  # fmt: skip
    study = tmp_path / "array"
    given_again(command, cluster, tmp_path, study)
    assert {run.name: run.state for run in study_status(study)} == {
        "fraction=0.5/droid/seed0": "done", "fraction=1/droid/seed0": "done"
    }  # fmt: skip

    variants = " ".join(f"data.human_maps.fraction={value}" for value in VALUES)
    environment = cluster.environment | {"METHODS": "droid", "VARIANTS": variants, "PYTHON": sys.executable}
    script = str(ROOT / "experiments" / "slurm_job.sh")
    subprocess.run(
        ["sbatch", "--wait", "--mem=1G", "--cpus-per-task=1", "--array=1,2", f"--output={tmp_path}/%a.out", script,
         *common, "study=plain"],
        cwd=ROOT, env=environment, check=True, timeout=400,
    )  # fmt: skip
    assert [folder.name for folder in variant_folders(tmp_path / "plain")] == ["fraction=0.5", "fraction=1"]
    done = {path.relative_to(tmp_path / "plain").parent.as_posix() for path in tmp_path.glob("plain/**/result.json")}
    assert done == {"fraction=1/droid/seed0", "fraction=0.5/droid/seed1"}
