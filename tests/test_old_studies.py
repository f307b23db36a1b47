"""Studies that were trained before the package had its rooms are still those of the same commands."""

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from saliency_entropy.run.folder import config_hash, differing_keys, register_resolvers

ROOT = Path(__file__).parents[1]
# A run of: experiments/train.py method=droid backbone=tiny data=builtin trainer.max_epochs=2 study=before
CONFIG = Path(__file__).parent / "golden" / "config_before_the_rooms.yaml"
COMMAND = ["backbone=tiny", "data=builtin", "trainer.max_epochs=2", "study=before"]


def composed(*overrides: str) -> dict:
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return OmegaConf.to_container(compose("train", [*COMMAND, *overrides]), resolve=True)


@pytest.mark.parametrize(
    ("method", "digest"),
    [
        ("cross_entropy", "48b50b42f8062cee"),
        ("cyborg", "b15616192126122f"),
        ("hseb", "65a9956ed2832af0"),
        ("fmmmse", "36d446b944fbfa3d"),
        ("droid", "3fab9f710ae5c12c"),
        ("droid_cyborg", "a63372032110f330"),
    ],
)
def test_the_same_command_has_the_hash_that_its_result_names(method: str, digest: str) -> None:
    assert config_hash(composed(f"method={method}")) == digest


def test_a_finished_run_is_skipped(command: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "before" / "droid" / "seed0"
    folder.mkdir(parents=True)
    shutil.copy(CONFIG, folder / "config.yaml")
    (folder / "result.json").write_text(json.dumps({"val": {"auroc": 0.5}}))
    ended = command(*COMMAND, "method=droid", defaults=[])
    assert ended.code == 0, ended.err
    assert f"{folder} is done: nothing to do" in ended.out
    assert not (folder / "checkpoints").exists()


def test_a_run_of_another_configuration_is_not_taken_for_it(tmp_path: Path) -> None:
    shutil.copy(CONFIG, tmp_path / "config.yaml")
    config = composed("method=droid", "protocol.optimizer.lr=0.1")
    assert differing_keys(tmp_path, config) == {"protocol.optimizer.lr": (0.002, 0.1)}


@pytest.mark.parametrize(
    "target",
    [
        "saliency_entropy.losses.CrossEntropy",
        "saliency_entropy.losses.HumanSaliency",
        "saliency_entropy.losses.Entropy",
        "saliency_entropy.losses.LogEntropy",
        "saliency_entropy.losses.EntropyMatch",
        "saliency_entropy.losses.Term",
        "saliency_entropy.data.FaceDataModule",
        "saliency_entropy.data.manifest.read_manifest",
        "saliency_entropy.data.folder_tree.folder_tree",
        "saliency_entropy.data.shards.read_shards",
        "saliency_entropy.data.und_cyborg.und_cyborg",
        "saliency_entropy.data.builtin.builtin_faces",
        "saliency_entropy.detector.Detector",
        "saliency_entropy.study.runs.read_study",
        "saliency_entropy.study.figures.auroc_against_cam_entropy",
        "saliency_entropy.study.tables.measure",
        "saliency_entropy.study.tables.method_table",
        "hydra_plugins.saliency_entropy_launchers.local.LocalLauncher",
        "hydra_plugins.saliency_entropy_launchers.slurm.SlurmLauncher",
        "hydra_plugins.saliency_entropy_sweepers.grid.GridSweeper",
        "hydra_plugins.saliency_entropy_sweepers.search.SearchSweeper",
    ],
)
def test_what_stored_configurations_and_notebooks_name_is_still_there(target: str) -> None:
    module, _, name = target.rpartition(".")
    assert callable(getattr(importlib.import_module(module), name))
