"""The files of a split, looked at before they are needed."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from saliency_entropy.data.dataset import FaceDataset, Transform
from saliency_entropy.data.table import Manifest, complete


def image(path: Path, size: int = 64) -> Path:
    """Noise; in grey, as a map must be, if its name begins with m."""
    shape = (size, size) if path.name.startswith("m") else (size, size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def listed(root: Path, *paths: str, human_map: str = "") -> Manifest:
    table = pd.DataFrame({"path": paths, "label": "real", "split": "train", "human_map": human_map})
    return complete(Manifest(table, root, "manifest.csv"))


def dataset(manifest: Manifest, **options: object) -> FaceDataset:
    return FaceDataset(manifest, "train", Transform(8, "bilinear", (2, 2), **options))


def broken(manifest: Manifest, decode: bool = True, **options: object) -> list[tuple[int, str, str]]:
    return dataset(manifest, **options).broken(decode)


def test_all_images_and_maps_that_cannot_be_used(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        image(tmp_path / name)
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:-5000])
    (tmp_path / "c.png").write_text("no image")
    Image.new("L", (8, 8)).save(tmp_path / "map.png")
    manifest = listed(tmp_path, "b.png", "a.png", "c.png")
    manifest.table.loc[1, "human_map"] = "map.png"
    first, second, third = broken(manifest)
    assert first[:2] == (0, "path")
    assert "b.png is truncated or damaged" in first[2]
    assert second[:2] == (2, "path")
    assert "c.png is not an image in a known format" in second[2]
    assert third[:2] == (1, "human_map")
    assert "map.png is a constant map" in third[2]
    # The header of b.png is whole; maps are read in any case.
    assert [(row, column) for row, column, _ in broken(manifest, decode=False)] == [(2, "path"), (1, "human_map")]


def test_maps_of_several_annotators(tmp_path: Path) -> None:
    for name in ("a.png", "m1.png", "m2.png"):
        image(tmp_path / name)
    (tmp_path / "m.svg").write_text("no SVG")
    (tmp_path / "text.png").write_text("no image")
    for cell, wrong in (("m1.png;m2.png", None), ("m1.png;text.png", "text.png"), ("m1.png;m.svg", "m.svg")):
        found = broken(listed(tmp_path, "a.png", human_map=cell))
        assert len(found) == (wrong is not None)
        assert all(wrong in why for _, _, why in found)


def test_maps_as_they_will_be_used(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    Image.fromarray(np.array([[255, 0], [0, 0]], dtype=np.uint8)).save(tmp_path / "m.png")
    manifest = listed(tmp_path, "a.png", human_map="m.png")
    assert broken(manifest) == []
    assert broken(manifest, blur=0.5, binarise=0.001) != []


@pytest.mark.parametrize("kept", ["disk", "memory", "none"])
@pytest.mark.parametrize("template_maps", [True, False])
def test_a_spawned_worker_reads_the_same(tmp_path: Path, kept: str, template_maps: bool) -> None:
    """It gets the data set pickled."""
    for name in ("a.png", "b.png", "m.png"):
        image(tmp_path / name)
    manifest = listed(tmp_path, "a.png", "b.png", human_map="template" if template_maps else "m.png")
    manifest.table.loc[1, "human_map"] = ""
    data = dataset(replace(manifest, template_maps=template_maps))
    if kept != "none":
        assert data.keep(tmp_path / "decoded" if kept == "disk" else None) == []
    twin = pickle.loads(pickle.dumps(data))
    for index in range(2):
        for part, other in zip(data[index], twin[index], strict=True):
            assert torch.equal(part, other)
    assert data[0].human_map.max() == 1
    assert not data[1].human_map.any()
