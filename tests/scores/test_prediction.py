"""The predict command: what it writes of good files, broken files and hostile names."""

import io
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from saliency_entropy.backbone import Backbone
from saliency_entropy.data.images import load_image
from saliency_entropy.detector import Detector
from saliency_entropy.errors import UserError
from saliency_entropy.page.overlay import cam_figure
from saliency_entropy.scores.predict import predict

ROOT = Path(__file__).parents[2]
COLUMNS = [
    "path", "verdict", "decision", "probability_synthetic", "calibrated_probability", "logit_real", "logit_synthetic",
    "cam_entropy", "focus_area",
]  # fmt: skip
SIZE = 32
TINY = {
    "name": "tiny",
    "timm_name": "test_resnet",
    "image_size": SIZE,
    "output_stride": 16,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bilinear",
    "pretrained": False,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    backbone = Backbone(**TINY)
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    weights = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    torch.save({"detector": {"backbone": TINY, "class_index": "predicted"}, "state_dict": weights}, path)
    return path


def image(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format={".jpg": "JPEG"}.get(path.suffix, "PNG"))
    return path


@pytest.fixture
def predicted(checkpoint: Path, tmp_path: Path):
    """Run the command's task; returns its table. The output folder is ``tmp_path/out``."""

    def run(images: Path, **changes: object) -> pd.DataFrame:
        config = OmegaConf.load(ROOT / "conf" / "predict.yaml")
        del config["hydra"]
        given = {"checkpoint": str(checkpoint), "images": str(images), "output": str(tmp_path / "out"), "device": "cpu"}
        predict(OmegaConf.merge(config, given, changes))
        return read(tmp_path)

    return run


def read(tmp_path: Path) -> pd.DataFrame:
    return pd.read_csv(tmp_path / "out" / "predictions.csv", keep_default_na=False)


def overlays(tmp_path: Path) -> list[str]:
    folder = tmp_path / "out" / "overlays"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder(checkpoint, predicted, tmp_path):
    paths = [image(tmp_path / "in" / name, seed) for seed, name in enumerate(["b.png", "sub/a.JPG".lower(), "b.jpg"])]
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (tmp_path / "in" / "folder.png").mkdir()
    table = predicted(tmp_path / "in", batch_size=2)
    assert list(table) == COLUMNS
    assert sorted(table["path"]) == sorted(str(path) for path in paths)
    detector = Detector.from_checkpoint(checkpoint)
    for row in table.itertuples():
        pixels = load_image(Path(row.path), SIZE)
        detection = detector(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0]
        assert row.logit_real == pytest.approx(detection.logit_real, abs=1e-5)
        assert row.logit_synthetic == pytest.approx(detection.logit_synthetic, abs=1e-5)
        assert row.verdict == ("synthetic" if row.logit_synthetic > row.logit_real else "real")
        odds = np.exp(row.logit_synthetic - row.logit_real)
        assert row.probability_synthetic == pytest.approx(odds / (1 + odds), abs=1e-5)
        assert row.cam_entropy == pytest.approx(detection.cam_entropy, abs=1e-4)
        assert row.focus_area == pytest.approx(np.exp(row.cam_entropy), rel=1e-5)
        written = Image.open(tmp_path / "out" / "overlays" / f"{Path(row.path).relative_to(tmp_path / 'in')}.png")
        expected = cam_figure(pixels, detection.cam)
        assert np.abs(np.asarray(written).astype(int) - np.asarray(expected)).max() <= 3
    assert overlays(tmp_path) == ["b.jpg.png", "b.png.png", "sub/a.jpg.png"]


def test_the_order_and_the_scores_do_not_hang_on_the_batch_size(predicted, tmp_path):
    for seed in range(5):
        image(tmp_path / "in" / f"{seed}.png", seed)
    one, three = (predicted(tmp_path / "in", batch_size=size) for size in (1, 3))
    assert one["path"].tolist() == three["path"].tolist()
    np.testing.assert_allclose(one["logit_real"], three["logit_real"], atol=1e-5)


def test_one_image_and_no_overlays(predicted, tmp_path):
    path = image(tmp_path / "a.png")
    table = predicted(path, overlays=False)
    assert table["path"].tolist() == [str(path)]
    assert not (tmp_path / "out" / "overlays").exists()


def test_a_second_time_earlier_overlays_are_no_images(predicted, tmp_path, monkeypatch):
    image(tmp_path / "a.png")
    assert len(predicted(tmp_path)) == 1  # the output folder lies in that of the images
    assert len(predicted(tmp_path)) == 1
    monkeypatch.chdir(tmp_path)
    assert len(predicted(Path(), output="out")) == 1
    assert overlays(tmp_path) == ["a.png.png"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_manifest_keeps_its_order_and_its_further_columns(predicted, tmp_path, kind):
    image(tmp_path / "in" / "x" / "b.png", 0)
    image(tmp_path / "in" / "a.png", 1)
    table = pd.DataFrame(
        {"label": ["real", "synthetic"], "path": ["x/b.png", "a.png"], "generator": ["", "NA"], "age": [7, 8]}
    )
    manifest = tmp_path / "in" / f"manifest.{kind}"
    table.to_csv(manifest, index=False) if kind == "csv" else table.to_parquet(manifest)
    predictions = predicted(manifest)
    assert list(predictions) == [*COLUMNS, "label", "generator", "age"]
    assert predictions["path"].tolist() == [str(tmp_path / "in" / "x" / "b.png"), str(tmp_path / "in" / "a.png")]
    assert predictions["label"].tolist() == ["real", "synthetic"]
    assert predictions["generator"].tolist() == ["", "NA"]
    assert predictions["age"].tolist() == [7, 8]
    assert overlays(tmp_path) == ["a.png.png", "x/b.png.png"]


def test_own_columns_win_over_those_of_a_manifest(predicted, tmp_path):
    image(tmp_path / "a.png")
    (tmp_path / "scores.csv").write_text("path,logit_real,error,verdict,note\na.png,99,none,maybe,kept\n")
    table = predicted(tmp_path / "scores.csv")
    assert list(table) == [*COLUMNS, "note"]
    assert table["logit_real"][0] != 99
    assert table["verdict"][0] in ("real", "synthetic")


def test_broken_files_are_named_and_the_others_scored(predicted, tmp_path):
    for name in ("a.png", "b.png", "c.png", "e.png"):
        image(tmp_path / "in" / name)
    (tmp_path / "in" / "b.png").write_text("no image")
    (tmp_path / "in" / "d.png").symlink_to(tmp_path / "nothing.png")
    (tmp_path / "in" / "e.png").write_bytes((tmp_path / "in" / "e.png").read_bytes()[:-100])
    with pytest.raises(UserError) as caught:
        predicted(tmp_path / "in")
    assert str(caught.value).startswith(
        f"3 of 5 images without a score, the first of them: {tmp_path}/in/b.png is not an image"
    )
    assert "\n" not in str(caught.value)
    table = read(tmp_path)
    assert [Path(path).name for path in table["path"]] == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    assert (table["logit_real"] == "").tolist() == [False, True, False, True, True]
    assert (table["error"] == "").tolist() == [True, False, True, False, False]
    assert "d.png does not exist" in table["error"][3]
    assert "truncated or damaged" in table["error"][4]
    assert overlays(tmp_path) == ["a.png.png", "c.png.png"]


def test_all_files_broken(predicted, tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(UserError, match="1 of 1 images without a score"):
        predicted(tmp_path / "a.png")
    assert list(read(tmp_path)) == ["path", "error"]


def test_without_finite_scores_there_is_no_verdict(checkpoint, predicted, tmp_path):
    """A network of NaN prefers neither class: ``logit_synthetic > logit_real`` would be False, "real"."""
    content = torch.load(checkpoint, weights_only=True)
    for value in content["state_dict"].values():
        if value.is_floating_point():
            value.fill_(float("nan"))
    torch.save(content, tmp_path / "nan.ckpt")
    paths = [image(tmp_path / "in" / f"{seed}.png", seed) for seed in range(2)]
    with pytest.raises(UserError, match=r"2 of 2 images without a score, .*0\.png: the detector's scores are"):
        predicted(tmp_path / "in", checkpoint=str(tmp_path / "nan.ckpt"))
    assert list(read(tmp_path)) == ["path", "error"]
    assert overlays(tmp_path) == []
    pixels = torch.from_numpy(load_image(paths[0], SIZE)).permute(2, 0, 1)[None]
    assert Detector.from_checkpoint(tmp_path / "nan.ckpt")(pixels)[0].verdict is None
    assert Detector.from_checkpoint(checkpoint)(pixels)[0].verdict in ("real", "synthetic")


# Forms of what is read and written.


@pytest.fixture
def complete(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint whose card has a threshold of 0.25 and a temperature of 2."""
    card = {
        "format": 1, "threshold": 0.25, "temperature": 2.0, "problem": "", "validation_images": 40,
        "run": {"data": "builtin"},
    }  # fmt: skip
    torch.save(torch.load(checkpoint, weights_only=True) | {"model": card}, tmp_path / "complete.ckpt")
    return tmp_path / "complete.ckpt"


def test_decisions_and_calibrated_probabilities_follow_the_card(predicted, complete, tmp_path, caplog):
    caplog.set_level("INFO")
    for seed in range(6):
        image(tmp_path / "in" / f"{seed}.png", seed)
    differences = (lambda table: table["logit_synthetic"] - table["logit_real"])(predicted(tmp_path / "in"))
    assert "no decision: the checkpoint has no threshold, since it comes without validation scores" in caplog.text
    content = torch.load(complete, weights_only=True)
    content["model"]["threshold"] = float(differences.median())  # so that both decisions occur
    torch.save(content, complete)
    table = predicted(tmp_path / "in", checkpoint=str(complete))
    np.testing.assert_allclose(table["calibrated_probability"], 1 / (1 + np.exp(-differences / 2)), atol=1e-6)
    expected = np.where(differences >= differences.median(), "synthetic", "real")
    assert table["decision"].tolist() == expected.tolist()
    assert set(expected) == {"real", "synthetic"}
    threshold = 1 / (1 + np.exp(-differences.median() / 2))
    assert f"decision: synthetic where calibrated_probability is {threshold:.4f} or more, the threshold" in caplog.text
    assert caplog.text.count("trained on faces drawn by a program: what it says of photographs means nothing") == 1


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_other_formats_hold_the_same_table(predicted, complete, tmp_path, form):
    for name in ("a.png", "=1+1.png", "c.png"):
        image(tmp_path / "in" / name)
    (tmp_path / "in" / "c.png").write_text("no image")
    (tmp_path / "in" / "list.csv").write_text("path,age\na.png,7\n=1+1.png,8\nc.png,9\n")
    tables = []
    for name in ("csv", form):
        with pytest.raises(UserError, match="1 of 3 images without a score"):
            predicted(tmp_path / "in" / "list.csv", checkpoint=str(complete), format=name)
        file = tmp_path / "out" / f"predictions.{name}"
        if form == "jsonl" and name == form:
            tables.append(pd.DataFrame([json.loads(line) for line in file.read_text().splitlines()]))
        else:
            tables.append(pd.read_parquet(file) if name == form else pd.read_csv(file))
    csv, other = tables
    assert list(csv) == list(other)
    assert other["path"].tolist() == [f"{tmp_path}/in/{name}" for name in ("a.png", "=1+1.png", "c.png")]
    assert other["age"].astype("str").tolist() == ["7", "8", "9"]
    for name in ("logit_real", "probability_synthetic", "calibrated_probability", "cam_entropy"):
        np.testing.assert_allclose(other[name].astype("float64"), csv[name], rtol=1e-12)
        assert np.isnan(other[name].astype("float64")).tolist() == [False, False, True]
    assert other["decision"][0] == csv["decision"][0]
    assert "c.png is not an image" in other["error"][2]


def test_formats_that_cannot_hold_the_table(predicted, tmp_path):
    image(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"^format is 'xlsx'; choose one of csv, jsonl, parquet"):
        predicted(tmp_path / "a.png", format="xlsx")
    (tmp_path / "m.csv").write_text("path,note,note\na.png,1,2\n")
    with pytest.raises(UserError, match=r"m\.csv has two columns of one name, which format=jsonl cannot hold"):
        predicted(tmp_path / "m.csv", format="jsonl")
    assert len(predicted(tmp_path / "m.csv")) == 1


def test_standard_input_lists_files(predicted, tmp_path, monkeypatch):
    paths = [image(tmp_path / name / "a.png", seed) for seed, name in enumerate("ba")]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{paths[0]}\n\n{paths[1]}\n"))
    monkeypatch.chdir(tmp_path)
    assert predicted(Path("-"))["path"].tolist() == [str(path) for path in paths]
    assert overlays(tmp_path) == ["a/a.png.png", "b/a.png.png"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    with pytest.raises(UserError, match="images=- reads the paths of images from standard input"):
        predicted(Path("-"))


def test_a_pattern_and_several_checkpoints(predicted, checkpoint, complete, tmp_path):
    for name in ("a1.png", "a2.png", "b1.png"):
        image(tmp_path / "in" / name)
    table = predicted(tmp_path / "in" / "a*.png", checkpoint=[str(checkpoint), str(complete)])
    assert [Path(path).name for path in table["path"]] == ["a1.png", "a2.png"]
    assert table["spread"].tolist() == [0, 0]  # the weights are the same
    assert table["decision"].tolist() == ["", ""]  # one of them has no threshold
    assert overlays(tmp_path) == ["a1.png.png", "a2.png.png"]


def test_images_that_are_no_face_images_are_named(predicted, tmp_path):
    image(tmp_path / "in" / "good.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "in" / "one.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "in" / "huge.png")
    frames = [Image.new("RGB", (30, 30), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "in" / "moving.png", save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match=r"^3 of 4 images without a score"):
        predicted(tmp_path / "in")
    errors = {Path(row.path).name: row.error for row in read(tmp_path).itertuples()}
    assert errors["good.png"] == ""
    assert errors["one.png"].endswith("has 1 x 1 pixels, and no face fits into fewer than 16 on a side; leave it out")
    assert errors["huge.png"].endswith("more than 64 megapixels; scale it down, or leave it out")
    assert "is animated (2 frames)" in errors["moving.png"]


def test_thousands_of_images_are_not_held_in_memory(checkpoint, tmp_path):
    held, most = 0, 0

    def paths():
        nonlocal held, most
        for _ in range(200):
            held += 1
            most = max(most, held)
            yield path

    path = image(tmp_path / "a.png")
    for _ in Detector.from_checkpoint(checkpoint).judge(paths(), 4):
        held -= 1
    assert most <= 12


# Names and cells.

NAMES = [
    "a b.png",
    "顔é.png",
    "<img src=x onerror=alert(1)>.png",
    "two\nlines.png",
    "-x.png",
    "$(touch y).png",
    "a;b.png",
]


def test_odd_file_names(predicted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        image(Path("in") / name)
    table = predicted(Path("in"))
    assert sorted(table["path"]) == sorted(f"in/{name}" for name in NAMES)
    assert overlays(tmp_path) == sorted(f"{name}.png" for name in NAMES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_a_file_name_in_another_encoding(predicted, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    image(tmp_path / "in" / name)
    table = predicted(tmp_path / "in")
    assert table["path"].tolist() == [f"{tmp_path}/in/caf\\udce9.png"]
    assert overlays(tmp_path) == [f"{name}.png"]


def test_a_broken_file_cannot_speak_to_the_terminal(predicted, tmp_path, caplog):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a\x1b[2Jb\nc.png").write_text("no image")
    with caplog.at_level("INFO"), pytest.raises(UserError) as caught:
        predicted(tmp_path / "in")
    assert "a\\x1b[2Jb\\nc.png is not an image" in str(caught.value)
    assert "\x1b" not in str(caught.value) + caplog.text
    assert read(tmp_path)["path"].tolist() == [f"{tmp_path}/in/a\x1b[2Jb\nc.png"]


def test_cells_that_a_spreadsheet_would_run(predicted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evil = ["=cmd()", "+1", "-2+3", "@SUM(1)"]
    for name in evil:
        image(Path(f"{name}.png"))
    rows = pd.DataFrame({"path": [f"{name}.png" for name in evil], "generator": evil, "=header()": "x"})
    rows.to_csv("m.csv", index=False)
    table = predicted(Path("m.csv"))
    assert list(table) == [*COLUMNS, "generator", "'=header()"]
    assert table["generator"].tolist() == [f"'{cell}" for cell in evil]
    assert table["path"].tolist() == [f"'{name}.png" for name in evil]
    assert table["logit_real"].dtype == np.float64  # a negative number is no formula
    text = (tmp_path / "out" / "predictions.csv").read_text()
    assert not [cell for line in text.splitlines() for cell in line.split(",") if cell[:1] in ("=", "+", "@")]


def test_a_manifest_may_lead_out_of_its_folder_but_overlays_stay_in_theirs(predicted, tmp_path):
    for name in ("w/lists/a.png", "w/a.png", "w/lists/sub/a.png", "elsewhere/a.png"):
        image(tmp_path / name)
    rows = ["a.png", "../a.png", "sub/../sub/a.png", str(tmp_path / "elsewhere" / "a.png"), "../../elsewhere/a.png"]
    manifest = tmp_path / "w" / "lists" / "m.csv"
    manifest.write_text("\n".join(["path", *rows]) + "\n")
    before = {path for path in tmp_path.rglob("*")}
    table = predicted(manifest)
    assert len(table) == 5
    assert table["logit_real"].nunique() == 1  # the same pixels everywhere
    new = {path for path in tmp_path.rglob("*")} - before - {tmp_path / "out", tmp_path / "out" / "predictions.csv"}
    assert all(path.is_relative_to(tmp_path / "out" / "overlays") for path in new)
    assert overlays(tmp_path) == [
        "elsewhere/a.png.png", "w/a.png.png", "w/lists/a.png.png", "w/lists/sub/a.png.png",
    ]  # fmt: skip


# What is refused, in one sentence.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"file\na.png\n", "needs one column path (its columns: 'file')"),
        (b"path,path\na.png,b.png\n", "needs one column path"),
        (b"path\n", "lists no image"),
        (b"path,label\na.png,real\n,real\n", "row 3 has no path"),
        (b"path\na.png,b.png\n", "cannot be read as a table"),
    ],
)
def test_manifests_that_list_no_images(predicted, tmp_path, content, message):
    image(tmp_path / "a.png")
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(UserError) as caught:
        predicted(tmp_path / "m.csv")
    assert f"{tmp_path}/m.csv" in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_parquet(predicted, tmp_path):
    (tmp_path / "m.parquet").write_bytes(b"no")
    with pytest.raises(UserError, match=r"m\.parquet cannot be read as a table"):
        predicted(tmp_path / "m.parquet")


def test_no_images(predicted, tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match=r"images=\S+/in holds no image \(\.jpg, "):
        predicted(tmp_path / "in")
    with pytest.raises(UserError, match=r"images=\S+/none does not exist; give an image, a folder"):
        predicted(tmp_path / "none")


@pytest.mark.parametrize("batch_size", [0, -1, "many", 1.5])
def test_a_batch_size_that_is_none(predicted, tmp_path, batch_size):
    with pytest.raises(UserError, match=r"batch_size is .*; give a whole number from 1 on"):
        predicted(image(tmp_path / "a.png"), batch_size=batch_size)


def test_an_earlier_table_that_differs_is_kept_and_named(predicted, tmp_path, caplog):
    caplog.set_level("WARNING")
    predicted(image(tmp_path / "a.png"))
    earlier = tmp_path / "out" / "predictions.csv"
    os.utime(earlier, (0, 0))
    before = earlier.read_bytes()
    predicted(tmp_path / "a.png")
    assert sorted(path.name for path in earlier.parent.iterdir()) == ["overlays", "predictions.csv"]  # the same again
    assert caplog.messages == []
    os.utime(earlier, (0, 0))
    predicted(image(tmp_path / "b.png", seed=1))
    kept = earlier.with_name(f"predictions-{datetime.fromtimestamp(0):%Y%m%d-%H%M%S}.csv")
    assert kept.read_bytes() == before != earlier.read_bytes()
    assert caplog.messages == [f"the earlier predictions.csv, which differs, is kept as {kept}"]


def test_an_overlay_that_cannot_be_written_is_named_and_the_table_written(predicted, tmp_path):
    image(tmp_path / "in" / f"{'z' * 248}.png", 1)  # 252 bytes; its overlay's name would have 256
    image(tmp_path / "in" / "0.jpg", 2)
    image(tmp_path / "in" / "0.jpg.png" / "y.png", 3)  # its overlay's folder has the name of the overlay of 0.jpg
    with pytest.raises(
        UserError, match=r"^2 overlays could not .*: \S+y\.png\.png \(.*z\.png\.png \(File name .*, or set output=$"
    ):
        predicted(tmp_path / "in")
    table = read(tmp_path)
    assert len(table) == 3
    assert set(table["verdict"]) <= {"real", "synthetic"}
    assert overlays(tmp_path) == ["0.jpg.png"]


@pytest.mark.parametrize("blocked", ["out", "out/overlays", "out/predictions.csv"])
def test_an_output_folder_that_cannot_be_written(predicted, tmp_path, blocked):
    # A file where a folder should be, and the reverse: permissions do not bind root, who may run the tests.
    path = tmp_path / blocked
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if path.suffix else path.write_text("")
    with pytest.raises(
        UserError, match=r"^output=\S+out cannot be written to \(.*\); set it to a folder that you may"
    ) as caught:
        predicted(image(tmp_path / "a.png"))
    assert str(tmp_path / "out") in str(caught.value)


def test_a_full_disk_leaves_no_half_table(predicted, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"out cannot be written to \(No space left on device\); make room"):
        predicted(image(tmp_path / "a.png"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["overlays"]


def test_the_command_itself(checkpoint, tmp_path):
    image(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_text("no image")
    done = subprocess.run(
        [sys.executable, ROOT / "experiments" / "predict.py", f"checkpoint={checkpoint}", "images=in", "device=cpu"],
        cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "1 of 2 images without a score, the first of them: in/b.png" in done.stderr
    table = pd.read_csv(tmp_path / "predictions" / "predictions.csv")
    assert table["path"].tolist() == ["in/a.png", "in/b.png"]
    assert (tmp_path / "predictions" / "overlays" / "a.png.png").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "predictions"]
