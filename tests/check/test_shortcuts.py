"""The audit on made-up data: a shortcut that is there is found, alone, and none where there is none."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from saliency_entropy.check.scan import ImageScan, scan_images
from saliency_entropy.check.shortcuts import SHORTCUTS, audit_shortcuts
from saliency_entropy.data import read_manifest
from saliency_entropy.data.table import Manifest

FACES = Path(__file__).parents[3] / "shared" / "data" / "faces"
COUNT = 400


def data(count: int = COUNT, split: str = "train", seed: int = 0) -> tuple[pd.DataFrame, ImageScan]:
    """Half real, half synthetic, by generators a and b in turn; nothing tells them apart."""
    random = np.random.default_rng(seed)
    synthetic = np.arange(count) % 2 == 1
    generator = np.where(synthetic, np.array(["a", "b"])[np.arange(count) // 2 % 2], "")
    table = pd.DataFrame(
        {
            "path": [f"{row}.jpg" for row in range(count)],
            "label": np.where(synthetic, "synthetic", "real"),
            "split": split,
            "generator": generator,
        }
    )
    means = random.normal(120, 20, (count, 3))
    facts = pd.DataFrame(
        {
            "problem": "",
            "bytes": random.integers(10_000, 40_000, count),
            "format": random.choice(["JPEG", "PNG"], count),
            "width": random.choice([128, 256, 512], count),
            "height": random.choice([128, 256, 512], count),
            "quantization": random.choice(["", "aaaa", "bbbb"], count),
            "content": [f"{row:064x}" for row in range(count)],
            **dict(zip(("red", "green", "blue"), means.T, strict=True)),
        }
    )
    return table, ImageScan(facts, random.integers(0, 256, (count, 12, 12, 3), dtype=np.uint8))


def aurocs(table: pd.DataFrame, scan: ImageScan) -> pd.Series:
    audit = audit_shortcuts(table, scan)
    return audit[audit["generator"] == ""].set_index("shortcut")["auroc"]


def test_nothing_is_found_where_nothing_is() -> None:
    audit = audit_shortcuts(*data())
    assert audit["shortcut"].tolist() == list(SHORTCUTS)
    # The standard error of an AUROC of 200 against 200 without signal: sqrt((200 + 200 + 1) / (12 * 200 * 200)).
    assert (audit["auroc"] - 0.5).abs().max() < 3 * np.sqrt(401 / 480_000)
    assert not audit["warn"].any()
    assert set(audit["note"]) == {""}
    assert set(audit["images"]) == {COUNT}


def only(found: str, of: pd.Series) -> None:
    assert of[found] > 0.95
    assert of.drop(found).max() < 0.6


@pytest.mark.parametrize(
    ("shortcut", "columns"),
    [
        ("file format", {"format": ("JPEG", "PNG")}),
        ("JPEG quantisation table", {"quantization": ("aaaa", "bbbb")}),
        ("file size", {"bytes": (20_000, 30_000)}),
        ("image size", {"width": (128, 256), "height": (256, 128)}),
        ("mean colour", {"green": (100.0, 120.0)}),
    ],
)
def test_a_perfect_shortcut_is_found_alone(shortcut: str, columns: dict[str, tuple]) -> None:
    table, scan = data()
    for column, values in columns.items():
        scan.facts[column] = np.where(table["label"] == "real", *values)
    of = aurocs(table, scan)
    assert of[shortcut] == pytest.approx(1.0)
    only(shortcut, of)


def test_a_value_that_only_one_class_has_in_part() -> None:
    # Half of the synthetic images are PNG, all others JPEG: AUROC (1 + 0.5) / 2.
    table, scan = data()
    scan.facts["format"] = np.where(table["generator"] == "a", "PNG", "JPEG")
    assert aurocs(table, scan)["file format"] == pytest.approx(0.75, abs=0.01)


def test_one_value_for_all_is_exactly_chance() -> None:
    table, scan = data()
    scan.facts[["format", "quantization", "width", "height", "bytes"]] = ["PNG", "", 8, 8, 99]
    assert aurocs(table, scan).drop(["mean colour", "thumbnail"]).eq(0.5).all()


def test_images_between_two_sizes_need_more_than_a_line() -> None:
    table, scan = data()
    between = np.random.default_rng(1).uniform(15_000, 20_000, COUNT)
    outside = np.random.default_rng(2).choice([5_000, 50_000], COUNT)
    scan.facts["bytes"] = np.where(table["label"] == "real", between, outside)
    assert aurocs(table, scan)["file size"] == pytest.approx(1.0)


def test_a_brighter_corner_of_the_thumbnail() -> None:
    table, scan = data()
    scan.thumbnails[:, :3, :3] //= 2
    scan.thumbnails[(table["label"] == "synthetic").to_numpy(), :3, :3] += 60
    only("thumbnail", aurocs(table, scan))


def test_files_under_their_own_extension_from_end_to_end(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table, _ = data(60)
    table["path"] = [f"{row}.{'png' if row % 2 else 'jpg'}" for row in range(60)]
    table["human_map"] = ""
    for path in table["path"]:
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / path)
    of = aurocs(table, scan_images(Manifest(table, tmp_path, ""), 1))
    assert of["file format"] == of["JPEG quantisation table"] == 1.0
    assert of["image size"] == 0.5


def test_copies_of_a_file_count_once() -> None:
    # 40 files, each ten times: trees that had seen the copies would know all of them by their random sizes.
    table, scan = data(40)
    table, facts = (pd.concat([part] * 10, ignore_index=True) for part in (table, scan.facts))
    audit = audit_shortcuts(table, ImageScan(facts, np.tile(scan.thumbnails, (10, 1, 1, 1))))
    pd.testing.assert_frame_equal(audit, audit_shortcuts(*data(40)))


def test_too_few_images_of_a_class() -> None:
    table, scan = data(60)
    table = table.assign(label=["synthetic"] * 19 + ["real"] * 41)
    audit = audit_shortcuts(table, scan)
    assert audit["auroc"].isna().all()
    assert not audit["warn"].any()
    assert set(audit["note"]) == {"not measured: one class has 19 images, and 20 are needed"}
    audit = audit_shortcuts(table.assign(label="real"), scan)
    assert set(audit["note"]) == {"not measured: one class has 0 images, and 20 are needed"}
    assert audit_shortcuts(table.assign(label=["synthetic"] * 20 + ["real"] * 40), scan)["auroc"].notna().all()


def test_images_with_a_problem_do_not_count() -> None:
    table, scan = data()
    leak = np.where(table["label"] == "real", "JPEG", "PNG")
    scan.facts["problem"] = np.where(np.arange(COUNT) < 300, "a.png is empty", "")
    scan.facts["format"] = np.where(np.arange(COUNT) < 300, leak, "JPEG")
    audit = audit_shortcuts(table, scan)
    assert set(audit["images"]) == {100}
    assert audit["auroc"][0] == 0.5


def test_splits_apart_and_generators_of_the_test_split() -> None:
    parts = [data(200, split, seed) for seed, split in enumerate(["train", "test"])]
    table = pd.concat([part for part, _ in parts], ignore_index=True)
    facts = pd.concat([scan.facts for _, scan in parts], ignore_index=True)
    facts["content"] = [f"{row:064x}" for row in range(400)]
    thumbnails = np.concatenate([scan.thumbnails for _, scan in parts])
    test = table["split"] == "test"
    facts["format"] = np.where(test & (table["generator"] == "b"), "PNG", "JPEG")
    rare = table.index[test & (table["generator"] == "a")][:21]
    table.loc[rare, "generator"] = "rare"  # leaves 29 of a
    audit = audit_shortcuts(table, ImageScan(facts, thumbnails))
    formats = audit[audit["shortcut"] == "file format"].set_index(["split", "generator"])
    assert formats.index.tolist() == [("train", ""), ("test", ""), ("test", "b")]
    assert formats["auroc"].tolist() == pytest.approx([0.5, 0.75, 1.0], abs=0.02)
    assert formats["warn"].tolist() == [False, True, True]
    assert formats["images"].tolist() == [200, 200, 150]


def test_of_many_images_some_are_drawn_of_both_classes() -> None:
    table, scan = data()
    table = table.assign(label=np.where(np.arange(COUNT) % 20 == 0, "synthetic", "real"))
    scan.facts["format"] = np.where(table["label"] == "real", "JPEG", "PNG")
    audit = audit_shortcuts(table, scan, most_images=100)
    assert set(audit["images"]) == {100}
    assert set(audit["note"]) == {"100 images drawn at random of 400"}
    # All 20 synthetic images are among them, or there would be no figure.
    assert audit["auroc"][0] == 1.0
    others = audit_shortcuts(table, scan, seed=1, most_images=100)
    assert not others["auroc"].equals(audit["auroc"])


def test_the_same_seed_gives_the_same_figures() -> None:
    pd.testing.assert_frame_equal(audit_shortcuts(*data(), seed=3), audit_shortcuts(*data(), seed=3))


def test_rows_that_begin_anywhere() -> None:
    table, scan = data()
    kept = table[::2][10:].index.union(table[1::2][10:].index)
    later = ImageScan(scan.facts.loc[kept], scan.thumbnails[kept])
    expected = audit_shortcuts(table.loc[kept], scan)
    pd.testing.assert_frame_equal(audit_shortcuts(table.loc[kept], later), expected)


def test_no_image() -> None:
    table, scan = data()
    assert audit_shortcuts(table[:0], ImageScan(scan.facts[:0], scan.thumbnails[:0])).empty


@pytest.mark.skipif(not FACES.is_dir(), reason="needs the folder of real and synthetic faces")
def test_faces_have_no_trivial_shortcut_but_not_none() -> None:
    # Their README: one format and table; a linear probe on the thumbnails reaches 0.55 to 0.62.
    manifest = read_manifest(FACES / "manifest.csv")
    table = manifest.split("val")
    of = aurocs(table, scan_images(Manifest(table, FACES, "")))
    assert of["file format"] == of["JPEG quantisation table"] == 0.5
    assert 0.5 < of["thumbnail"] < 0.65
