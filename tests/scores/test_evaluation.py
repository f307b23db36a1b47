"""The scores of a whole study: those of each run's own, decoded once, interrupted or not, and of corrupted images."""

import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from study_commands import configuration

from saliency_entropy.data import dataset
from saliency_entropy.detector import Detector
from saliency_entropy.errors import UserError
from saliency_entropy.run.result import IMAGES
from saliency_entropy.run.variants import write_variant
from saliency_entropy.scores import one_pass as scoring_pass
from saliency_entropy.scores.corruptions import STRENGTHS
from saliency_entropy.scores.evaluate import evaluate
from saliency_entropy.scores.images import read_images
from saliency_entropy.scores.maps import focus
from saliency_entropy.scores.one_pass import CHECKPOINT
from saliency_entropy.scores.score_table import sampled

ROOT = Path(__file__).parents[2]
RUNS = ("cross_entropy/seed0", "droid/seed0", "droid/seed1")


def configured(study: Path, *overrides: str) -> DictConfig:
    return configuration("evaluate", study, "batch_size=8", "chunk=1", *overrides)


def score_files(study: Path, name: str) -> dict[str, pd.DataFrame]:
    return {str(path.relative_to(study)): pd.read_parquet(path) for path in sorted(study.rglob(f"{name}.parquet"))}


def test_the_scores_are_those_that_each_run_gave_itself(study: Path, trained: Path) -> None:
    for path in study.rglob("test.parquet"):
        path.unlink()
    evaluate(configured(study))
    own, again = score_files(trained, "test"), score_files(study, "test")
    assert len(own) == 3
    assert own.keys() == again.keys()
    for name, table in own.items():
        pd.testing.assert_frame_equal(again[name], table, check_exact=True)
    assert not list(study.rglob("scores/.*"))


def test_each_image_is_decoded_once(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    load = dataset.load_channels
    monkeypatch.setattr(dataset, "load_channels", lambda file, *rest: decoded.append(str(file)) or load(file, *rest))
    evaluate(configured(study, "overwrite=true"))
    assert len(decoded) == len(set(decoded)) == 12


@pytest.mark.parametrize("command", ["evaluate", "focus"])
def test_the_variants_of_a_study_are_scored_one_after_the_other(
    study: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, command: str
) -> None:
    whole = tmp_path / "whole"
    for value in (0.5, 1.0):
        shutil.copytree(study, whole / f"fraction={value:g}")
        write_variant(whole / f"fraction={value:g}", {"data.human_maps.fraction": value})
    write_variant(whole / "fraction=2", {"data.human_maps.fraction": 2})  # not begun
    checkpoint = whole / "fraction=1" / RUNS[1] / "checkpoints" / "best.ckpt"
    ruined = torch.load(checkpoint, weights_only=True)
    for weights in ruined["state_dict"].values():
        if weights.is_floating_point():
            weights.fill_(math.nan)
    torch.save(ruined, checkpoint)
    caplog.set_level("INFO")
    kept, run = ("scores/mine.parquet", evaluate) if command == "evaluate" else ("maps/mine.npz", focus)
    with pytest.raises(UserError, match=r"^fraction=1/droid/seed0: .* not finite"):
        run(configuration(command, whole, "batch_size=8", "set=mine"))
    made = {path.relative_to(whole).as_posix() for path in whole.rglob(Path(kept).name)}
    expected = {f"fraction={value}/{name}/{kept}" for value in ("0.5", "1") for name in RUNS}
    if command == "focus":
        expected -= {f"fraction=1/{RUNS[1]}/{kept}"}
        expected |= {f"fraction={value}/{kept}" for value in ("0.5", "1")}
    assert made == expected
    assert caplog.text.index("fraction=0.5") < caplog.text.index("fraction=1")


def test_what_is_scored_is_left(study: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(dataset, "load_channels", None)  # nothing may be decoded
    evaluate(configured(study))
    assert "scores/test.parquet: nothing to do, 3 scored before" in caplog.text


def test_a_test_image_that_has_changed_since_training_is_refused(
    tmp_path: Path, train_small: Callable[..., Path], own_faces: Path
) -> None:
    study = tmp_path / "study"
    run = study / "droid" / "seed0"
    train_small(run, "method=droid", f"data.root={own_faces}", "trainer.max_epochs=1")
    evaluate(configured(study))
    path = own_faces / pd.read_parquet(run / "scores" / "test.parquet")["path"].iloc[0]
    Image.new("RGB", (48, 48), (10, 200, 30)).save(path)
    with pytest.raises(UserError, match=r"test\.parquet: made from other images, whose bytes .* overwrite=true$"):
        evaluate(configured(study))
    evaluate(configured(study, "overwrite=true"))
    evaluate(configured(study))


def test_heat_maps_are_decoded_by_the_colour_map_of_the_command_or_of_the_runs(study: Path, own_faces: Path) -> None:
    other = [f"data.root={own_faces}", "split=val", "data=faces", "+data.human_maps.colormap=jet"]
    assert read_images(configured(study, *other), []).transform(48, "bilinear", (7, 7)).colormap == "jet"
    # Without one, what the scores are made from has no such key: those that older versions stored are still right.
    assert set(read_images(configured(study, *other[:-1]), []).human_maps) == {"blur", "binarise", "template_maps"}
    folders = [study / name for name in RUNS]
    for folder in folders:
        config = OmegaConf.load(folder / "config.yaml")
        config.data.human_maps.colormap = "viridis"
        OmegaConf.save(config, folder / "config.yaml")
    assert read_images(configured(study), folders).human_maps["colormap"] == "viridis"


def reader_of(names: object) -> None:
    raise UserError(f"given a {type(names).__name__}")


def test_a_reader_of_ones_own_gets_plain_values(study: Path, own_faces: Path) -> None:
    cfg = configured(study, f"data.root={own_faces}", "split=val", "data=faces")
    cfg.data.source = {"_target_": f"{__name__}.reader_of", "_partial_": True, "names": ["a", "b"]}
    with pytest.raises(UserError, match=r"given a list$"):
        read_images(cfg, [])


def test_an_interrupted_pass_goes_on(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in its second chunk: the first is not decoded again, and the files are the same to the last bit."""
    load = dataset.load_channels
    decoded: list[str] = []

    def killed(file: object, *rest: object) -> np.ndarray:
        decoded.append(str(file))
        if len(decoded) == 10:
            raise KeyboardInterrupt
        return load(file, *rest)

    monkeypatch.setattr(dataset, "load_channels", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(configured(study, "set=again", "split=test"))
    assert not score_files(study, "again")
    first = decoded[:8]
    decoded[:] = [""] * 20  # beyond the tenth
    evaluate(configured(study, "set=again"))
    assert not {*first} & {*decoded}
    for name, table in score_files(study, "again").items():
        expected = pd.read_parquet(study / name.replace("again", "test"))
        pd.testing.assert_frame_equal(table, expected, check_exact=True)
    assert len(score_files(study, "again")) == 3


def test_an_interrupted_overwrite_goes_on(study: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    """What was made from the same is not made again, to the last file; what is damaged is."""
    caplog.set_level("INFO")
    evaluate(configured(study, "overwrite=true"))  # of the training, which does not say what they were made from
    assert ": 3 runs scored\n" in caplog.text
    path = study / "droid" / "seed0" / "scores" / "test.parquet"
    whole = pd.read_parquet(path)
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)  # its end is whole
    path.write_bytes(content)
    decoded = []
    load = dataset.load_channels
    monkeypatch.setattr(dataset, "load_channels", lambda file, *rest: decoded.append(str(file)) or load(file, *rest))
    evaluate(configured(study, "overwrite=true"))
    assert ": 1 run scored, 2 scored before" in caplog.text
    assert len(decoded) == 12
    pd.testing.assert_frame_equal(pd.read_parquet(path), whole)
    evaluate(configured(study, "overwrite=true"))
    assert len(decoded) == 12
    path.write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"test\.parquet is damaged; delete it, or give overwrite=true"):
        evaluate(configured(study))
    evaluate(configured(study, "overwrite=true"))
    pd.testing.assert_frame_equal(pd.read_parquet(path), whole)


def test_scores_that_are_not_finite_end_the_command_after_all_others(study: Path) -> None:
    path = study / "droid" / "seed1" / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    for value in checkpoint["state_dict"].values():
        if value.is_floating_point():
            value.fill_(float("nan"))
    torch.save(checkpoint, path)
    for _ in range(2):  # the second time all is scored before
        with pytest.raises(UserError, match=r"^droid/seed1: the scores in scores/mine.parquet are not finite, since"):
            evaluate(configured(study, "set=mine"))
    tables = score_files(study, "mine")
    assert [bool(np.isfinite(table["logit_real"]).all()) for table in tables.values()] == [True, True, False]


def other_images(root: Path) -> Path:
    (root / "x").mkdir(parents=True)
    for number in range(3):
        Image.fromarray(np.full((30, 40, 3), 60 * number, dtype=np.uint8)).save(root / "x" / f"{number}.png")
    rows = "".join(
        f"x/{n}.png,{label},test,{g},{n}\n"
        for n, label, g in ((0, "real", ""), (1, "synthetic", "n"), (2, "synthetic", "m"))
    )
    (root / "manifest.csv").write_text("path,label,split,generator,mine\n" + rows)
    return root


def test_other_images_without_training(study: Path, tmp_path: Path) -> None:
    """A test set alone, with a column of its own; a changed image is not taken for scored."""
    root = other_images(tmp_path / "other")
    data = ("data=faces", f"data.root={root}", "set=other")
    evaluate(configured(study, *data))
    tables = score_files(study, "other")
    assert len(tables) == 3
    for table in tables.values():
        assert table["mine"].tolist() == ["0", "1", "2"]
        assert np.isfinite(table["logit_real"]).all()
        assert table["cam_human_mse"].isna().all()
    evaluate(configured(study, *data))
    (root / "manifest.csv").write_text((root / "manifest.csv").read_text().replace(",m,", ",k,"))
    with pytest.raises(
        UserError,
        match=r"cross_entropy/seed0/scores/other\.parquet; .*droid/seed1/scores/other\.parquet: made from other images "
        r"or another number of them, another checkpoint.*; give another name, set=\.\.\., or overwrite=true$",
    ):
        evaluate(configured(study, *data))
    evaluate(configured(study, *data, "overwrite=true"))
    assert {table["generator"][2] for table in score_files(study, "other").values()} == {"k"}


def test_a_configuration_chooses_no_function(study: Path, tmp_path: Path) -> None:
    path = study / "cross_entropy" / "seed0" / "config.yaml"
    config = OmegaConf.load(path)
    config.data.source = {"_target_": "os.system", "command": f"touch {tmp_path}/evil"}
    OmegaConf.save(config, path)
    with pytest.raises(UserError, match=r"config\.yaml names no reader of this package; give data="):
        evaluate(configured(study, "overwrite=true"))
    config.data.source = {
        "_target_": "saliency_entropy.data.manifest.read_manifest",
        "path": {"_target_": "os.system", "command": f"touch {tmp_path}/evil"},
    }
    OmegaConf.save(config, path)
    with pytest.raises(UserError, match=r"config\.yaml names no reader of this package"):
        evaluate(configured(study, "overwrite=true"))
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(("override", "message"), [
    ("batch_size=0", "batch_size is 0; give a whole number from 1 on"),
    ("chunk=half", "chunk is 'half'; give a whole number from 1 on"),
    ("threads=0", "threads is 0; give a whole number from 1 on, or null"),
    ("num_workers=-1", "num_workers is -1; give a whole number from 0 on, or null"),
    ("corruption_images=1", "corruption_images is 1; give a whole number from 2 on, or null"),
    ("corruptions=[jpg]", "corruptions names 'jpg'; choose from jpeg, blur,"),
    ("corruptions=[]", "corruptions names none; choose from"),
    ("split=valid", "split is 'valid'; choose one of train, val, test"),
    ("set=../evil", "set='../evil' cannot name a folder: use up to 200 letters, digits"),
    ("set=val", "set=val is the name of the study's own val images, which a report reads; give another"),
    ("set=x+corruptions", "set=x+corruptions is a name for files of corrupted images; give another"),
])  # fmt: skip
def test_mistakes(study: Path, override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        evaluate(configured(study, override))
    assert str(caught.value).startswith(message)


def test_a_study_without_finished_runs(study: Path) -> None:
    for path in study.rglob("result.json"):
        path.unlink()
    with pytest.raises(UserError, match=r"no run in .* is finished"):
        evaluate(configured(study))


def test_other_images_never_take_the_place_of_a_runs_own(study: Path, tmp_path: Path) -> None:
    root = other_images(tmp_path / "other")
    with pytest.raises(UserError, match="set=test is the name of the study's own test images"):
        evaluate(configured(study, "data=faces", f"data.root={root}", "set=test", "overwrite=true"))


def test_unfinished_runs_are_named(study: Path, caplog: pytest.LogCaptureFixture) -> None:
    (study / "droid" / "seed1" / "result.json").unlink()
    evaluate(configured(study, "set=again"))
    assert "not finished, and so not scored: droid/seed1" in caplog.text
    assert list(score_files(study, "again")) == [f"{run}/scores/again.parquet" for run in RUNS[:2]]


def test_runs_without_a_checkpoint(study: Path) -> None:
    """Only where one is needed; all are named."""
    for run in RUNS[1:]:
        (study / run / "checkpoints" / "best.ckpt").unlink()
    evaluate(configured(study))
    with pytest.raises(UserError, match=r"2 of 3 runs have no checkpoint .*droid/seed0.*; .*droid/seed1.*; delete"):
        evaluate(configured(study, "set=again"))
    assert not score_files(study, "again")


def test_networks_of_several_sizes(train_small: Callable[..., Path], tmp_path: Path) -> None:
    study = tmp_path / "study"
    train_small(study / "droid" / "seed0", "method=droid", "trainer.max_epochs=1")
    train_small(study / "droid" / "seed1", "method=droid", "trainer.max_epochs=1", "backbone.image_size=32")
    own = score_files(study, "test")
    evaluate(configured(study, "overwrite=true"))
    for name, table in score_files(study, "test").items():
        pd.testing.assert_frame_equal(table, own[name], check_exact=True)


def test_runs_of_different_data(study: Path, tmp_path: Path) -> None:
    path = study / "droid" / "seed1" / "config.yaml"
    config = OmegaConf.load(path)
    config.data.source.root = str(tmp_path)
    OmegaConf.save(config, path)
    with pytest.raises(UserError, match=r"other data than in .*config\.yaml are named in .*droid/seed1/config\.yaml; "):
        evaluate(configured(study, "overwrite=true"))


@pytest.mark.parametrize("content", ["data: [", "data: 3", "seed: 1", "data: {source: {_target_: 7}}"])
def test_a_damaged_configuration(study: Path, content: str) -> None:
    (study / "droid" / "seed1" / "config.yaml").write_text(content)
    with pytest.raises(UserError, match=r"droid/seed1/config\.yaml (does not say what data|names no reader)"):
        evaluate(configured(study, "overwrite=true"))


def test_a_reader_with_other_arguments(study: Path) -> None:
    path = study / "droid" / "seed0" / "config.yaml"
    config = OmegaConf.load(path)
    config.data.source.colour = "blue"
    OmegaConf.save(config, path)
    with pytest.raises(UserError, match=r"does not say what data the run had \(got an unexpected keyword"):
        evaluate(configured(study, "overwrite=true"))


def test_train_and_val_images_are_not_needed(train_small: Callable[..., Path], own_faces: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    train_small(study / "droid" / "seed0", "method=droid", f"data.root={own_faces}", "trainer.max_epochs=1")
    own = score_files(study, "test")
    shutil.rmtree(own_faces / "train")
    evaluate(configured(study, "overwrite=true"))
    assert score_files(study, "test").keys() == own.keys()


def test_template_maps(train_small: Callable[..., Path], own_faces: Path, tmp_path: Path) -> None:
    """What a run scored its validation images with is what they are scored with again."""
    study = tmp_path / "study"
    manifest = pd.read_csv(own_faces / "manifest.csv").drop(columns="human_map")
    manifest.to_csv(own_faces / "manifest.csv", index=False)
    train_small(
        study / "droid" / "seed0", "method=droid", f"data.root={own_faces}", "data.template_maps=true",
        "trainer.max_epochs=1",
    )  # fmt: skip
    own = score_files(study, "val")
    evaluate(configured(study, "split=val", "overwrite=true"))
    for name, table in score_files(study, "val").items():
        assert (table["human_map"] == "template").all()
        pd.testing.assert_frame_equal(table, own[name], check_exact=True)


def damage(path: Path) -> bytes:
    """Cut an image in half, its header whole; returns what it was."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return content


def test_a_run_that_left_out_broken_files(train_small: Callable[..., Path], own_faces: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    damage(own_faces / "test" / "3.jpg")
    (own_faces / "test" / "4.png").unlink()
    train_small(
        study / "droid" / "seed0", "method=droid", f"data.root={own_faces}", "data.skip_broken=true",
        "trainer.max_epochs=1",
    )  # fmt: skip
    own = score_files(study, "test")
    evaluate(configured(study, "overwrite=true"))
    for name, table in score_files(study, "test").items():
        assert len(table) == 10
        assert table["path"].tolist() == own[name]["path"].tolist()
        # The batches are others.
        np.testing.assert_allclose(table["logit_real"], own[name]["logit_real"], atol=1e-5)


def test_images_that_break(
    study: Path, own_faces: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All are named; what is whole has been scored; mended, only their chunks are decoded again."""
    data = ("data=faces", f"data.root={own_faces}", "set=other", "batch_size=3")
    whole = {name: damage(own_faces / "test" / name) for name in ("3.jpg", "5.png", "6.jpg")}
    with pytest.raises(UserError) as caught:
        evaluate(configured(study, *data))
    message = str(caught.value)
    assert message.startswith(f"{own_faces / 'manifest.csv'}: 3 images cannot be used: row 36: ")
    assert all(f"test/{name}" in message for name in whole)
    assert message.endswith("which scores the rest, or leave them out with skip_broken=true")
    assert not score_files(study, "other")

    left = {name: (own_faces / "test" / name).read_bytes() for name in whole}
    shutil.copytree(study, study.parent / "other")
    evaluate(configured(study.parent / "other", *data, "skip_broken=true"))
    assert "3 images cannot be used and left out (skip_broken=true): row 36: " in caplog.text
    tables = score_files(study.parent / "other", "other")
    assert len(tables) == 3
    for table in tables.values():
        assert not set(table["path"]) & {f"test/{name}" for name in left}
        assert len(table) == 9

    decoded = []
    load = dataset.load_channels
    monkeypatch.setattr(
        dataset, "load_channels", lambda file, *rest: decoded.append(Path(str(file)).name) or load(file, *rest)
    )
    for name, content in whole.items():
        (own_faces / "test" / name).write_bytes(content)
    evaluate(configured(study, *data))
    assert sorted(decoded) == ["3.jpg", "4.png", "5.png", "6.jpg", "7.png", "8.png"]
    assert {len(table) for table in score_files(study, "other").values()} == {12}


def test_an_image_replaced_under_its_name(study: Path, own_faces: Path) -> None:
    data = ("data=faces", f"data.root={own_faces}", "set=other")
    evaluate(configured(study, *data))
    Image.new("RGB", (48, 48)).save(own_faces / "test" / "4.png")
    with pytest.raises(UserError, match="made from other images or another number of them"):
        evaluate(configured(study, *data))


def test_a_column_that_begins_without_values(study: Path, own_faces: Path) -> None:
    table = pd.read_csv(own_faces / "manifest.csv", keep_default_na=False)
    table["camera"] = pd.Series([None] * (len(table) - 1) + ["x"], dtype=object)
    table.to_parquet(own_faces / "manifest.parquet")
    evaluate(configured(
        study, "data=faces", f"data.root={own_faces}", f"data.source.path={own_faces}/manifest.parquet", "set=other"
    ))  # fmt: skip
    for scores in score_files(study, "other").values():
        assert scores["camera"].isna().sum() == 11
        assert scores["camera"].iloc[11] == "x"


def test_what_an_abandoned_pass_left_is_removed(study: Path) -> None:
    scores = study / "droid" / "seed0" / "scores"
    for name in (".again-0123456789abcdef", ".test-0123456789abcdef", ".again-2-0123456789abcdef"):
        (scores / name).mkdir()
    evaluate(configured(study, "set=again"))
    evaluate(configured(study))
    assert [path.name for path in scores.glob(".*")] == [".again-2-0123456789abcdef"]


def test_a_full_disk(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence; what was scored before stays, and the same command goes on."""
    write, written = scoring_pass.write_atomically, []

    def full(path: Path, content: memoryview) -> None:
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)
        written.append(path)

    monkeypatch.setattr(scoring_pass, "write_atomically", full)
    with pytest.raises(UserError, match=r"8-12\.npz cannot be read or written \(No space left on device\); make room"):
        evaluate(configured(study, "set=again"))
    monkeypatch.setattr(scoring_pass, "write_atomically", lambda path, content: write(path, content))
    assert all(path.exists() for path in written)
    evaluate(configured(study, "set=again"))
    assert len(score_files(study, "again")) == 3


def test_a_disk_that_is_full_at_the_end(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(pq.ParquetWriter):
        def write_table(self, *_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pq, "ParquetWriter", Full)
        with pytest.raises(UserError, match=r"study cannot be read or written \(No space left on device\)"):
            evaluate(configured(study, "set=again"))
    assert not score_files(study, "again")
    monkeypatch.setattr(dataset, "load_channels", None)  # nothing need be decoded again
    evaluate(configured(study, "set=again"))
    assert len(score_files(study, "again")) == 3
    assert not [path for path in study.rglob(".again*")]


def test_too_little_memory(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr(scoring_pass, "predict_batch", fails)
    with pytest.raises(UserError, match=r"^cpu has too little memory for 3 detectors and batches of 8 images; "):
        evaluate(configured(study, "set=again"))


def test_another_process_scores(study: Path) -> None:
    from filelock import FileLock

    with (
        FileLock(study / ".evaluate.lock"),
        pytest.raises(UserError, match=r"evaluate\.py works on .*study in another process; wait for it"),
    ):
        evaluate(configured(study, "set=again"))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups are POSIX's")
def test_ctrl_c_ends_the_workers(study: Path) -> None:
    """The terminal sends SIGINT to the command and its workers alike; none is left, and the pass goes on."""
    slow = (
        "import runpy, sys, time; from saliency_entropy.data import dataset; load = dataset.load_channels\n"
        "dataset.load_channels = lambda *given: (time.sleep(1), load(*given))[1]\n"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", slow, str(ROOT / "experiments" / "evaluate.py"), f"study={study}", "set=again",
         "batch_size=1", "chunk=1", "num_workers=2", "device=cpu", "threads=1"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        for line in process.stdout:
            if "1 of 12 images" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(120) == 128 + signal.SIGINT
        assert "ended by SIGINT: give the same command again to go on" in rest
        assert "Traceback" not in rest
        for _ in range(600):
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                break
            time.sleep(0.1)
        else:
            pytest.fail("workers are left")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert list(study.rglob("*.npz"))
    evaluate(configured(study, "set=again", "batch_size=1"))
    assert len(score_files(study, "again")) == 3


# Corruptions.


def test_corrupted_images(study: Path, faces: Path) -> None:
    """Every variant of every image, judged as the detector judges what Pillow makes of it."""
    evaluate(configured(study, "corruptions=all"))
    tables = score_files(study, "test+corruptions")
    assert len(tables) == 3
    plain = score_files(study, "test")
    for name, table in tables.items():
        assert list(table) == [
            "path", "label", "generator", "corruption", "strength", "logit_real", "logit_synthetic", "cam_entropy",
        ]  # fmt: skip
        assert len(table) == 12 * 21
        counts = table.groupby(["corruption", "strength"], observed=True).size()
        expected = {("none", 0.0), *((name, s) for name, strengths in STRENGTHS.items() for s in strengths)}
        assert set(counts.index) == expected
        assert set(counts) == {12}
        run = study / Path(name).parent.parent
        kept = pq.read_schema(study / name).metadata[CHECKPOINT].decode()
        assert kept == hashlib.sha256((run / "checkpoints" / "best.ckpt").read_bytes()).hexdigest()[:16]
        assert kept == json.loads((run / "result.json").read_text())["checkpoint"]
        clean = table[table["corruption"] == "none"].reset_index(drop=True)
        own = plain[name.replace("+corruptions", "")]
        assert clean["path"].tolist() == own["path"].tolist()
        np.testing.assert_allclose(clean["logit_synthetic"], own["logit_synthetic"], atol=1e-5)
        np.testing.assert_allclose(clean["cam_entropy"], own["cam_entropy"], atol=1e-4)
    detector = Detector.from_checkpoint(study / "droid" / "seed0" / "checkpoints" / "best.ckpt")
    table = tables["droid/seed0/scores/test+corruptions.parquet"]
    for path in ("test/0.jpg", "test/7.png"):
        image = Image.open(faces / path).convert("RGB").resize((48, 48), Image.Resampling.BILINEAR)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=30)
        expected = detector(torch.from_numpy(np.array(Image.open(file)).transpose(2, 0, 1)[None].copy()))[0]
        found = table[(table["path"] == path) & (table["corruption"] == "jpeg") & (table["strength"] == 30)].iloc[0]
        assert found["logit_synthetic"] == pytest.approx(expected.logit_synthetic, abs=1e-5)
        assert found["cam_entropy"] == pytest.approx(expected.cam_entropy, abs=1e-4)


def test_each_image_is_decoded_once_for_all_its_variants(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    load = dataset.load_channels
    monkeypatch.setattr(dataset, "load_channels", lambda file, *rest: decoded.append(str(file)) or load(file, *rest))
    evaluate(configured(study, "corruptions=all", "corruption_images=6"))
    assert len(decoded) == len(set(decoded)) == 6


def test_an_interrupted_pass_over_corrupted_images_goes_on(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load, decoded = dataset.load_channels, []

    def killed(file: object, *rest: object) -> np.ndarray:
        decoded.append(str(file))
        if len(decoded) == 7:
            raise KeyboardInterrupt
        return load(file, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(dataset, "load_channels", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate(configured(study, "corruptions=[noise]"))
    assert not score_files(study, "test+corruptions")
    again: list[str] = []
    monkeypatch.setattr(dataset, "load_channels", lambda file, *rest: again.append(str(file)) or load(file, *rest))
    evaluate(configured(study, "corruptions=[noise]"))
    assert not {*decoded[:6]} & {*again}
    interrupted = score_files(study, "test+corruptions")
    for path in study.rglob("test+corruptions.parquet"):
        path.unlink()
    evaluate(configured(study, "corruptions=[noise]", "chunk=5"))
    for name, table in score_files(study, "test+corruptions").items():
        pd.testing.assert_frame_equal(table, interrupted[name], check_exact=True)


def test_a_long_pass_tells_how_far_it_is(study: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    """Within a chunk as well, when nothing was said for a while."""
    caplog.set_level("INFO")
    monkeypatch.setattr(scoring_pass._Progress, "SILENCE", -1.0)
    evaluate(configured(study, "set=own", "batch_size=4", "chunk=9"))  # 12 images: three batches, one chunk
    said = [message for message in caplog.messages if "by 3 detectors" in message]
    assert [message.split(" by ")[0] for message in said] == [
        "0 of 12 images", "4 of 12 images", "8 of 12 images", "12 of 12 images",
    ]  # fmt: skip
    assert re.fullmatch(r"4 of 12 images by 3 detectors, [\d.]+ images/s, about \d+ min left", said[1])
    assert re.fullmatch(r"12 of 12 images by 3 detectors, [\d.]+ images/s", said[3])


def test_other_corruptions_are_not_taken_for_these(study: Path) -> None:
    evaluate(configured(study, "corruptions=[jpeg]"))
    evaluate(configured(study, "corruptions=[jpeg]"))
    with pytest.raises(UserError, match=r"scores/test\+corruptions\.parquet: made from .*, other corruptions or "):
        evaluate(configured(study, "corruptions=[jpeg,blur]"))
    evaluate(configured(study, "corruptions=[jpeg,blur]", "overwrite=true"))
    assert {len(table) for table in score_files(study, "test+corruptions").values()} == {12 * 9}


def test_a_sample_of_the_images() -> None:
    """Halves of the labels, the shares of the generators and sources, the same in any order of the rows."""
    rows = [("real", "", "ffhq")] * 300 + [("real", "", "celeba")] * 100
    rows += [("synthetic", "gan", "")] * 500 + [("synthetic", "rare", "")] * 10
    table = pd.DataFrame(rows, columns=["label", "generator", "source"])
    table["path"] = [f"{number}.png" for number in range(len(table))]
    taken = sampled(table, 101)
    assert taken.index.is_monotonic_increasing
    assert taken.groupby(["label", "generator", "source"]).size().to_dict() == {
        ("real", "", "celeba"): 12, ("real", "", "ffhq"): 38,
        ("synthetic", "gan", ""): 50, ("synthetic", "rare", ""): 1,
    }  # fmt: skip
    assert set(sampled(table.sample(frac=1, random_state=1), 101)["path"]) == set(taken["path"])
    # Random within a group, not its first rows.
    assert taken["path"].str.removesuffix(".png").astype(int)[lambda n: n < 300].mean() == pytest.approx(150, abs=50)
    # What a label lacks, the other gives.
    few = sampled(table[(table["label"] == "synthetic") | (table.index < 20)], 200)
    assert few["label"].value_counts().to_dict() == {"synthetic": 180, "real": 20}
    assert sampled(table[table["label"] == "real"], 50)["label"].value_counts().to_dict() == {"real": 50}
    assert len(sampled(table, 909)) == 909
    assert sampled(table, None) is table
    assert sampled(table, 910) is table


def noise_of_one_size(root: Path, seed: int, only: int | None = None) -> None:
    """Bitmaps, which all have the same number of bytes; their times do not tell them apart either."""
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 20, 20, 3), dtype=np.uint8)
    root.mkdir(exist_ok=True)
    for number in range(12) if only is None else [only]:
        Image.fromarray(pixels[number]).save(root / f"{number}.bmp")
        os.utime(root / f"{number}.bmp", ns=(1, 1))
    rows = [f"{n}.bmp,{('real', 'synthetic')[n % 2]},test,{'g' * (n % 2)}" for n in range(12)]
    (root / "manifest.csv").write_text("\n".join(["path,label,split,generator", *rows]))


def test_images_that_were_replaced_by_others_of_their_size_are_not_taken_for_scored(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "other"
    data = ("data=faces", f"data.root={root}", "set=other")
    noise_of_one_size(root, 0)
    evaluate(configured(study, *data))
    first = score_files(study, "other")
    moved = root.rename(tmp_path / "moved")
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "load_channels", None)  # nothing may be decoded
        evaluate(configured(study, "data=faces", f"data.root={moved}", "set=other"))
    moved.rename(root)
    noise_of_one_size(root, 1, only=3)
    with pytest.raises(UserError, match="made from other images or another number of them"):
        evaluate(configured(study, *data))
    evaluate(configured(study, *data, "overwrite=true"))
    evaluate(configured(study, *data, "set=new"))
    for name, table in score_files(study, "other").items():
        assert (table["logit_real"] != first[name]["logit_real"]).tolist() == [n == 3 for n in range(12)]
        new = study / name.replace("other", "new")
        pd.testing.assert_frame_equal(table, pd.read_parquet(new), check_exact=True)
        about, about_new = (pq.read_schema(path).metadata for path in (study / name, new))
        assert re.fullmatch(rb"[0-9a-f]{16}", about[IMAGES])
        assert about[IMAGES] == about_new[IMAGES]


def test_an_interrupted_pass_does_not_mix_images_that_were_replaced_meanwhile(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "other"
    data = ("data=faces", f"data.root={root}", "batch_size=2", "num_workers=0")
    noise_of_one_size(root, 0)
    load, decoded = dataset.load_channels, []

    def killed(file: object, *rest: object) -> np.ndarray:
        decoded.append(str(file))
        if len(decoded) == 8:
            raise KeyboardInterrupt
        return load(file, *rest)

    monkeypatch.setattr(dataset, "load_channels", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(configured(study, *data, "set=other"))
    noise_of_one_size(root, 1, only=3)
    decoded[:] = [""] * 20
    evaluate(configured(study, *data, "set=other"))
    # The chunk of the changed image is decoded again, those of images 0 and 1 and of 4 and 5 are not.
    assert {Path(file).stem for file in decoded[20:]} == {*map(str, [2, 3, *range(6, 12)])}
    assert "2-4.npz: some of these images have changed since they were scored; scored again" in caplog.text
    evaluate(configured(study, *data, "set=new"))
    for name, table in score_files(study, "other").items():
        pd.testing.assert_frame_equal(table, pd.read_parquet(study / name.replace("other", "new")), check_exact=True)


def test_a_run_and_a_later_pass_agree_on_what_they_scored(study: Path) -> None:
    evaluate(configured(study, "set=again"))
    for run in RUNS:
        own, again = (pq.read_schema(study / run / "scores" / f"{name}.parquet").metadata for name in ("test", "again"))
        assert own[IMAGES] == again[IMAGES] != b""
