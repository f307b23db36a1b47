"""The command that checks a data set: how it ends, what it prints and writes, against counts made by hand."""

import base64
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import CompactHydraException
from matplotlib import colormaps
from PIL import Image

from saliency_entropy.check import command as module
from saliency_entropy.check.command import check
from saliency_entropy.check.contact_sheets import contact_sheets
from saliency_entropy.check.scan import scan_images, scan_maps
from saliency_entropy.data.manifest import read_manifest
from saliency_entropy.run.command import command

ROOT = Path(__file__).parents[2]
EVIL = "<img onerror=alert(1)>.png"


@dataclass(frozen=True)
class Checked:
    """How a check ended, what it printed, and what it wrote."""

    code: int
    out: str
    folder: Path

    @property
    def content(self) -> dict[str, Any]:
        return json.loads((self.folder / "data_report.json").read_text())

    @property
    def page(self) -> str:
        return (self.folder / "data_report.html").read_text()

    @property
    def findings(self) -> dict[str, dict[str, Any]]:
        return {finding["kind"]: finding for finding in self.content["findings"]}

    def files(self, kind: str) -> list[list[str]]:
        return [place["files"] for place in self.findings[kind]["places"]]


@pytest.fixture
def run(tmp_path: Path, capsys) -> Callable[..., Checked]:
    """``experiments/data.py data=faces data.root=...`` in this process."""

    def checked(root: Path, *overrides: str, data: str = "faces") -> Checked:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            where = [f"data={data}", f"data.root={root}", f"output={tmp_path}/out", "workers=1"]
            config = compose("check", [*where, *overrides])
        code: object = 0
        try:
            command(check)(config)
        except SystemExit as end:
            code = end.code
        return Checked(code, capsys.readouterr().out, tmp_path / "out")

    return checked


def noise(seed: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def add(root: Path, path: str, label: str, split: str, generator: str = "", human_map: str = "") -> None:
    """A row more."""
    with (root / "manifest.csv").open("a") as file:
        file.write(f"{path},{label},{split},{generator},{human_map},frontal\n")


def test_good_data_and_what_is_in_it(faces: Path, run) -> None:
    checked = run(faces)
    assert checked.code == 0
    content = checked.content
    assert content["verdict"] == "warnings"
    # conftest: image i of a split is synthetic if i is odd, by generator i // 2 mod 2; every third has no map.
    assert content["counts"] == [
        {"split": "train", "label": "real", "origin": "", "images": 11, "with_map": 7},
        {"split": "train", "label": "synthetic", "origin": "gan", "images": 5, "with_map": 3},
        {"split": "train", "label": "synthetic", "origin": "vae", "images": 5, "with_map": 4},
        {"split": "val", "label": "real", "origin": "", "images": 5, "with_map": 3},
        {"split": "val", "label": "synthetic", "origin": "gan", "images": 3, "with_map": 2},
        {"split": "val", "label": "synthetic", "origin": "vae", "images": 2, "with_map": 2},
        {"split": "test", "label": "real", "origin": "", "images": 6, "with_map": 0},
        {"split": "test", "label": "synthetic", "origin": "gan", "images": 3, "with_map": 0},
        {"split": "test", "label": "synthetic", "origin": "new", "images": 3, "with_map": 0},
    ]
    # Every third image is a JPEG, the others are PNGs; real ones are even.
    formats = {row["value"]: (row["real"], row["synthetic"]) for row in content["files"] if row["property"] == "format"}
    assert formats == {"PNG": (14, 14), "JPEG": (8, 7)}
    assert {row["value"] for row in content["files"] if row["property"] == "size"} == {"48 x 48"}
    whole, real, synthetic = content["human_maps"]["statistics"]
    assert (whole["maps"], real["maps"], synthetic["maps"]) == (21, 10, 11)
    assert whole["focus_area"] == pytest.approx(np.exp(whole["entropy_mean"]))
    # The maps are noise: their 49 cells are near uniform, ln 49 = 3.89.
    assert 3.5 < whole["entropy_mean"] < 3.89
    assert np.shape(content["human_maps"]["average"]["real"]) == (7, 7)
    assert "22 real, 21 synthetic" in checked.out
    assert {"map_entropy", "few_test_images"} <= set(checked.findings)
    assert all(finding["severity"] == "warning" for finding in content["findings"])


def keep_one_map(root: Path, cells: np.ndarray) -> None:
    """Leave the human map of the first image alone, which is real, with these grey values."""
    header, first, *others = (root / "manifest.csv").read_text().splitlines()
    others = [re.sub(r"maps/\S+\.png", "", line) for line in others]
    (root / "manifest.csv").write_text("\n".join([header, first, *others]) + "\n")
    Image.fromarray(cells).save(root / "maps" / "train_0.png")


def test_the_statistics_of_a_map_of_one_cell(own_faces: Path, run) -> None:
    cells = np.zeros((7, 7), np.uint8)  # the size of the grid: there is nothing to resize
    cells[2, 3] = 255
    keep_one_map(own_faces, cells)
    maps = run(own_faces).content["human_maps"]
    assert maps["average"][""] == maps["average"]["real"] == (cells / 255).tolist()
    whole, real = maps["statistics"]
    assert (whole["label"], real["label"], whole["maps"]) == ("", "real", 1)
    assert whole["entropy_mean"] == pytest.approx(0, abs=1e-6)
    assert whole["focus_area"] == pytest.approx(1)
    assert whole["entropy_std"] is None
    assert whole["covered"] == pytest.approx(1 / 49)


def test_maps_are_prepared_as_in_training(own_faces: Path, run) -> None:
    cells = np.zeros((7, 7), np.uint8)
    cells[2, 3], cells[5, 5] = 255, 85
    keep_one_map(own_faces, cells)
    plain = run(own_faces).content["human_maps"]["statistics"][0]
    # 3/4 and 1/4 of the whole: 0.75 ln(4/3) + 0.25 ln 4 = 0.562335 nats.
    assert plain["entropy_mean"] == pytest.approx(0.562335, abs=1e-5)
    halved = run(own_faces, "data.human_maps.binarise=0.3").content["human_maps"]["statistics"][0]
    assert halved["entropy_mean"] == pytest.approx(np.log(2), abs=1e-5)
    blurred = run(own_faces, "data.human_maps.blur=0.2").content["human_maps"]["statistics"][0]
    assert blurred["entropy_mean"] > 2.0


def test_a_damaged_data_set(own_faces: Path, run) -> None:
    root = own_faces
    noise(0).save(root / "whole.png")
    whole = (root / "whole.png").read_bytes()
    (root / "empty.png").write_bytes(b"")
    (root / "cut.png").write_bytes(whole[:1500])
    (root / "text.jpg").write_text("hello")
    noise(1).save(root / "misnamed.jpg", "PNG")
    Image.fromarray(np.arange(1024, dtype=np.uint16).reshape(32, 32)).save(root / "deep.png")
    noise(2).save(root / "animated.webp", save_all=True, append_images=[noise(3)])
    Image.new("1", (9000, 9000)).save(root / "huge.png")
    (root / "link.png").symlink_to("/etc/hostname")
    os.mkfifo(root / "pipe.png")  # which would wait for ever for somebody to write
    broken = {
        "image_missing": "gone.png", "image_empty": "empty.png", "image_damaged": "cut.png",
        "image_unknown_format": "text.jpg", "image_misnamed": "misnamed.jpg", "image_deep": "deep.png",
        "image_animated": "animated.webp", "image_oversized": "huge.png", "image_outside": "link.png",
        "image_not_a_file": "pipe.png",
    }  # fmt: skip
    for name in broken.values():
        add(root, name, "real", "train")
    Image.new("L", (16, 16), 7).save(root / "maps" / "constant.png")
    (root / "maps" / "bad.png").write_bytes(b"x")
    noise(4).save(root / "with_constant.png")
    add(root, "with_constant.png", "real", "train", human_map="maps/constant.png")
    noise(5).save(root / "with_bad.png")
    add(root, "with_bad.png", "real", "val", human_map="maps/bad.png")
    noise(6).save(root / "with_none.png")
    add(root, "with_none.png", "real", "val", human_map="maps/none.png")
    noise(7).convert("CMYK").save(root / "cmyk.jpg")
    add(root, "cmyk.jpg", "real", "train")
    noise(8).convert("L").save(root / "grey.png")
    add(root, "grey.png", "synthetic", "train")
    shutil.copy(root / "train" / "0.jpg", root / "copy.jpg")
    add(root, "copy.jpg", "synthetic", "train", "gan")
    Image.open(root / "train" / "2.png").save(root / "again.bmp")
    add(root, "again.bmp", "real", "test")
    shutil.copy(root / "train" / "4.png", root / "inside.png")
    add(root, "inside.png", "real", "train")

    checked = run(root)
    assert checked.code == 1
    found = checked.findings
    for kind, name in broken.items():
        assert checked.files(kind) == [[name]]
        assert found[kind]["severity"] == "error"
    # 43 rows of conftest's, the header, and the first of these.
    assert found["image_missing"]["places"][0]["where"] == ["row 45"]
    assert checked.files("map_constant") == [["maps/constant.png"]]
    assert checked.files("map_unknown_format") == [["maps/bad.png"]]
    assert checked.files("map_missing") == [["maps/none.png"]]
    assert checked.files("image_cmyk") == [["cmyk.jpg"]]
    assert checked.files("image_grey") == [["grey.png"]]
    assert checked.files("unnamed_generator") == [["grey.png"]]
    assert checked.files("same_picture_both_labels") == [["train/0.jpg", "copy.jpg"]]
    assert checked.files("same_picture_across_splits") == [["train/2.png", "again.bmp"]]
    assert checked.files("same_picture_in_split") == [["train/4.png", "inside.png"]]
    assert "the same pixels: 1 train real, 1 test real" in checked.out
    errors = {kind for kind, finding in found.items() if finding["severity"] == "error"}
    assert errors == {
        *broken, "map_constant", "map_unknown_format", "map_missing", "same_picture_both_labels",
        "same_picture_across_splits",
    }  # fmt: skip
    assert f"{len(errors)} kinds of error, to be mended before anything is trained" in checked.out
    # What cannot be used is in the counts of the table, and not among the kinds of files.
    assert sum(row["images"] for row in checked.content["counts"]) == 43 + 18
    formats = [row for row in checked.content["files"] if row["property"] == "format"]
    assert sum(row["real"] + row["synthetic"] for row in formats) == 43 + 8


def test_a_table_that_cannot_be_used_is_reported_whole(own_faces: Path, run) -> None:
    add(own_faces, "x.png", "fake", "train")
    add(own_faces, "../y.png", "real", "training")
    checked = run(own_faces)
    assert checked.code == 1
    (finding,) = checked.content["findings"]
    assert (finding["kind"], finding["severity"], finding["count"]) == ("table", "error", 3)
    assert "row 45 has 'fake' (did you mean synthetic?)" in checked.page.replace("&#39;", "'")
    printed = " ".join(checked.out.split())
    assert "row 46 has 'training' (did you mean train?)" in printed
    assert "row 46 has '../y.png'" in printed


def test_a_data_root_that_is_not_there(tmp_path: Path, run) -> None:
    checked = run(tmp_path / "none")
    assert checked.code == 1
    assert f"data.root={tmp_path}/none does not exist" in checked.content["findings"][0]["places"][0]["reason"]


def test_splits_that_lack_images(own_faces: Path, run) -> None:
    lines = (own_faces / "manifest.csv").read_text().splitlines()
    kept = [line for line in lines if ",val," not in line and ",real,train," not in line]
    (own_faces / "manifest.csv").write_text("\n".join(kept) + "\n")
    checked = run(own_faces)
    assert checked.code == 1
    places = checked.findings["incomplete_split"]["places"]
    assert [place["reason"] for place in places] == ["split train has no real image", "split val has no image"]


def test_images_in_folders_without_a_table(own_faces: Path, tmp_path: Path, run) -> None:
    root = tmp_path / "tree"
    for split in ("train", "val", "test"):
        for label in ("real", "fake/gan"):
            (root / split / label).mkdir(parents=True)
            noise(len(list(root.rglob("*")))).save(root / split / label / "a.png")
    checked = run(root, data="folder")
    assert checked.code == 0
    assert [row["origin"] for row in checked.content["counts"]] == ["", "gan"] * 3
    assert checked.findings["shared_base_names"]["count"] == 1
    assert "unread_files" not in checked.findings


def test_files_of_another_format_in_folders_are_said(tmp_path: Path, run) -> None:
    root = tmp_path / "tree"
    for split in ("train", "val", "test"):
        for label in ("real", "fake"):
            (root / split / label).mkdir(parents=True)
            noise(0).save(root / split / label / f"{split}{label}.png")
            noise(0).save(root / split / label / f"{split}{label}.tif")
    checked = run(root, data="folder")
    assert [place["reason"] for place in checked.findings["unread_files"]["places"]] == ["6 .tif files are not read"]
    assert "6 .tif files are not read" in checked.out
    assert "6 .tif files are not read" in checked.page


def test_base_names_matter_among_the_images_that_maps_are_joined_to(tmp_path: Path, run) -> None:
    root = tmp_path / "und"
    (root / "csvs" / "gan_test_sets").mkdir(parents=True)
    lists = {"original": [("train", "a/1.png"), ("test", "b/1.png")]}
    lists |= {f"gan_test_sets/{name}": [("test", f"{name}/1.png"), ("test", f"{name}/2.png")] for name in ("x", "y")}
    for name, images in lists.items():
        rows = [f"{split},{label},/{label}/{path}" for split, path in images for label in ("Real", "Synthetic")]
        (root / "csvs" / f"{name}.csv").write_text("\n".join(rows) + "\n")
    checked = run(root, data="und_cyborg")  # and not one of the images is there
    assert checked.findings["image_missing"]["count"] == 12
    names = [place["files"] for place in checked.findings["shared_base_names"]["places"]]
    assert names == [["Real/a/1.png", "Synthetic/a/1.png"]]


def test_a_shortcut_is_found_and_flagged(tmp_path: Path, run) -> None:
    root = tmp_path / "formats"
    root.mkdir()
    (root / "manifest.csv").write_text("path,label,split,generator,human_map,pose\n")
    for number in range(50):
        name, label = (f"{number}.png", "synthetic") if number % 2 else (f"{number}.jpg", "real")
        noise(number).save(root / name)
        add(root, name, label, "train", "gan" if label == "synthetic" else "")
    checked = run(root)
    (by_format,) = [
        row for row in checked.content["shortcuts"]
        if (row["split"], row["shortcut"]) == ("train", "file format")
    ]  # fmt: skip
    assert (by_format["auroc"], by_format["images"], by_format["warn"]) == (1.0, 50, True)
    told = "file format alone tells the synthetic train images from the real ones with an AUROC of 1.000 (50 images)"
    assert told in [place["reason"] for place in checked.findings["shortcut"]["places"]]
    assert "1.000 ▲" in checked.out
    assert "1.000 ▲" in checked.page


def pictures(page: str) -> list[tuple[str, Image.Image]]:
    """The (text, picture) of each image in a page."""
    found = re.findall(r'<img src="data:image/\w+;base64,([^"]+)" alt="([^"]+)"', page)
    return [(text, Image.open(io.BytesIO(base64.b64decode(data)))) for data, text in found]


def test_contact_sheets_show_images_with_their_maps(faces: Path, run) -> None:
    page = run(faces, "contact_sheet_images=2").page
    shown = pictures(page)
    sheets = [(text, picture) for text, picture in shown if text.startswith("Image")]
    assert len(sheets) == 9 * 2  # of nine kinds
    for text, picture in sheets:
        assert picture.size == ((336, 112) if "human map" in text else (112, 112))
    assert any("human map" in text for text, _ in sheets)
    # The test images have no maps.
    assert not any("human map" in text for text, _ in sheets if "test/" in text)


def test_implausible_maps_and_heat_maps_are_shown_beside_their_images(own_faces: Path, run) -> None:
    y, x = np.mgrid[:48, :48]
    spot = np.exp(-((x - 20) ** 2 + (y - 24) ** 2) / 60)
    maps = sorted((own_faces / "maps").glob("*.png"))
    for number, path in enumerate(maps):
        Image.fromarray((255 * np.roll(spot, number, axis=1)).astype(np.uint8)).save(path)
    assert not {kind for kind in run(own_faces).findings if kind.startswith("map_") and kind != "map_entropy"}
    Image.fromarray((255 - 255 * spot).astype(np.uint8)).save(maps[0])
    Image.fromarray(colormaps["jet"](spot, bytes=True)).save(maps[1])
    checked = run(own_faces)
    assert checked.code == 1
    assert checked.files("map_inverted") == [[str(maps[0].relative_to(own_faces))]]
    assert checked.files("map_colour") == [[str(maps[1].relative_to(own_faces))]]
    shown = dict(pictures(checked.page))
    for kind, path in (("inverted", maps[0]), ("colour", maps[1])):
        (alt,) = {alt for alt in shown if alt.startswith("Image and human map of") and path.stem.split("_")[1] in alt}
        assert shown[alt].size == (224, 112), kind
        stored = np.asarray(Image.open(path).convert("RGB").resize((112, 112)), int)
        assert np.abs(np.asarray(shown[alt], int)[:, 112:] - stored).mean() < 8
    decoded = run(own_faces, "+data.human_maps.colormap=jet")
    assert (decoded.code, "map_colour" in decoded.findings) == (0, False)


def test_the_same_seed_draws_the_same_images(faces: Path) -> None:
    manifest = read_manifest(faces / "manifest.csv")
    maps = scan_maps(manifest, scan_images(manifest, 1), workers=1)
    first, again, other = (contact_sheets(manifest, maps, 2, seed) for seed in (1, 1, 2))
    assert first == again
    assert [sheet.images for sheet in first] == [sheet.images for sheet in other]
    assert first != other


def test_a_page_without_photographs(own_faces: Path, run) -> None:
    shutil.copy(own_faces / "train" / "4.png", own_faces / "inside.png")
    add(own_faces, "inside.png", "real", "train")
    assert len([text for text, _ in pictures(run(own_faces).page) if "inside.png" in text]) >= 1
    checked = run(own_faces, "contact_sheet_images=0")
    assert checked.files("same_picture_in_split") == [["train/4.png", "inside.png"]]
    # The average maps are no photographs.
    assert {text.split(",")[0] for text, _ in pictures(checked.page)} == {"Average human map"}


def test_a_link_out_of_the_data_root_is_not_shown(own_faces: Path, tmp_path: Path, run) -> None:
    noise(0).save(tmp_path / "private.png")
    (own_faces / "link.png").symlink_to(tmp_path / "private.png")
    add(own_faces, "link.png", "real", "train", "")
    checked = run(own_faces, "contact_sheet_images=50")
    assert checked.files("image_outside") == [["link.png"]]
    assert not any("link.png" in text for text, _ in pictures(checked.page))


def test_names_that_would_be_markup(own_faces: Path, run) -> None:
    for number, name in enumerate((EVIL, "[red]x[link].png", "rtl\u202egnp.png")):
        noise(number).save(own_faces / name)
        add(own_faces, name, "synthetic", "test", "[bold]<b>gan</b>")
        shutil.copy(own_faces / name, own_faces / f"copy {name}")
        add(own_faces, f"copy {name}", "synthetic", "test", "[bold]<b>gan</b>")
    checked = run(own_faces)
    assert EVIL not in checked.page
    assert "&lt;img onerror=alert(1)&gt;.png" in checked.page
    assert "<b>gan" not in checked.page
    assert "\u202e" not in checked.page + checked.out
    for text in (EVIL, "[red]x[link].png", "rtl?gnp.png", "[bold]<b>gan</b>"):
        assert text in checked.out
    # The JSON has the names as they are.
    assert ["rtl\u202egnp.png", "copy rtl\u202egnp.png"] in checked.files("same_picture_in_split")


def test_no_line_of_the_summary_is_longer_than_100_columns(own_faces: Path, run) -> None:
    long = "/".join(["a_folder_of_some_length"] * 8)
    for copy in range(3):
        (own_faces / f"{long}{copy}").mkdir(parents=True)
        noise(0).save(own_faces / f"{long}{copy}" / "x.png")
        add(own_faces, f"{long}{copy}/x.png", "synthetic", "train", "a_generator_of_a_very_long_name_" * 3)
    summary = run(own_faces).out.partition("\nImages\n")[2].partition("\nwritten: ")[0]
    assert "a_folder_of_some_length" in summary
    assert max(map(len, summary.splitlines())) <= 100
    # And nothing is cut off: the last column of the widest table.
    assert re.search(r"Thumbnail *$", summary, re.MULTILINE)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grid=1", "grid is 1; give a whole number from 2 to 64"),
        ("grid=7.5", "grid is 7.5; give a whole number from 2 to 64"),
        ("most_images=39", "most_images is 39; give a whole number from 40 on"),
        ("contact_sheet_images=-1", "contact_sheet_images is -1; give a whole number from 0 to 50"),
        ("workers=0", "workers is 0; give a whole number from 1 on, or null"),
        ("workers=true", "workers is True; give a whole number from 1 on, or null"),
        ("seed=null", "seed is None; give a whole number from 0 to 4294967295"),
    ],
)
def test_options_out_of_range(faces: Path, run, override: str, message: str) -> None:
    with pytest.raises(CompactHydraException, match=f"^{re.escape(message)}$"):
        run(faces, override)


def test_an_output_that_cannot_be_written_to_is_told_before_the_files_are_looked_at(
    faces: Path, tmp_path: Path, run, monkeypatch
) -> None:
    monkeypatch.setattr(module, "data_report", None)
    (tmp_path / "file").write_text("")
    with pytest.raises(CompactHydraException, match=r"^output=\S+/file cannot be written to \(.+\); give another"):
        run(faces, f"output={tmp_path}/file")


def test_an_interrupted_check_leaves_no_report(faces: Path, run, monkeypatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "scan_maps", interrupted)
    checked = run(faces)
    assert checked.code == 128 + signal.SIGINT
    assert list(checked.folder.iterdir()) == []


def test_the_script(own_faces: Path, tmp_path: Path) -> None:
    """As it is started by a user, who finds the report below the folder that he is in."""
    (own_faces / "train" / "0.jpg").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, ROOT / "experiments" / "data.py", "data=faces", f"data.root={own_faces}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "row 2: train/0.jpg – is empty (0 bytes)" in done.stdout
    assert done.stdout.splitlines()[-1] == (
        "written: data_report/faces/data_report.html and data_report/faces/data_report.json"
    )
    assert sorted(path.name for path in (tmp_path / "data_report" / "faces").iterdir()) == [
        "data_report.html",
        "data_report.json",
    ]
