"""The decoy: a mark that tells the label in train and val, nothing in test, and lies outside every human map."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from saliency_entropy.data import Manifest
from saliency_entropy.data.builtin import builtin_faces
from saliency_entropy.data.decoy import decoy_faces
from saliency_entropy.data.human_maps.loading import load_human_map
from saliency_entropy.errors import UserError

ROOT = Path(__file__).parents[2]
COUNTS: dict[str, Any] = {"seed": 0, "image_size": 64, "train": 200, "val": 24, "test": 60}
DECOY: dict[str, Any] = {
    "strength": 1.0, "on_synthetic": 0.9, "on_real": 0.2, "place": [0.07, 0.07], "size": 0.125,
    "defects": ["brow", "teeth"],
}  # fmt: skip
FEW = COUNTS | {"train": 8, "val": 4, "test": 12}
CORNER = (slice(0, 8), slice(0, 8))  # of 64 pixels: (0.07 - 0.0625) * 64 = 0.48, and 8 pixels from there


@pytest.fixture(scope="module")
def decoy(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return decoy_faces(tmp_path_factory.mktemp("decoy"), **COUNTS, **DECOY)


def pixels(manifest: Manifest, path: str) -> np.ndarray:
    return np.asarray(Image.open(manifest.root / path).convert("RGB"), dtype=float)


def shares(table: pd.DataFrame) -> tuple[float, float]:
    """Of the synthetic and of the real images, the share with the mark."""
    marked = (table["mark"] == "yes").groupby(table["label"]).mean()
    return marked["synthetic"], marked["real"]


def test_the_mark_goes_with_the_label_in_training_and_with_nothing_in_the_test(decoy: Manifest) -> None:
    synthetic, real = shares(decoy.split("train"))
    # Of 100 images each; four standard deviations of a share of 0.9 are 0.12, of 0.2 are 0.16.
    assert (synthetic, real) == (pytest.approx(0.9, abs=0.12), pytest.approx(0.2, abs=0.16))
    synthetic, real = shares(decoy.split("val"))
    assert synthetic - real > 0.4
    synthetic, real = shares(decoy.split("test"))
    assert synthetic == real == pytest.approx(0.55, abs=0.36)


def test_shares_of_all_and_none_are_exact(tmp_path: Path) -> None:
    manifest = decoy_faces(tmp_path, **FEW, **DECOY | {"on_synthetic": 1, "on_real": 0})
    for split in ("train", "val"):
        assert shares(manifest.split(split)) == (1.0, 0.0)


def test_the_column_says_what_is_in_the_image_and_nowhere_else(tmp_path: Path) -> None:
    """Beside the same faces with a mark that cannot be seen."""
    shown = decoy_faces(tmp_path, **FEW, **DECOY)
    faint = decoy_faces(tmp_path, **FEW, **DECOY | {"strength": 1e-6})
    for path, mark in zip(shown.table["path"], shown.table["mark"], strict=True):
        difference = np.abs(pixels(shown, path) - pixels(faint, path)).max(axis=2)
        assert (difference[CORNER].mean() > 30) == (mark == "yes")
        difference[CORNER] = 0  # a block of JPEG
        assert difference.max() == 0


@pytest.mark.parametrize("strength", [0.25, 0.5, 1.0])
def test_strength_is_the_opacity_of_four_quarters_of_two_colours(tmp_path: Path, strength: float) -> None:
    decoy = decoy_faces(tmp_path, **FEW, **DECOY | {"strength": strength})
    faint = decoy_faces(tmp_path, **FEW, **DECOY | {"strength": 1e-6})
    path = decoy.table["path"][decoy.table["mark"] == "yes"].iloc[0]
    under, found = pixels(faint, path)[1:3, 1:3], pixels(decoy, path)[1:3, 1:3]
    yellow = np.array([255, 220, 0])
    assert found == pytest.approx(under + strength * (yellow - under), abs=12)  # JPEG
    if strength == 1:
        blue = pixels(decoy, path)[5:7, 1:3]
        assert blue == pytest.approx(np.broadcast_to([0, 60, 255], blue.shape), abs=12)


def test_place_and_size_are_where_the_mark_is(tmp_path: Path) -> None:
    moved = {"place": [0.9, 0.1], "size": 0.0625}
    shown = decoy_faces(tmp_path, **FEW, **DECOY | moved)
    faint = decoy_faces(tmp_path, **FEW, **DECOY | moved | {"strength": 1e-6})
    path = shown.table["path"][shown.table["mark"] == "yes"].iloc[0]
    difference = np.abs(pixels(shown, path) - pixels(faint, path)).max(axis=2)
    # 0.9 * 64 - 2 = 55.6 across, 0.1 * 64 - 2 = 4.4 down, and 4 pixels from there.
    assert difference[4:8, 56:60].min() > 20
    assert difference[8:].max() == difference[:, :48].max() == 0


def test_human_maps_never_cover_the_mark(decoy: Manifest) -> None:
    maps = decoy.table["human_map"][decoy.table["human_map"] != ""]
    assert len(maps) > 200
    for name in maps:
        assert not np.asarray(Image.open(decoy.root / name))[CORNER].any()
        # On a CAM's grid the corner's cell holds a part of the mark, and no part of what was stroked.
        assert load_human_map([decoy.root / name], (7, 7))[0, 0] < 0.1


def test_synthetic_faces_have_the_defects_asked_for(decoy: Manifest) -> None:
    names = decoy.table["defects"].groupby(decoy.table["label"]).unique()
    assert set(names["real"]) == {""}
    assert set(names["synthetic"]) == {"brow", "brow;teeth"}  # in a closed mouth, no teeth can be wrong


def test_real_faces_are_those_of_the_builtin_data(tmp_path: Path) -> None:
    builtin, decoy = builtin_faces(tmp_path, **FEW), decoy_faces(tmp_path, **FEW, **DECOY)
    assert builtin.root != decoy.root
    plain = decoy.table["path"][(decoy.table["label"] == "real") & (decoy.table["mark"] == "no")]
    assert len(plain) > 3
    for path in plain:
        assert (builtin.root / path).read_bytes() == (decoy.root / path).read_bytes()


@pytest.mark.parametrize(("arguments", "message"), [
    ({"size": 1.5}, r"data\.source\.size is 1\.5; give a number above 0 to 1"),
    ({"strength": 0}, r"data\.source\.strength is 0; give a number above 0 to 1"),
    ({"on_real": -0.1}, r"data\.source\.on_real is -0\.1; give a number from 0 to 1"),
    ({"on_synthetic": True}, r"data\.source\.on_synthetic is True; give a number from 0 to 1"),
    ({"place": [0.05, 0.1]}, r"the mark of data\.source\.size=0\.125 at data\.source\.place=\[0\.05, 0\.1\] does not "
     "lie within the image; make it smaller, or move it to the middle"),
    ({"place": [0.2, 0.4]}, "would lie over the face; make it smaller, or move it to a corner"),
    ({"place": [0.2, 0.2], "size": 0.4}, "would lie over the face"),
    ({"place": [0.1]}, r"data\.source\.place is \[0\.1\]; give x and y, two numbers from 0 to 1"),
    ({"defects": ["brow", "tooth"]}, r"data\.source\.defects names 'tooth', which is no defect; choose from pupil"),
    ({"defects": []}, r"data\.source\.defects names none; choose from pupil"),
    ({"train": 2}, r"data\.source\.train is 2; .* it must be even and 4 or greater"),
])  # fmt: skip
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        decoy_faces(tmp_path, **FEW | DECOY | arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_method_that_is_guided_by_human_maps_sees_through_the_mark(tmp_path: Path) -> None:
    """The demo, cut to one seed of two methods and two thirds of the epochs."""
    command = [sys.executable, str(ROOT / "experiments" / "train.py"), "experiment=demo", "seed=0"]
    command += ["method=cross_entropy,cyborg", "trainer.max_epochs=8", "threads=1", "hydra.launcher.n_jobs=2"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    results = [tmp_path / "runs" / "demo" / method / "seed0" / "result.json" for method in ("cyborg", "cross_entropy")]
    guided, baseline = (json.loads(path.read_text())["test"]["auroc_margin"] for path in results)
    assert guided - baseline > 0.1
