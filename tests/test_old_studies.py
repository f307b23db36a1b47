"""Studies that were trained before the package had its rooms are still those of the same commands."""

import importlib
import json
import logging
import lzma
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from saliency_entropy.detector import Detector
from saliency_entropy.metrics import auroc
from saliency_entropy.run.checkpoint import best_checkpoint, file_digest
from saliency_entropy.run.folder import config_hash, differing_keys, register_resolvers
from saliency_entropy.scores import one_pass
from saliency_entropy.scores.evaluate import evaluate
from saliency_entropy.scores.maps import focus
from saliency_entropy.study.focus import read_study_maps
from saliency_entropy.study.run_figures import is_of_this_checkpoint
from saliency_entropy.study.runs import read_study

ROOT = Path(__file__).parents[1]
# A run of: experiments/train.py method=droid backbone=tiny data=builtin trainer.max_epochs=2 study=before
CONFIG = Path(__file__).parent / "golden" / "config_before_the_rooms.yaml"
COMMAND = ["backbone=tiny", "data=builtin", "trainer.max_epochs=2", "study=before"]

# A finished study of the last commit before the rooms, 546f8de, and its images: what these commands left there in the
# folder study/, without logs, locks and resume.ckpt.
#   train.py TRAINED runs_dir=. method=cross_entropy (and method=droid)
#   evaluate.py study=study SCORED corruptions=[jpeg]
#   evaluate.py study=study SCORED data=faces data.root=faces split=val set=mine
#   focus.py study=study SCORED samples=2
# Its largest files are kept as .xz. For their sake the weights begin as short patterns of bits (start.pth) and all but
# stay there, at this learning rate.
GOLDEN = Path(__file__).parent / "golden" / "study_before_the_rooms"
TRAINED = [
    "data=faces", "data.root=faces", "data.cache=none", "data.num_workers=0", "backbone=tiny", "backbone.image_size=48",
    "backbone.checkpoint=start.pth", "threads=1", "trainer.accelerator=cpu", "trainer.max_epochs=1",
    "protocol.batch_size=3", "protocol.optimizer.lr=1.0e-10", "study=study",
]  # fmt: skip
SCORED = ["num_workers=0", "device=cpu", "threads=1"]
METHODS = ("cross_entropy", "droid")
OTHER_DIGEST = "0123456789abcdef"


def configuration(command: str, *overrides: str) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(command, list(overrides))


def composed(*overrides: str) -> dict:
    return OmegaConf.to_container(configuration("train", *COMMAND, *overrides), resolve=True)


def named(target: str) -> object:
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the golden study, whose configurations name the folder ``faces`` of the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(GOLDEN / "faces", tmp_path / "faces")
    copy = Path(shutil.copytree(GOLDEN / "study", tmp_path / "runs" / "study"))
    for packed in [*copy.rglob("*.xz")]:
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()
    return copy


def contents(study: Path) -> dict[str, bytes]:
    """Every file of a study but the locks and logs of the commands, which note that there is nothing to do."""
    files = (path for path in study.rglob("*") if path.is_file() and path.suffix not in (".lock", ".log"))
    return {str(path.relative_to(study)): path.read_bytes() for path in files}


def name_other_checkpoint(study: Path) -> None:
    """As if the runs had been trained again since they were scored."""
    for path in study.glob("*/seed0/result.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"checkpoint": OTHER_DIGEST}))


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
    assert callable(named(target))


def test_what_the_configurations_of_today_name_is_there() -> None:
    texts = [path.read_text() for path in (ROOT / "conf").rglob("*.yaml")]
    targets = {target for text in texts for target in re.findall(r"""_target_: *["']?([\w.]+)""", text)}
    own = {target for target in targets if re.match(r"saliency_entropy\.|hydra_plugins\.saliency_entropy_", target)}
    assert {"saliency_entropy.losses.LogEntropy", "hydra_plugins.saliency_entropy_sweepers.grid.GridSweeper"} < own
    assert [target for target in sorted(own) if not callable(named(target))] == []


def test_the_keys_in_score_files_are_those_of_stored_files() -> None:
    assert one_pass.MADE_FROM == b"saliency_entropy.made_from"
    assert one_pass.CHECKPOINT == b"saliency_entropy.checkpoint"


@pytest.mark.parametrize("method", METHODS)
def test_the_command_of_the_golden_study_trains_nothing(method: str, study: Path, command: Callable) -> None:
    before = contents(study)
    ended = command(*TRAINED, f"method={method}", defaults=[])
    assert ended.code == 0, ended.err
    assert f"{study / method / 'seed0'} is done: nothing to do" in ended.out
    assert contents(study) == before
    config = OmegaConf.to_container(configuration("train", *TRAINED, f"method={method}"), resolve=True)
    assert config_hash(config) == json.loads((study / method / "seed0" / "result.json").read_text())["config_hash"]


def test_the_golden_study_is_read_whole(study: Path) -> None:
    found = read_study(study)
    assert [run.name for run in found.runs] == ["cross_entropy/seed0", "droid/seed0"]
    assert (found.left_out, found.warnings) == ([], [])
    for run in found.runs:
        scores, figures = run.test_scores(), run.result["test"]
        assert auroc(scores["logit_synthetic"].to_numpy(), (scores["label"] == "synthetic").to_numpy()) == (
            pytest.approx(figures["auroc"])
        )
        assert scores["cam_entropy"].mean() == pytest.approx(figures["cam_entropy"])
        assert len(run.val_scores()) == run.result["val"]["images"]
        assert list(run.epochs["epoch"]) == [0]
        assert run.manifest_columns() == ["source", "pose"]


@pytest.mark.parametrize("method", METHODS)
def test_a_golden_checkpoint_gives_the_scores_that_it_gave(method: str, study: Path) -> None:
    run = study / method / "seed0"
    assert file_digest(best_checkpoint(run)) == json.loads((run / "result.json").read_text())["checkpoint"]
    scores = pd.read_parquet(run / "scores" / "test.parquet")
    judged = Detector.from_checkpoint(best_checkpoint(run)).judge(Path("faces", path) for path in scores["path"])
    found = [(one.logit_real, one.logit_synthetic, one.cam_entropy) for _, _, one in judged]
    assert np.array(found) == pytest.approx(
        scores[["logit_real", "logit_synthetic", "cam_entropy"]].to_numpy(), rel=1e-3, abs=1e-4
    )


@pytest.mark.parametrize(
    ("options", "files"),
    [
        (["corruptions=[jpeg]"], ["test", "test+corruptions"]),
        (["data=faces", "data.root=faces", "split=val", "set=mine"], ["mine"]),
        (["data=faces", "data.root=faces", "split=val", "set=mine", "overwrite=true"], ["mine"]),
    ],
)
def test_the_golden_study_is_not_scored_again(options: list[str], files: list[str], study: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    before = contents(study)
    evaluate(configuration("evaluate", f"study={study}", *SCORED, *options))
    for file in files:
        assert f"scores/{file}.parquet: nothing to do, 2 scored before" in caplog.messages
    assert contents(study) == before


@pytest.mark.parametrize("options", [[], ["overwrite=true"]])
def test_no_maps_of_the_golden_study_are_made_again(options: list[str], study: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    before = contents(study)
    focus(configuration("focus", f"study={study}", *SCORED, "samples=2", *options))
    assert "maps/test.npz: 0 runs made, 2 made before; 2 images, 0 with a human map" in caplog.messages
    assert contents(study) == before


@pytest.mark.parametrize("name", ["mine", "test+corruptions"])
def test_golden_scores_are_of_the_checkpoint_that_the_result_names(name: str, study: Path) -> None:
    files = {run: run.folder / "scores" / f"{name}.parquet" for run in read_study(study).runs}
    for run, file in files.items():
        about = pq.read_schema(file).metadata
        assert about[b"saliency_entropy.checkpoint"].decode() == run.result["checkpoint"]
        assert re.fullmatch(rb"[0-9a-f]{16}", about[b"saliency_entropy.made_from"])
        assert is_of_this_checkpoint(run, file)
    name_other_checkpoint(study)
    again = read_study(study)
    assert [is_of_this_checkpoint(run, run.folder / "scores" / f"{name}.parquet") for run in again.runs] == [False] * 2


def test_golden_maps_are_of_the_checkpoint_that_the_result_names(study: Path) -> None:
    maps = read_study_maps(read_study(study))
    assert maps is not None
    assert ([run.method for run in maps.runs], maps.problems) == ([*METHODS], [])
    assert maps.maps["cam"].shape == (2, 2, 3, 3)
    name_other_checkpoint(study)
    assert read_study_maps(read_study(study)) is None
