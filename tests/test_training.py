"""Whole runs: what they leave, that they repeat, that an interrupted one ends like an uninterrupted one."""

import json
import logging
import os
import pty
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
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from saliency_entropy import metrics, training
from saliency_entropy.errors import UserError
from saliency_entropy.metrics import auroc
from saliency_entropy.run import callbacks
from saliency_entropy.run.folder import config_hash
from saliency_entropy.run.result import headline, split_figures, summarise

ROOT = Path(__file__).parents[1]
TrainSmall = Callable[..., Path]
SCORES = list(metrics.SCORES)


def assert_equal(one: object, other: object) -> None:
    """Bit for bit, tensors inside too."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_equal(left, right)
    else:
        assert one == other


def assert_same_run(one: Path, other: Path) -> None:
    assert (one / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()
    for split in ("val", "test"):
        pd.testing.assert_frame_equal(*(pd.read_parquet(f / "scores" / f"{split}.parquet") for f in (one, other)),
                                      check_exact=True)  # fmt: skip
    for name in ("best", "resume"):
        states = [torch.load(f / "checkpoints" / f"{name}.ckpt", weights_only=True) for f in (one, other)]
        training = ("optimizer_states", "lr_schedulers") if name == "resume" else ()
        for key in ("epoch", "global_step", "state_dict", "detector", *training):
            assert_equal(*(state[key] for state in states))
    results = [json.loads((folder / "result.json").read_text()) for folder in (one, other)]
    for result in results:
        del result["wall_seconds"], result["finished"], result["git_commit"]  # one may be made meanwhile
    assert results[0] == results[1]


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything a run left but Hydra's own log and its claim: time of the last change and content."""
    files = [
        path for path in folder.rglob("*") if path.is_file() and path.suffix != ".log" and path.parent.name != ".owner"
    ]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


# --- what a run leaves


@pytest.fixture(scope="module")
def done(train_small: TrainSmall, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of droid_cyborg; to be read only."""
    return train_small(tmp_path_factory.mktemp("done"), "method=droid_cyborg")


def test_the_files_of_a_run(done: Path) -> None:
    assert sorted(contents(done)) == [
        "README.md", "attempts.json", "checkpoints/best.ckpt", "checkpoints/resume-before.ckpt",
        "checkpoints/resume.ckpt", "config.yaml", "data_hash.txt", "image_digests", "metrics.csv", "result.json",
        "scores/test.parquet", "scores/val.parquet",
    ]  # fmt: skip
    times = {name: time for name, (time, _) in contents(done).items() if name != "attempts.json"}
    assert times["result.json"] == max(times.values())


def test_new_tensors_are_not_filled_to_be_deterministic(done: Path) -> None:
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory


def test_its_configuration_is_resolved(done: Path, faces: Path) -> None:
    text = (done / "config.yaml").read_text()
    assert "${" not in text
    cfg = OmegaConf.create(text)
    assert (cfg.data.root, cfg.data.batch_size, cfg.data.source.path) == (str(faces), 8, f"{faces}/manifest.csv")
    assert cfg.loss.terms.log_entropy.weight == 0.3


def test_its_scores(done: Path, faces: Path) -> None:
    """Every test image once, in the manifest's order, with all of the manifest's columns."""
    listed = pd.read_csv(faces / "manifest.csv", keep_default_na=False, dtype=str)
    for split in ("val", "test"):
        scores = pd.read_parquet(done / "scores" / f"{split}.parquet")
        rows = listed[listed["split"] == split].reset_index(drop=True)
        assert list(scores) == ["path", "label", "split", "generator", "source", "human_map", "pose", *SCORES]
        pd.testing.assert_frame_equal(scores[list(rows)], rows, check_dtype=False)
        assert np.isfinite(scores[SCORES[:3]]).all(axis=None)
        for column in SCORES[3:]:
            assert (scores[column].notna() == (scores["human_map"] != "")).all()


def test_the_scores_are_those_of_the_best_epoch(done: Path, faces: Path) -> None:
    from saliency_entropy.detector import Detector

    scores = pd.read_parquet(done / "scores" / "test.parquet")
    detector = Detector.from_checkpoint(done / "checkpoints" / "best.ckpt")
    judged = [found for *_, found in detector.judge([faces / path for path in scores["path"]])]
    for name in SCORES[:3]:
        np.testing.assert_allclose(scores[name], [getattr(found, name) for found in judged], rtol=1e-4, atol=1e-5)


def test_its_result(done: Path) -> None:
    result = json.loads((done / "result.json").read_text())
    epochs = pd.read_csv(done / "metrics.csv")
    scores = pd.read_parquet(done / "scores" / "test.parquet")
    assert (result["method"], result["seed"], result["study"], result["data"]) == ("droid_cyborg", 0, "faces", "faces")
    assert (result["backbone"], result["timm_name"]) == ("tiny", "test_resnet")
    assert (result["epochs"], result["cam_cells"], result["train_generators"]) == (2, 9, ["gan", "vae"])
    best = epochs["val/accuracy"][::-1].idxmax()
    assert result["best_epoch"] == best
    assert result["val"]["accuracy"] == pytest.approx(epochs["val/accuracy"][best])
    assert result["val"]["cam_entropy"] == pytest.approx(epochs["val/cam_entropy"][best], rel=1e-4)
    synthetic = (scores["label"] == "synthetic").to_numpy()
    right = (scores["logit_synthetic"] > scores["logit_real"]) == synthetic
    assert result["test"]["accuracy"] == pytest.approx(right.mean())
    assert result["test"]["auroc"] == pytest.approx(auroc(scores["logit_synthetic"].to_numpy(), synthetic))
    margin = (scores["logit_synthetic"].astype(float) - scores["logit_real"].astype(float)).to_numpy()
    assert result["test"]["auroc_margin"] == pytest.approx(auroc(margin, synthetic))
    assert result["val"]["auroc_margin"] == pytest.approx(epochs["val/auroc_margin"][best], abs=1e-6)
    assert result["test"]["images"] == 12
    unseen = scores[(scores["label"] == "real") | (scores["generator"] == "new")]
    assert 0 < (unseen["label"] == "synthetic").sum() < synthetic.sum()
    expected = auroc(unseen["logit_synthetic"].to_numpy(), (unseen["label"] == "synthetic").to_numpy())
    assert result["test"]["auroc_unseen"] == pytest.approx(expected)
    assert result["val"]["auroc_unseen"] is None
    assert result["config_hash"] == config_hash(OmegaConf.to_container(OmegaConf.load(done / "config.yaml")))
    assert result["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert result["wall_seconds"] > 0
    assert result["git_commit"] is None or len(result["git_commit"].removesuffix("+")) == 40


def test_the_code_of_a_result_is_what_it_began_with(
    train_small: TrainSmall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what was pulled or installed while it was trained."""
    fit = training.fit

    def overtaken(*arguments: object) -> None:
        fit(*arguments)
        monkeypatch.setattr(training, "git_commit", lambda: "pulled")
        monkeypatch.setattr(training, "versions", lambda: {"torch": "installed"})

    monkeypatch.setattr(training, "git_commit", lambda: "begun")
    monkeypatch.setattr(training, "versions", lambda: {"torch": "begun"})
    monkeypatch.setattr(training, "fit", overtaken)
    train_small(tmp_path, "method=droid", "trainer.max_epochs=1")
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["git_commit"], result["versions"]) == ("begun", {"torch": "begun"})


def test_the_best_epoch_of_a_result_is_the_last_of_equals(done: Path, faces: Path, configure, tmp_path: Path) -> None:
    epochs = pd.read_csv(done / "metrics.csv")
    table = pd.concat([epochs.iloc[[0]]] * 5, ignore_index=True)
    table["epoch"] = range(5)
    table["val/accuracy"] = [0.6, 0.9, 0.6, 0.9, 0.8]
    table.to_csv(tmp_path / "metrics.csv", index=False)
    shutil.copytree(done / "checkpoints", tmp_path / "checkpoints")

    config = OmegaConf.to_container(configure("method=droid_cyborg"), resolve=True)
    assert summarise(config, tmp_path, {"train_generators": ["gan"]}, {})["best_epoch"] == 3


def test_figures_of_a_score_table_by_hand() -> None:
    table = pd.DataFrame(
        {
            "label": ["real", "real", "synthetic", "synthetic"],
            "generator": ["", "", "gan", "new"],
            "logit_real": [0.0, 1.0, 0.0, 3.0],
            "logit_synthetic": [-1.0, 2.0, 1.0, 2.5],
            "cam_entropy": [1.0, 2.0, 3.0, 4.0],
        }
    )
    # 2.5 beats both real images, 1.0 the first only. The margins are -1 and 1 (real), 1 and -0.5: the third image beats
    # one and ties with the other, the last beats one.
    figures = {
        "auroc": 0.75, "accuracy": 0.5, "cam_entropy": 2.5, "images": 4, "auroc_unseen": 1.0, "auroc_margin": 0.625,
        "auroc_unseen_margin": 0.5,
    }  # fmt: skip
    assert split_figures(table, {"train_generators": ["gan"]}) == figures
    # A relative of a training generator is not unseen.
    related = split_figures(table, {"train_generators": ["gan"], "relatives": ["new"]})
    assert related == figures | {"auroc_unseen": None, "auroc_unseen_margin": None}


def test_the_line_at_the_end_of_a_run_has_both_scores() -> None:
    test = {"auroc": 0.61, "auroc_margin": 0.7, "auroc_unseen": 0.5, "auroc_unseen_margin": 0.55, "cam_entropy": 2.0}
    result = {"title": "DROID", "seed": 1, "test": test, "best_epoch": 0, "epochs": 2, "wall_seconds": 3.0}
    assert headline(result) == (
        "DROID, seed 1: test AUROC 0.6100 by logit 1 and 0.7000 by margin, unseen generators 0.5000 by logit 1 and "
        "0.5500 by margin, mean CAM entropy 2.00 nats (epoch 1 of 2, 3 s)"
    )
    assert "unseen" not in headline(result | {"test": test | {"auroc_unseen": None, "auroc_unseen_margin": None}})


# --- the same again


def test_a_seed_gives_the_same_run_whatever_the_process_did_before(
    train_small: TrainSmall, done: Path, tmp_path: Path
) -> None:
    train_small(tmp_path / "other", "method=hseb", "seed=1")
    again = train_small(tmp_path / "again", "method=droid_cyborg")
    assert_same_run(done, again)


def test_another_seed_gives_another_run(train_small: TrainSmall, done: Path, tmp_path: Path) -> None:
    other = train_small(tmp_path, "method=droid_cyborg", "seed=1")
    assert (done / "metrics.csv").read_bytes() != (other / "metrics.csv").read_bytes()
    logits = [pd.read_parquet(folder / "scores" / "test.parquet")["logit_synthetic"] for folder in (done, other)]
    assert (logits[0] != logits[1]).all()


def test_images_from_memory_or_from_workers_give_the_same_run(
    train_small: TrainSmall, done: Path, tmp_path: Path
) -> None:
    other = train_small(tmp_path, "method=droid_cyborg", "data.cache=none", "data.num_workers=2")
    assert (done / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()


def test_a_done_run_is_left_as_it_is(
    train_small: TrainSmall, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the network nor the data are touched."""

    def not_needed(*args: object) -> None:
        raise AssertionError("a done run needs no module and no data")

    folder = train_small(tmp_path, "method=fmmmse", "trainer.max_epochs=1")
    before = contents(folder)
    monkeypatch.setattr(training, "build", not_needed)
    with caplog.at_level(logging.INFO):
        train_small(folder, "method=fmmmse", "trainer.max_epochs=1", "threads=2", "data.num_workers=1")
    assert f"{folder} is done: nothing to do" in caplog.messages
    assert contents(folder) == before

    with pytest.raises(UserError) as error:
        train_small(folder, "method=fmmmse", "trainer.max_epochs=3")
    assert f"{folder} holds a run of another configuration (trainer.max_epochs is 1 there and 3 here)" in str(error)
    assert contents(folder) == before


# --- interrupted runs


class Stopped(BaseException):
    """A run that ended from outside."""


class StoppingFiles(callbacks.WholeFiles):
    """Stops the run at the n-th resume.ckpt, before or after it is written."""

    def __init__(self, resume_checkpoint: int, after: bool) -> None:
        self.left = resume_checkpoint
        self.after = after

    def save_checkpoint(self, checkpoint: dict, path: str, storage_options: object = None) -> None:
        self.left -= Path(path).name == "resume.ckpt"
        stop = self.left == 0 and Path(path).name == "resume.ckpt"
        if self.after or not stop:
            super().save_checkpoint(checkpoint, path, storage_options)
        if stop:
            raise Stopped


INTERRUPTED = [
    ["method=droid_cyborg"],
    ["method=droid_cyborg", "protocol=author", "protocol.scheduler.step_size=2"],
    ["method=hseb", "+backbone.timm_options={drop_rate: 0.5}"],
]


@pytest.mark.parametrize("overrides", INTERRUPTED, ids=["paper", "author", "dropout"])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    train_small: TrainSmall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    overrides = [*overrides, "trainer.max_epochs=4"]
    whole = train_small(tmp_path / "whole", *overrides)
    folder = tmp_path / "parts"
    for resume_checkpoint, after in ((2, True), (1, False), (1, True)):
        with monkeypatch.context() as patch:
            patch.setattr(callbacks, "WholeFiles", lambda n=resume_checkpoint, after=after: StoppingFiles(n, after))
            with pytest.raises(Stopped):
                train_small(folder, *overrides)
        assert not (folder / "result.json").exists()
        torch.rand(7)  # another process would not go on with the same random numbers
        folder = folder.rename(tmp_path / f"parts{resume_checkpoint}{after}")
    train_small(folder, *overrides)
    assert_same_run(whole, folder)
    if "protocol=author" in overrides:
        rates = torch.load(folder / "checkpoints" / "resume.ckpt", weights_only=True)["lr_schedulers"][0]
        assert rates["_last_lr"] == pytest.approx([0.05 * 0.1**2])


def test_a_run_does_not_go_on_with_pixels_that_were_replaced_but_with_images_that_were_moved(
    train_small: TrainSmall, own_faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ["method=droid_cyborg", "trainer.max_epochs=3"]
    whole = train_small(tmp_path / "whole", *overrides, f"data.root={own_faces}")
    folder = tmp_path / "parts"
    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "WholeFiles", lambda: StoppingFiles(1, True))
        with pytest.raises(Stopped):
            train_small(folder, *overrides, f"data.root={own_faces}")
    image = own_faces / "train" / "4.png"
    content, status = image.read_bytes(), image.stat()
    Image.fromarray(255 - np.asarray(Image.open(image))).save(image)
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(UserError, match=r"began with other images: of 31 .*, 1 or .* bytes now \(train/4\.png\)"):
        train_small(folder, *overrides, f"data.root={own_faces}")
    image.write_bytes(content)
    moved = own_faces.rename(tmp_path / "elsewhere")
    train_small(folder, *overrides, f"data.root={moved}")
    assert (whole / "metrics.csv").read_bytes() == (folder / "metrics.csv").read_bytes()
    scores = [pd.read_parquet(run / "scores" / "test.parquet") for run in (whole, folder)]
    pd.testing.assert_frame_equal(*scores, check_exact=True)
    images = [json.loads((run / "result.json").read_text())["images_hash"] for run in (whole, folder)]
    assert images[0] == images[1] != ""


@pytest.mark.slow
def test_a_run_killed_in_the_midst_of_training_goes_on(
    train_small: TrainSmall, small: list[str], tmp_path: Path
) -> None:
    # It cannot end before it is killed, however seldom this process has its turn.
    endless = (
        "import runpy, sys, time; from saliency_entropy import training; training.score = lambda *_: time.sleep(1000)\n"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    overrides = [*small, "method=droid", "trainer.max_epochs=12", "study=killed"]
    whole = train_small(tmp_path / "whole", *overrides)
    folder = tmp_path / "killed" / "droid" / "seed0"
    process = subprocess.Popen(
        [sys.executable, "-c", endless, ROOT / "experiments" / "train.py", *overrides, f"runs_dir={tmp_path}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path,
    )  # fmt: skip
    try:
        while not (folder / "checkpoints" / "resume.ckpt").exists():
            assert process.poll() is None
            time.sleep(0.002)
        time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (folder / "result.json").exists()
    train_small(folder, *overrides)
    assert_same_run(whole, folder)


def test_a_run_stopped_while_scoring_scores_again(train_small: TrainSmall, done: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(done, folder)
    (folder / "result.json").unlink()
    (folder / "scores" / "test.parquet").unlink()
    train_small(folder, "method=droid_cyborg")
    assert_same_run(done, folder)


def test_a_wrong_data_folder_is_found_before_the_weights_are_fetched(
    train_small: TrainSmall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saliency_entropy.training.Backbone", lambda **_: pytest.fail("it was built"))
    with pytest.raises(UserError, match=r"data\.root=/no/where does not exist"):
        train_small(tmp_path, "method=cross_entropy", "data.root=/no/where")


# --- the command


def test_the_command_prints_plain_lines(command, tmp_path: Path) -> None:
    ended = command("method=cross_entropy", "seed=3", "study=mine/first")
    assert ended.code == 0, ended.err
    folder = tmp_path / "runs" / "mine" / "first" / "cross_entropy" / "seed3"
    assert (folder / "result.json").exists()
    lines = [line.partition("] ")[2] for line in ended.out.splitlines()]
    assert [line for line in lines if line.startswith("cross_entropy seed 3, epoch ")] == lines[-4:-2]
    assert lines[-2].startswith("Cross-entropy, seed 3: test AUROC ")
    assert lines[-1] == f"results: {folder}"
    assert "\x1b" not in ended.out + ended.err
    assert ended.err == ""


@pytest.mark.slow
def test_the_command_shows_bars_on_a_terminal(small: list[str], tmp_path: Path) -> None:
    own, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, ROOT / "experiments" / "train.py", *small, f"runs_dir={tmp_path}"],
        stdout=other, stderr=other, stdin=other, cwd=tmp_path, env=os.environ | {"TERM": "xterm", "COLUMNS": "200"},
    )  # fmt: skip
    os.close(other)
    printed = b""
    try:
        while chunk := os.read(own, 65536):
            printed += chunk
    except OSError:  # the other end is closed
        pass
    os.close(own)
    text = printed.decode()
    assert process.wait() == 0, text
    assert "Epoch 1/1" in text
    assert "━" in text
    assert "epoch 1/2: loss" not in text
    assert "results: " in text


def test_overfitting_a_batch(command, small: list[str], own_faces: Path, tmp_path: Path) -> None:
    """A batch of both classes, also where the manifest has one class after the other; no warning."""
    rows = pd.read_csv(own_faces / "manifest.csv", dtype=str, keep_default_na=False)
    rows.sort_values("label", kind="stable").to_csv(own_faces / "manifest.csv", index=False)
    # Without the epochs that the small run has set.
    defaults = [override for override in small if not override.startswith("trainer.max_epochs")]
    ended = command("debug=overfit", "method=cross_entropy", f"data.root={own_faces}", defaults=defaults)
    assert ended.code == 0, ended.err
    assert ended.err == ""
    assert re.search(
        r"the network can overfit: after 30 epochs on one batch, accuracy went from \d\.\d\d to 1\.00", ended.out
    )
    folder = tmp_path / "runs" / "debug" / "cross_entropy" / "seed0"
    epochs = pd.read_csv(folder / "metrics.csv")
    losses = epochs["train/loss"]
    assert len(losses) == 30
    assert losses.iloc[-1] < 0.1 < 0.5 < losses.iloc[0]
    assert epochs["train/auroc"].notna().all()  # of one class there is none
    # Of the first 8 validation images, 5 are real; of all 10, 5.
    assert set((epochs["val/accuracy"] * 8) % 1) == {0.0}
    assert not list(folder.rglob("*.ckpt"))
    assert not (folder / "result.json").exists()


# --- mistakes


def edit(root: Path, row: int, **values: str) -> None:
    table = pd.read_csv(root / "manifest.csv", dtype=str, keep_default_na=False)
    table.loc[row, list(values)] = list(values.values())
    table.to_csv(root / "manifest.csv", index=False)


MISTAKES = {
    "method": (["method=droids"], r"Could not find 'method/droids'"),
    "backbone": (["backbone=alexnet"], r"Could not find 'backbone/alexnet'"),
    "data": (["data=ffhq"], r"Could not find 'data/ffhq'"),
    "term": (["+term@loss.terms=entropies"], r"Could not find 'term/entropies'"),
    "key": (["sed=3"], r"Could not override 'sed'"),
    "a weight without a term": (
        ["method=droid", "+loss.terms.human_saliency.weight=0.3"],
        r"^loss\.terms\.human_saliency is .* method droid has no term of that name",
    ),
    "a term without a weight": (
        ["+term@loss.terms=entropy"],
        r"^loss\.terms\.entropy\.weight must be given: loss\.terms\.entropy\.weight=\.\.\.$",
    ),
    "seed": (["seed=-1"], r"^seed is -1; give a whole number from 0 to 4294967295$"),
    "seed of a sweep": (["-m", "seed=-1,1.5"], r"^seed is -1; give a whole number from 0 to 4294967295$"),
    "study": (["study=../x"], r"^study='\.\./x' cannot name a folder"),
    "study of a sweep": (["-m", "study=../x"], r"^study='\.\./x' cannot name a folder"),
    "class": (["protocol.class_index=real"], r"^protocol\.class_index is 'real'; choose one of predicted, true,"),
    "root": (["data.root=/no/where"], r"^data\.root=/no/where does not exist; set data\.root to"),
    "runs": (["runs_dir=/dev/null/runs"], r"/dev/null/runs/faces\S* cannot be written to \(Not a directory\)"),
    "threads": (["threads=-1"], r"^threads is -1"),
    "no target": (
        ["method=hseb", "loss.terms.entropy_match.target=null"],
        r"the target of an entropy_match term is None; use batch, per_sample or a number of nats$",
    ),
    "target": (
        ["method=hseb", "loss.terms.entropy_match.target=true"],
        r"the target of an entropy_match term is True; use batch, per_sample or a number of nats$",
    ),
    "weight": (
        ["loss.terms.cross_entropy.weight=nan"],
        r"^the weight of a CrossEntropy term is nan; give a number from 0 on$",
    ),
    "weight in YAML's spelling": (
        ["loss.terms.cross_entropy.weight=.nan"],
        r"^the weight of .* '\.nan'; give a number from 0 on$",
    ),
    "weight that is infinite": (
        ["loss.terms.log_entropy.weight=inf"],
        r"LogEntropy term is inf; give a number from 0 on$",
    ),
    "weight below 0": (
        ["+human_saliency_weight=-1"],
        r"^the weight of a HumanSaliency term is -1; give a number from 0",
    ),
    "devices": (["trainer.devices=0"], r"^trainer\.devices is 0; give a whole number from 1 on"),
    "batches": (["data.train_batches=0"], r"^data\.train_batches is 0; give a whole number from 1 on, or null"),
    "epochs": (["trainer.max_epochs=0"], r"^trainer\.max_epochs is 0; give a whole number from 1 on$"),
    "batch": (["protocol.batch_size=0"], r"^protocol\.batch_size is 0; give a whole number from 1 on$"),
    "rate": (["protocol.optimizer.lr=fast"], r"^protocol\.optimizer or protocol\.scheduler cannot be used \("),
    "precision": (["trainer.precision=half"], r"^trainer: Precision 'half' is invalid"),
    "a control's name": (
        ["+data.human_maps.contrl=shuffled"],
        r"^\+data\.human_maps\.contrl: data\.human_maps takes no contrl; did you mean \+data\.human_maps\.control\?$",
    ),
    "a colour map's name": (["+data.human_maps.colormp=jet"], r"did you mean \+data\.human_maps\.colormap\?$"),
    "an added key": (["+data.chek=headers"], r"^\+data\.chek: data takes no chek; did you mean data\.check\?$"),
    "an added key like no other": (["+backbone.xyz=1"], r"^\+backbone\.xyz: backbone takes no xyz; leave it out$"),
    "a reader's key": (["+data.source.rot=a"], r"^\+data\.source\.rot: .* did you mean data\.source\.root\?$"),
    "a term's key": (
        ["method=droid", "+loss.terms.log_entropy.ofset=1"],
        r"^\+loss\.terms\.log_entropy\.ofset: .* did you mean loss\.terms\.log_entropy\.offset\?$",
    ),
    "trainer": (["+trainer.epochs=3"], r"^trainer: .*unexpected keyword argument 'epochs'"),
}


def assert_one_sentence(ended, message: str, tmp_path: Path) -> None:
    assert ended.code == 1
    assert "Traceback" not in ended.out + ended.err
    found = [line for line in ended.err.splitlines() if re.search(message, line)]
    assert len(found) == 1, ended.err
    assert "epoch 1/" not in ended.out
    assert not list((tmp_path / "runs").rglob("*.ckpt"))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_before_anything_is_trained(command, tmp_path: Path, mistake: str) -> None:
    arguments, message = MISTAKES[mistake]
    assert_one_sentence(command(*arguments), message, tmp_path)


def test_a_refused_run_leaves_no_empty_folder(command, tmp_path: Path) -> None:
    refused = ["study=a/b", "+human_saliency_weight=-1"]
    assert command(*refused).code == 1
    assert not (tmp_path / "runs").exists()
    method = tmp_path / "runs" / "a" / "b" / "droid_cyborg"
    for kept in (method / "seed1" / "note.txt", method / "seed0" / "note.txt"):
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text("mine")
        assert command(*refused).code == 1
        assert kept.exists()
    assert (method / "seed0" / ".owner").exists()  # a folder that was there before is left as it is
    assert command("-m", *refused, "study=c").code == 1
    assert (tmp_path / "runs" / "c" / "droid_cyborg" / "seed0").exists()  # of which status tells


def test_a_root_that_is_not_given(command, tmp_path: Path) -> None:
    ended = command(defaults=["data=faces", "backbone=tiny"])
    assert_one_sentence(ended, r"^data\.root must be given: data\.root=\.\.\.$", tmp_path)


def test_a_missing_image_names_its_row(command, own_faces: Path, tmp_path: Path) -> None:
    (own_faces / "test" / "4.png").unlink()
    ended = command(f"data.root={own_faces}")
    assert_one_sentence(ended, r"manifest\.csv: column path .* row 37, 'test/4\.png', does not exist", tmp_path)


def test_a_broken_test_image_is_found_before_training(command, own_faces: Path, tmp_path: Path) -> None:
    whole = (own_faces / "test" / "4.png").read_bytes()
    (own_faces / "test" / "4.png").write_bytes(whole[: len(whole) // 2])
    ended = command(f"data.root={own_faces}")
    assert_one_sentence(ended, r"manifest\.csv: 1 file cannot be used: row 37: .*4\.png", tmp_path)


def test_a_broken_test_image_that_is_found_when_it_is_scored(command, own_faces: Path, tmp_path: Path) -> None:
    """The sentence of the process that decodes it; what was trained stays."""
    whole = (own_faces / "test" / "4.png").read_bytes()
    (own_faces / "test" / "4.png").write_bytes(whole[: len(whole) // 2])
    arguments = [f"data.root={own_faces}", "data.check=headers", "data.cached_splits=[train]", "data.num_workers=1",
                 "trainer.max_epochs=1"]  # fmt: skip
    ended = command(*arguments)
    assert ended.code == 1
    assert "Traceback" not in ended.out + ended.err
    assert "DataLoader worker" not in ended.out + ended.err
    found = [line for line in ended.err.splitlines() if "4.png" in line]
    assert len(found) == 1, ended.err
    assert re.search(r"^\S+manifest\.csv: row 37: \S+4\.png is truncated or damaged \(.*\); copy it again", found[0])
    (own_faces / "test" / "4.png").write_bytes(whole)
    again = command(*arguments)
    assert again.code == 0, again.err
    assert "epoch 1/" not in again.out


def test_broken_files_that_are_left_out_are_counted_in_the_result(command, own_faces: Path, tmp_path: Path) -> None:
    (own_faces / "train" / "4.png").write_text("no image")
    (own_faces / "test" / "4.png").unlink()
    (own_faces / "maps" / "train_7.png").unlink()
    arguments = [f"data.root={own_faces}", "trainer.max_epochs=1"]
    refused = command(*arguments)
    assert refused.code == 1
    assert "'test/4.png', does not exist" in refused.err
    ended = command(*arguments, "data.skip_broken=true")
    assert ended.code == 0, ended.err
    (path,) = (tmp_path / "runs").rglob("result.json")
    result = json.loads(path.read_text())
    assert result["left_out"] == {"train": {"images": 1, "human_maps": 1}, "test": {"images": 1, "human_maps": 0}}
    assert result["test"]["images"] == 11
    assert ended.out.count("left out (data.skip_broken=true)") == 2


def test_a_run_that_began_without_some_files_does_not_go_on_with_them(command, own_faces: Path, tmp_path: Path) -> None:
    arguments = [f"data.root={own_faces}", "data.skip_broken=true"]
    lost = own_faces / "train" / "4.png"
    whole = lost.read_bytes()
    lost.unlink()
    assert command(*arguments).code == 0
    (result,) = (tmp_path / "runs").rglob("result.json")
    result.unlink()  # as if it had been killed before its end
    lost.write_bytes(whole)
    again = command(*arguments)
    assert again.code == 1
    assert "began with other data" in again.err
    lost.unlink()
    assert command(*arguments).code == 0


def test_a_sweep_leaves_nothing_outside_its_folder(command, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    ended = command("-m", "method.name=../evil", "seed=0,1", "study=mine")
    assert ended.code == 1
    assert "Traceback" not in ended.out + ended.err
    assert "method.name='../evil' cannot name a folder" in ended.out + ended.err
    runs = tmp_path / "runs"
    new = set(tmp_path.rglob("*")) - before - {runs, runs / "mine"}
    assert [path for path in new if not path.is_relative_to(runs / "mine")] == []
    assert not [path for path in new if "evil" in path.name]


def test_a_wrong_label_names_its_row(command, own_faces: Path, tmp_path: Path) -> None:
    edit(own_faces, 3, label="fake")
    ended = command(f"data.root={own_faces}")
    assert_one_sentence(ended, r"column label must be real or synthetic: row 5 has 'fake'", tmp_path)


@pytest.mark.parametrize("method", ["cyborg", "hseb", "droid_cyborg"])
def test_a_method_that_needs_maps_on_data_without(command, own_faces: Path, tmp_path: Path, method: str) -> None:
    edit(own_faces, slice(None), human_map="")
    ended = command(f"data.root={own_faces}", f"method={method}")
    assert_one_sentence(ended, rf"^method {method} \(term \w+\) needs human maps", tmp_path)


def test_a_constant_map_is_named(command, own_faces: Path, tmp_path: Path) -> None:
    Image.new("L", (16, 16), 80).save(own_faces / "maps" / "train_1.png")
    ended = command(f"data.root={own_faces}")
    assert_one_sentence(ended, r"row 3: .*train_1\.png", tmp_path)


def test_a_done_run_of_another_configuration_is_not_overwritten(command, done: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "faces" / "droid_cyborg" / "seed0"
    shutil.copytree(done, folder)
    before = contents(folder)
    ended = command("protocol.optimizer.momentum=0.5")
    assert ended.code == 1
    assert "Traceback" not in ended.err
    assert f"{folder} holds a run of another configuration (protocol.optimizer.momentum is 0.9 there and 0.5 here)" in (
        ended.err
    )
    assert contents(folder) == before
