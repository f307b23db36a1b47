"""Duplicates: made ones are found, others are not, and the fast search finds what comparing all pairs finds."""

import logging
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from saliency_entropy.check import duplicates as module
from saliency_entropy.check.duplicates import crossing_groups, find_duplicates, shared_base_names
from saliency_entropy.check.scan import ImageScan, scan_images
from saliency_entropy.data import read_manifest
from saliency_entropy.data.table import Manifest

FACES = Path(__file__).parents[3] / "shared" / "data" / "faces"


def table_of(paths: list[str], splits: str | list[str] = "train", labels: str | list[str] = "real") -> pd.DataFrame:
    return pd.DataFrame({"path": paths, "label": labels, "split": splits, "generator": "", "human_map": ""})


def scan_of(hashes: list[int] | np.ndarray, thumbnails: np.ndarray | None = None, **columns: object) -> ImageScan:
    """A scan of pictures that are all different, but for what ``columns`` says."""
    count = len(hashes)
    digests = [f"{number:064x}" for number in range(count)]
    facts = {"problem": "", "content": digests, "pixels": digests, "phash": np.array(hashes, np.uint64), **columns}
    if thumbnails is None:
        thumbnails = np.tile(np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8), (count, 1, 1, 1))
    return ImageScan(pd.DataFrame(facts), thumbnails)


def found(hashes: list[int], thumbnails: np.ndarray | None = None, **columns: object) -> pd.DataFrame:
    scan = scan_of(hashes, thumbnails, **columns)
    return find_duplicates(table_of([f"{row}.png" for row in range(len(hashes))]), scan)


def picture(seed: int) -> Image.Image:
    """Noise of all scales, the coarse the stronger, as in a photograph."""
    random = np.random.default_rng(seed)
    pixels = np.full((160, 160, 3), 110.0)
    for side in (3, 6, 12, 24, 48):
        noise = Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8))
        pixels += (np.asarray(noise.resize((160, 160), Image.Resampling.BICUBIC)) - 127.5) * 1.5 / side
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def compressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def test_every_kind_in_one_group(tmp_path: Path) -> None:
    original = picture(0)
    original.save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    original.save(tmp_path / "c.bmp")
    compressed(original, 40).save(tmp_path / "d.png")
    picture(1).save(tmp_path / "e.png")
    table = table_of(["e.png", "c.bmp", "a.png", "b.png", "d.png"])
    groups = find_duplicates(table, scan_images(Manifest(table, tmp_path, ""), 1))
    assert groups["group"].tolist() == [0] * 4
    assert groups["row"].tolist() == [1, 2, 3, 4]
    # Of the first, c.bmp: its closest is another file of the same picture.
    assert groups["kind"].tolist() == ["same picture", "same picture", "same picture", "near"]
    assert groups["distance"].tolist()[:3] == [0, 0, 0]
    assert groups["file"].tolist() == [1, 2, 2, 4]
    assert groups["picture"].tolist() == [1, 1, 1, 4]


def test_a_repeated_file_alone(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(0).save(tmp_path / name)
    table = table_of(["a.png", "b.png"])
    groups = find_duplicates(table, scan_images(Manifest(table, tmp_path, ""), 1))
    assert groups["kind"].tolist() == ["same file", "same file"]


@pytest.mark.parametrize(
    "copy",
    [
        lambda image: compressed(image, 30),
        lambda image: image.resize((80, 80), Image.Resampling.LANCZOS),
        lambda image: image.resize((320, 320), Image.Resampling.BICUBIC),
        lambda image: ImageEnhance.Brightness(image).enhance(1.1),
        lambda image: image.crop((2, 2, 158, 158)),
    ],
    ids=["JPEG quality 30", "half the size", "twice the size", "brighter", "cropped"],
)
def test_an_altered_copy_is_near(tmp_path: Path, copy: object) -> None:
    for seed in range(10):
        picture(seed).save(tmp_path / f"{seed}.png")
        copy(picture(seed)).save(tmp_path / f"copy{seed}.png")
    table = table_of([f"{name}{seed}.png" for name in ("", "copy") for seed in range(10)])
    groups = find_duplicates(table, scan_images(Manifest(table, tmp_path, ""), 1))
    assert groups.groupby("group")["row"].agg(list).tolist() == [[seed, seed + 10] for seed in range(10)]
    assert set(groups["kind"]) == {"near"}
    assert groups["distance"].between(0, 8).all()


def test_alike_hashes_of_other_pictures_are_no_duplicates() -> None:
    thumbnails = np.random.default_rng(1).integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
    assert found([5, 5], thumbnails).empty
    assert found([5, 4], thumbnails).empty


def test_alike_thumbnails_of_far_hashes_are_no_duplicates() -> None:
    assert found([0, 2**9 - 1]).empty  # 9 bits
    assert found([0, 2**8 - 1])["distance"].tolist() == [0, 8]


def test_black_and_white_are_no_duplicates_but_two_black_pictures_are() -> None:
    levels = np.array([0, 2, 255], np.uint8)
    thumbnails = np.tile(levels[:, None, None, None], (1, 12, 12, 3))
    assert found([7, 7, 7], thumbnails)["row"].tolist() == [0, 1]


def test_near_of_near_is_one_group_with_distances_to_its_first() -> None:
    hashes = [0, 0xFF, 0xFFFF, 0xFFFFFF << 30]
    groups = found(hashes)
    assert groups["row"].tolist() == [0, 1, 2]
    assert groups["distance"].tolist() == [0, 8, 16]


def test_images_with_a_problem_are_left_out() -> None:
    groups = found([0, 0, 0], problem=["", "a.png is empty", ""], content=["x"] * 3, pixels=["x"] * 3)
    assert groups["row"].tolist() == [0, 2]


def test_rows_that_begin_anywhere() -> None:
    scan = scan_of([9, 0, 1])
    scan = ImageScan(scan.facts.set_axis([3, 5, 8]), scan.thumbnails)
    assert find_duplicates(table_of(["a", "b", "c"]).set_axis([3, 5, 8]), scan)["row"].tolist() == [3, 5, 8]
    assert find_duplicates(table_of(["a", "b"]).set_axis([5, 8]), scan)["row"].tolist() == [5, 8]


def test_no_image_and_no_duplicate() -> None:
    columns = ["group", "row", "kind", "distance", "file", "picture"]
    for hashes in ([], [1], [0, 2**64 - 1]):
        groups = found(hashes)
        assert groups.empty
        assert list(groups) == columns
        crossing = crossing_groups(table_of([""] * len(hashes)), groups)
        assert crossing.empty
        assert list(crossing) == ["group", "kind", "splits", "labels", "rows"]


@pytest.mark.parametrize("seed", range(5))
def test_the_search_finds_what_all_pairs_find_each_once(seed: int) -> None:
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2**64, 40, dtype=np.uint64)
    # Each with copies of 0 to 13 changed bits, wherever these lie.
    for _ in range(14):
        flips = random.permuted(np.tile(np.arange(64, dtype=np.uint64), (40, 1)), axis=1)[:, : random.integers(0, 14)]
        changed = hashes[:40] ^ np.bitwise_or.reduce(np.uint64(1) << flips, axis=1, initial=np.uint64(0))
        hashes = np.concatenate([hashes, changed])
    first, second = np.triu_indices(len(hashes), 1)
    near = np.array([bin(int(a) ^ int(b)).count("1") for a, b in zip(hashes[first], hashes[second], strict=True)])
    expected = {(int(a), int(b)) for a, b in zip(first[near <= 8], second[near <= 8], strict=True)}
    pairs = [
        (min(pair), max(pair))
        for some in module._near_hashes(hashes)
        for pair in zip(*(ends.tolist() for ends in some), strict=True)
    ]
    assert len(expected) > 20
    assert set(pairs) == expected
    assert len(pairs) == len(expected)


def test_few_pairs_at_a_time_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = np.random.default_rng(0).integers(0, 2**8, 80).astype(np.uint64).tolist()
    whole = found(hashes)
    assert len(whole) > 70
    for name in ("PAIRS", "COMPARED"):
        monkeypatch.setattr(module, name, 7)
    pd.testing.assert_frame_equal(found(hashes), whole)


def test_a_flood_of_black_pictures() -> None:
    # Different files of nearly black pictures share a hash; all their pairs would be 200,000,000.
    count = 20_000
    thumbnails = np.random.default_rng(0).integers(0, 2, (count + 1, 12, 12, 3), dtype=np.uint8)
    begun = time.perf_counter()
    groups = found([2**63] * count + [0xFFFF], thumbnails)
    assert time.perf_counter() - begun < 20
    assert groups["group"].tolist() == [0] * count
    assert groups["row"].tolist() == list(range(count))


def test_too_many_different_pictures_of_one_hash_are_said(caplog: pytest.LogCaptureFixture) -> None:
    thumbnails = np.random.default_rng(0).integers(0, 256, (20, 12, 12, 3), dtype=np.uint8)
    thumbnails[1] = thumbnails[0]
    with caplog.at_level(logging.WARNING):
        assert found([3] * 20, thumbnails)["row"].tolist() == [0, 1]
    assert "3 images share a perceptual hash with more than 16 different pictures" in caplog.text


def test_groups_across_splits_and_labels() -> None:
    letters = list("aabbccdde")
    table = table_of(
        [f"{row}.png" for row in range(9)],
        ["train", "train", "train", "test", "val", "val", "train", "val", "test"],
        ["real", "real", "real", "real", "real", "synthetic", "real", "synthetic", "real"],
    )
    scan = scan_of([0, 0, 2**20 - 1, 2**20 - 1, 2**40, 2**40, 2**63 - 1, 2**63 - 1, 2**64 - 1][:9], pixels=letters)
    scan.facts["phash"] = np.repeat(np.random.default_rng(0).integers(0, 2**64, 5, dtype=np.uint64), 2)[:9]
    crossing = crossing_groups(table, find_duplicates(table, scan))
    expected = pd.DataFrame(
        {
            "group": [1, 2, 3],
            "kind": "same picture",
            "splits": ["test+train", "val", "train+val"],
            "labels": ["real", "real+synthetic", "real+synthetic"],
            "rows": [[2, 3], [4, 5], [6, 7]],
        }
    )
    pd.testing.assert_frame_equal(crossing, expected)


def test_the_kind_that_crosses_is_not_that_of_the_whole_group() -> None:
    # Rows 0 and 1 are one file in train; 2 is near, in test; and 3, in val, is the same file as 2.
    table = table_of(["a", "b", "c", "d"], ["train", "train", "test", "val"])
    scan = scan_of([0, 0, 1, 1], content=list("xxyy"), pixels=list("xxyy"))
    groups = find_duplicates(table, scan)
    assert groups["kind"].tolist() == ["same file", "same file", "near", "near"]
    assert crossing_groups(table, groups)["kind"].tolist() == ["same file"]
    table["split"] = ["train", "train", "test", "test"]
    assert crossing_groups(table, groups)["kind"].tolist() == ["near"]
    scan.facts["pixels"] = list("xxxx")
    assert crossing_groups(table, find_duplicates(table, scan))["kind"].tolist() == ["same picture"]


def test_shared_base_names() -> None:
    table = table_of(["a/1.png", "b/1.jpg", "1.x.png", "c/1.x", "d/.png", "2.png", "e/f/2", "g.png/3"])
    shared = shared_base_names(table.set_axis(range(10, 18)))
    assert shared.to_dict("list") == {"name": ["1", "2"], "rows": [[10, 11, 13], [15, 16]]}
    assert shared_base_names(table[:1]).empty
    table["split"] = ["train", "test", "train", "val", "val", "train", "train", "test"]
    assert shared_base_names(table, "train").to_dict("list") == {"name": ["2"], "rows": [[5, 6]]}


@pytest.mark.skipif(not FACES.is_dir(), reason="needs the folder of real and synthetic faces")
def test_different_faces_are_no_duplicates() -> None:
    # All but StarGANv2's, which shares references among its images: the calibration in the module's docstring.
    manifest = read_manifest(FACES / "manifest.csv")
    table = manifest.table[manifest.table["generator"] != "starganv2"]
    table = table[table["split"] != "train"]
    assert find_duplicates(table, scan_images(Manifest(table, FACES, ""))).empty
