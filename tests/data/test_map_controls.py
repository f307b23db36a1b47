"""Controls in the place of human maps: right by value, and refused where they would mean nothing."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import stats

from saliency_entropy.data import FaceDataModule
from saliency_entropy.data.human_maps.controls import constant_control, with_shuffled_maps
from saliency_entropy.data.manifest import read_manifest
from saliency_entropy.errors import UserError
from saliency_entropy.functional import entropy_match_loss, human_saliency_loss

SPLITS = {"train": 6, "val": 4, "test": 2}


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """A data set whose map of image i is white in column i of 7; train/5 has none."""
    rows = []
    for split, count in SPLITS.items():
        for index in range(count):
            path, human_map = f"{split}{index}.png", ""
            Image.new("RGB", (28, 28), (40 * index, 90, 90)).save(tmp_path / path)
            if split != "test" and (split, index) != ("train", 5):
                human_map = f"map_{split}{index}.png"
                cells = np.zeros((7, 7), dtype=np.uint8)
                cells[:, index] = 255
                Image.fromarray(cells).save(tmp_path / human_map)
            rows.append((path, ("real", "synthetic")[index % 2], split, human_map))
    pd.DataFrame(rows, columns=["path", "label", "split", "human_map"]).to_csv(tmp_path / "manifest.csv", index=False)
    return tmp_path


def data(folder: Path, **options: object) -> FaceDataModule:
    usual: dict[str, object] = {"seed": 0, "map_size": (7, 7), "num_workers": 0}
    return FaceDataModule("faces", lambda: read_manifest(folder / "manifest.csv"), 28, "bilinear", 4, **usual | options)


def maps(module: FaceDataModule, split: str) -> np.ndarray:
    """(n, 7, 7), of the images that have one."""
    module.setup()
    dataset = module._datasets[split]
    return np.stack([item.human_map for item in map(dataset.__getitem__, range(len(dataset))) if item.has_map])


def column_of(human_map: np.ndarray) -> int:
    (column,) = np.flatnonzero(human_map.any(axis=0))
    return column


def test_none_is_the_default_and_changes_nothing(faces: Path) -> None:
    for options in ({}, {"human_maps": {"control": "none"}}):
        assert [column_of(own) for own in maps(data(faces, **options), "train")] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_shuffled_gives_each_image_the_map_of_another_of_its_split(faces: Path, tmp_path: Path, cache: str) -> None:
    module = data(faces, cache=cache, cache_folder=str(tmp_path / "cache"), human_maps={"control": "shuffled"})
    for split, count in (("train", 5), ("val", 4)):
        found = [column_of(own) for own in maps(module, split)]
        assert sorted(found) == list(range(count))
        assert all(column != image for image, column in enumerate(found))
        names = module.split_table(split)["human_map"]
        assert names[names != ""].str.contains(split).all()


def test_the_order_of_the_shuffled_is_that_of_the_maps_seed(faces: Path) -> None:
    table = read_manifest(faces / "manifest.csv").table
    orders = {seed: with_shuffled_maps(table, seed)["human_map"].tolist() for seed in range(4)}
    assert with_shuffled_maps(table, 0)["human_map"].tolist() == orders[0]
    assert len({tuple(order) for order in orders.values()}) > 1
    assert data(faces, seed=7, human_maps={"control": "shuffled"}).manifest.table["human_map"].tolist() == orders[0]


def test_shuffled_has_no_fixed_point_for_any_seed() -> None:
    table = pd.DataFrame({"split": "train", "human_map": ["a", "b", "c"]})
    for seed in range(50):
        shuffled = with_shuffled_maps(table, seed)["human_map"]
        assert (shuffled != table["human_map"]).all()
        assert set(shuffled) == {"a", "b", "c"}


@pytest.mark.parametrize("control", ["shuffled", "centre", "uniform", "inverted"])
def test_the_maps_of_the_test_images_stay(faces: Path, control: str) -> None:
    table = pd.read_csv(faces / "manifest.csv", keep_default_na=False)
    table.loc[table["path"] == "test1.png", "human_map"] = "map_val3.png"  # a single one, which nothing is to refuse
    table.to_csv(faces / "manifest.csv", index=False)
    assert [column_of(own) for own in maps(data(faces, human_maps={"control": control}), "test")] == [3]


def test_a_control_made_of_maps_of_which_none_can_be_used_is_refused(faces: Path) -> None:
    for path in faces.glob("map_train*.png"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"control is centre, but no training image has a map that can be used"):
        data(faces, human_maps={"control": "centre"}, skip_broken=True).setup()


def test_the_digest_of_the_images_does_not_depend_on_how_maps_are_dealt_out(faces: Path) -> None:
    digests = {}
    for control in ("none", "inverted", "shuffled"):
        module = data(faces, human_maps={"control": control})
        module.setup()
        digests[control] = module.summary()["images_hash"]
        assert module.summary().get("map_kind") == (None if control == "none" else f"{control} control")
    assert digests["none"] == digests["inverted"] != ""
    assert digests["shuffled"] == ""


def test_inverted_is_one_minus_the_map(faces: Path) -> None:
    own = maps(data(faces), "train")
    assert np.array_equal(maps(data(faces, human_maps={"control": "inverted"}), "train"), 1 - own)


def test_uniform_is_the_mean_of_the_training_maps_in_every_cell(faces: Path) -> None:
    module = data(faces, human_maps={"control": "uniform"})
    for split in ("train", "val"):
        assert maps(module, split) == pytest.approx(1 / 7)  # one column of seven is 1
    # What the losses make of it: each cell is drawn to that level, and the entropy to the greatest.
    flat = torch.full((1, 7, 7), 1 / 7)
    model = torch.zeros(1, 7, 7)
    model[0, 3, 3] = 1
    assert human_saliency_loss(model, flat) == pytest.approx(((6 / 7) ** 2 + 48 * (1 / 7) ** 2) / 49)
    assert entropy_match_loss(model, flat) == pytest.approx(math.log(49) ** 2, rel=1e-5)


def test_centre_is_one_blob_in_the_middle_with_the_mean_entropy_of_the_training_maps(faces: Path) -> None:
    module = data(faces, human_maps={"control": "centre"})
    blobs = np.concatenate([maps(module, split) for split in ("train", "val")])
    blob = blobs[0]
    assert (blobs == blob).all()
    assert (blob[3, 3], blob[0, 0]) == (1, 0)
    for turned in (blob[::-1], blob[:, ::-1], blob.T):
        assert turned == pytest.approx(blob, abs=1e-6)
    assert stats.entropy(blob.ravel()) == pytest.approx(math.log(7), abs=0.02)  # of a column of seven equal cells


def test_centre_on_another_grid_and_at_the_ends_of_its_range() -> None:
    point = np.zeros((2, 4, 6), dtype=np.float32)
    point[:, 0, 0] = 1
    blob = constant_control("centre", point)  # no blob between cells is as focused as one cell
    assert blob.shape == (4, 6)
    assert blob[1:3, 2:4].min() == pytest.approx(1)
    assert blob.sum() == pytest.approx(4, abs=1e-3)
    wide = constant_control("centre", np.ones((2, 4, 6), dtype=np.float32))
    assert wide.max() == 1 > wide.min() == 0


@pytest.mark.parametrize(("options", "edit", "message"), [
    ({"human_maps": {"control": "mirrored"}}, None, r"data\.human_maps\.control is 'mirrored'; choose one of none"),
    ({"human_maps": {"control": "shuffled"}}, lambda table: table[:1], "split train has one human map only"),
    ({"human_maps": {"control": "uniform"}}, lambda table: table[:0], "control is uniform, but no training image .* "
     "has a human map that it could stand in for"),
    ({"human_maps": {"control": "centre", "fraction": 0.0}}, None, "control is centre, but no training image"),
    ({"human_maps": {"control": "shuffled"}, "template_maps": True}, lambda table: table[:0], "template maps are those "
     "of no image in particular"),
])  # fmt: skip
def test_controls_that_leave_no_map(
    faces: Path, options: dict[str, object], edit: Callable[[list], list] | None, message: str
) -> None:
    if edit is not None:
        table = pd.read_csv(faces / "manifest.csv", keep_default_na=False)
        kept = edit(table.index[table["human_map"].str.startswith("map_train")])
        table.loc[~table.index.isin(kept), "human_map"] = ""
        table.to_csv(faces / "manifest.csv", index=False)
    with pytest.raises(UserError, match=message):
        data(faces, **options).setup()
