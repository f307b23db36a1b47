"""Each finding: its sentence, its rows, and when there is none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from saliency_entropy.check.findings import (
    ERRORS,
    FILE_FAULTS,
    WARNINGS,
    Finding,
    base_name_findings,
    duplicate_findings,
    generator_findings,
    image_findings,
    map_findings,
    missing_file_findings,
    shortcut_findings,
    sorted_findings,
    split_findings,
    table_findings,
    unread_findings,
)
from saliency_entropy.check.scan import ImageScan, MapScan
from saliency_entropy.data.table import Manifest

COLUMNS = ["path", "label", "split", "generator", "source", "human_map"]


def manifest(*rows: tuple[str, ...]) -> Manifest:
    """A manifest of these (path, label, split, generator, source, human_map), the last of them left out."""
    filled = [(*row, *[""] * (len(COLUMNS) - len(row))) for row in rows]
    return Manifest(pd.DataFrame(filled, columns=COLUMNS, dtype="str"), Path("/root"), "m.csv")


def many(count: int, label: str, split: str, generator: str = "", human_map: str = "") -> list[tuple[str, ...]]:
    return [(f"{split}/{label}{generator}{at}.png", label, split, generator, "", human_map) for at in range(count)]


def image_scan(*facts: tuple[str, str]) -> ImageScan:
    """A scan whose rows have these (problem, unusual)."""
    return ImageScan(pd.DataFrame(facts, columns=["problem", "unusual"]), np.zeros((len(facts), 12, 12, 3), np.uint8))


def map_scan(of: dict[int, tuple[str, str, float]], grid: int = 7) -> MapScan:
    """A scan whose rows have these (problem, unusual, entropy)."""
    facts = pd.DataFrame(list(of.values()), columns=["problem", "unusual", "entropy"], index=list(of))
    return MapScan(facts.assign(annotators=1, covered=0.5), np.zeros((len(of), grid, grid), np.float32))


def by_kind(findings: list[Finding]) -> dict[str, Finding]:
    assert len({finding.kind for finding in findings}) == len(findings)
    return {finding.kind: finding for finding in findings}


def reasons(finding: Finding) -> list[str]:
    return [place.reason for place in finding.places]


def test_a_table_that_is_refused_is_one_error_with_a_place_a_fault() -> None:
    (finding,) = table_findings("m.csv: column label must be ...\nm.csv: column split must be ...\n")
    assert (finding.severity, finding.title) == ("error", "The table cannot be used")
    assert reasons(finding) == ["m.csv: column label must be ...", "m.csv: column split must be ..."]
    assert finding.counted_title == "The table cannot be used"


def test_splits_that_lack_images_or_a_label() -> None:
    (finding,) = split_findings(manifest(("a.png", "real", "train"), ("b.png", "real", "test")).table)
    assert (finding.kind, finding.severity) == ("incomplete_split", "error")
    assert reasons(finding) == ["split train has no synthetic image", "split val has no image"]


def test_a_test_split_of_one_label_is_no_fault() -> None:
    table = manifest(*[("a.png", label, split) for split in ("train", "val") for label in ("real", "synthetic")],
                     ("e.png", "synthetic", "test")).table  # fmt: skip
    assert split_findings(table) == []


def test_files_that_are_not_there() -> None:
    faces = manifest(("a, is empty.png", "real", "train"), ("b.png", "real", "val", "", "", "m/1.png;m/2.png"))
    problems = [
        (0, "path", "'a, is empty.png', does not exist"),
        (1, "path", "'b.png', is a link out of the data root"),
        (1, "human_map", "'m/2.png', is empty (0 bytes)"),
    ]
    found = by_kind(missing_file_findings(faces, problems))
    assert list(found) == ["image_missing", "image_outside", "map_empty"]
    assert {finding.severity for finding in found.values()} == {"error"}
    (missing,) = found["image_missing"].places
    assert (missing.rows, missing.where, missing.files) == ((0,), ("row 2",), ("a, is empty.png",))
    assert missing.reason == "does not exist"
    assert found["map_empty"].places[0].files == ("m/2.png",)
    assert found["map_empty"].title == "Human maps that are empty (0 bytes)"


@pytest.mark.parametrize(
    ("said", "kind", "reason"),
    [
        ("is empty (0 bytes); copy it again, or leave it out", "image_empty", "is empty (0 bytes)"),
        ("may not be read (permission denied); give yourself read access", "image_unreadable",
         "may not be read (permission denied)"),
        ("is not an image in a known format (JPEG, PNG); convert it", "image_unknown_format",
         "is not an image in a known format (JPEG, PNG)"),
        ("holds a PNG image under the extension '.jpg'; rename it", "image_misnamed",
         "holds a PNG image under the extension '.jpg'"),
        ("has 9000 x 9000 pixels, more than 64 megapixels; scale it down", "image_oversized",
         "has 9000 x 9000 pixels, more than 64 megapixels"),
        ("has too many pixels, more than 64 megapixels; scale it down", "image_oversized",
         "has too many pixels, more than 64 megapixels"),
        ("is animated (2 frames); save", "image_animated", "is animated (2 frames)"),
        ("has more than 8 bits per channel (mode I;16); convert it", "image_deep",
         "has more than 8 bits per channel (mode I;16)"),
        ("is truncated or damaged (a; b); copy it again", "image_damaged", "is truncated or damaged (a; b)"),
        ("is haunted; call someone", "image_unusable", "is haunted"),
    ],
)  # fmt: skip
def test_images_that_cannot_be_used_by_what_is_said_of_them(said: str, kind: str, reason: str) -> None:
    # The name must not be taken for what is said of it.
    faces = manifest(("good.png", "real", "train"), ("x is animated.png", "real", "train"))
    (finding,) = image_findings(faces, image_scan(("", ""), (f"/root/x is animated.png {said}", "")))
    assert (finding.kind, finding.severity) == (kind, "error")
    assert finding.places[0].where == ("row 3",)
    assert finding.places[0].files == ("x is animated.png",)
    assert finding.places[0].reason == reason


def test_the_last_fault_takes_what_is_left_and_no_kind_is_both_error_and_warning() -> None:
    assert [begins for begins, *_ in FILE_FAULTS.values()].index("") == len(FILE_FAULTS) - 1
    assert ERRORS.keys().isdisjoint(WARNINGS)


def test_unusual_images_are_counted_by_label() -> None:
    faces = manifest(("a.png", "real", "train"), ("b.png", "real", "val"), ("c.png", "synthetic", "test"))
    found = by_kind(image_findings(faces, image_scan(("", "grey;alpha"), ("", ""), ("", "grey"))))
    assert {finding.severity for finding in found.values()} == {"warning"}
    assert found["image_grey"].counted_title == "Grey images (1 real, 1 synthetic): 2"
    assert found["image_alpha"].counted_title == "Images with transparency (1 real, 0 synthetic): 1"
    assert [place.where for place in found["image_grey"].places] == [("row 2",), ("row 4",)]
    assert reasons(found["image_grey"]) == ["real, train", "synthetic, test"]


def test_human_maps_that_cannot_be_used_and_unusual_ones() -> None:
    faces = manifest(
        ("a.png", "real", "train", "", "", "m/a.png;m/a.png.svg"),
        ("b.png", "synthetic", "train", "", "", "m/b.png;m/c.png"),
        ("c.png", "real", "train", "", "", "m/d.png"),
        ("d.png", "synthetic", "val", "", "", "m/e.png"),
    )
    scan = map_scan(
        {
            0: ("/root/m/a.png.svg is truncated or damaged (x); copy it again", "", np.nan),
            1: ("/root/m/b.png; /root/m/c.png is a constant map (every pixel is 0); remove it", "", np.nan),
            2: ("", "other aspect;several annotators;inverted", 3.0),
            3: ("/root/m/e.png is in colour, so its greys are no map; save it, or name it", "image itself", np.nan),
        }
    )
    found = by_kind(map_findings(faces, scan))
    assert list(found) == [
        "map_damaged", "map_colour", "map_constant", "map_inverted", "map_image_itself", "map_other_aspect",
    ]  # fmt: skip
    assert found["map_damaged"].places[0].files == ("m/a.png.svg",)
    assert found["map_constant"].places[0].files == ("m/b.png;m/c.png",)
    assert found["map_constant"].places[0].reason == "is a constant map (every pixel is 0)"
    assert found["map_colour"].severity == "error"
    assert reasons(found["map_colour"]) == ["is in colour, so its greys are no map"]
    inverted = "Human maps that look inverted (a bright ground with dark marks) (1 real, 0 synthetic): 1"
    assert found["map_inverted"].counted_title == inverted
    assert reasons(found["map_image_itself"]) == ["synthetic, val"]


def test_no_training_image_with_a_map() -> None:
    faces = manifest(("a.png", "real", "train"), ("b.png", "real", "val", "", "", "m.png"))
    assert "no_maps" in by_kind(map_findings(faces, map_scan({1: ("", "", 3.0)})))


def test_few_maps_of_one_label() -> None:
    faces = manifest(
        *many(4, "real", "train", human_map="m.png"),
        *many(2, "synthetic", "train", human_map="m.png"),
        *many(3, "synthetic", "train", "gan"),
        *many(9, "real", "test"),
    )
    found = by_kind(map_findings(faces, map_scan({0: ("", "", 3.0)})))
    assert reasons(found["few_maps"]) == ["40% of the synthetic training images have a map"]


@pytest.mark.parametrize(("entropy", "told"), [(2.4, True), (2.6, False), (3.4, False), (3.6, True)])
def test_maps_of_another_entropy_than_the_papers(entropy: float, told: bool) -> None:
    faces = manifest(*many(2, "real", "train", human_map="m.png"))
    scan = map_scan({0: ("", "", entropy - 0.2), 1: ("", "", entropy + 0.2)})
    found = by_kind(map_findings(faces, scan))
    assert ("map_entropy" in found) == told
    if told:
        cells = {2.4: "11.0", 3.6: "36.6"}[entropy]  # exp(2.4), exp(3.6)
        assert f"{entropy:.2f} nats ({cells} of 49 cells), the paper's about 3.0 (20.1 cells)" in str(
            reasons(found["map_entropy"])
        )


def test_the_papers_entropy_is_of_its_own_grid() -> None:
    faces = manifest(*many(1, "real", "train", human_map="m.png"))
    assert map_findings(faces, map_scan({0: ("", "", 4.5)}, grid=14)) == []


def test_duplicates_by_what_they_cross() -> None:
    rows = [(f"{at}.png", "real", "train") for at in range(14)]
    rows[1] = ("1.png", "synthetic", "test")  # the same file as 0
    rows[3] = ("3.png", "real", "val")  # the same pixels as 2
    rows[5] = ("5.png", "synthetic", "train")  # near 4
    rows[7] = ("7.png", "real", "test")  # near 6
    faces = manifest(*rows)
    same, pixels = "same file", "same picture"
    duplicates = pd.DataFrame(
        [
            (0, 0, same, 0, 0, 0), (0, 1, same, 0, 0, 0),
            (1, 2, pixels, 0, 2, 2), (1, 3, pixels, 0, 3, 2),
            (2, 4, "near", 3, 4, 4), (2, 5, "near", 3, 5, 5),
            (3, 6, "near", 3, 6, 6), (3, 7, "near", 3, 7, 7),
            (4, 8, same, 0, 8, 8), (4, 9, same, 0, 8, 8), (4, 10, same, 0, 8, 8),
            (5, 11, "near", 5, 11, 11), (5, 12, "near", 5, 12, 12),
        ],
        columns=["group", "row", "kind", "distance", "file", "picture"],
    )  # fmt: skip
    found = by_kind(duplicate_findings(faces, duplicates))
    assert {kind: (finding.severity, [place.rows for place in finding.places]) for kind, finding in found.items()} == {
        "same_picture_both_labels": ("error", [(0, 1)]),
        "same_picture_across_splits": ("error", [(2, 3)]),
        "near_duplicates_both_labels": ("warning", [(4, 5)]),
        "near_duplicates_across_splits": ("warning", [(6, 7)]),
        "same_picture_in_split": ("warning", [(8, 9, 10)]),
        "near_duplicates_in_split": ("warning", [(11, 12)]),
    }
    assert all(finding.pictures for finding in found.values())
    assert reasons(found["same_picture_both_labels"]) == ["the same file: 1 train real, 1 test synthetic"]
    assert reasons(found["same_picture_across_splits"]) == ["the same pixels: 1 train real, 1 val real"]
    assert found["same_picture_in_split"].places[0].where == ("row 10", "row 11", "row 12")


def test_a_group_names_one_image_of_each_kind_first() -> None:
    faces = manifest(*[(f"{at}.png", "real", "train") for at in range(3)], ("3.png", "real", "test"))
    duplicates = pd.DataFrame({"group": 0, "row": range(4), "kind": "same file", "distance": 0})
    (finding,) = duplicate_findings(faces, duplicates.assign(file=0, picture=0))
    assert finding.places[0].rows == (0, 3, 1, 2)
    assert finding.places[0].reason == "the same file: 3 train real, 1 test real"


def test_generators_without_a_name_and_with_few_test_images() -> None:
    faces = manifest(
        *many(30, "synthetic", "test", "enough"), *many(29, "synthetic", "test", "few"),
        *many(1, "synthetic", "test", "one"), *many(29, "real", "test"), ("x.png", "synthetic", "train"),
    )  # fmt: skip
    found = by_kind(generator_findings(faces))
    assert reasons(found["few_test_images"]) == [
        "few has 29 test images",
        "one has 1 test image",
        "there are 29 real test images, against which every generator is measured",
    ]
    assert [place.files for place in found["unnamed_generator"].places] == [("x.png",)]
    assert reasons(found["unnamed_generator"]) == ["split train"]


def test_a_generator_that_is_probably_misspelt() -> None:
    faces = manifest(*many(1, "synthetic", "train", "stylegan2"), *many(1, "synthetic", "test", "stlyegan2"))
    finding = by_kind(generator_findings(faces))["misspelt_generator"]
    assert (finding.severity, finding.counted_title) == ("warning", "Generators of the test images that look misspelt")
    assert reasons(finding) == ["test generator 'stlyegan2' looks like a misspelling of training generator 'stylegan2'"]


def test_shortcuts_above_the_threshold_those_of_the_training_images_first() -> None:
    audit = pd.DataFrame(
        [
            ("train", "", "file size", 0.71, 1200, True, ""),
            ("test", "", "image size", 0.65, 90, True, ""),
            ("test", "gan", "file format", 1.0, 90, True, ""),
            ("test", "", "thumbnail", 0.59, 90, False, ""),
        ],
        columns=["split", "generator", "shortcut", "auroc", "images", "warn", "note"],
    )
    (finding,) = shortcut_findings(audit)
    assert (finding.kind, finding.severity) == ("shortcut", "warning")
    assert reasons(finding) == [
        "file size alone tells the synthetic train images from the real ones with an AUROC of 0.710 (1,200 images)",
        "file format alone tells the test images of gan from the real ones with an AUROC of 1.000 (90 images)",
        "image size alone tells the synthetic test images from the real ones with an AUROC of 0.650 (90 images)",
    ]
    assert shortcut_findings(audit[~audit["warn"]]) == []


def test_shared_base_names_matter_only_while_no_map_is_named() -> None:
    shared = pd.DataFrame({"name": ["1"], "rows": [[0, 1]]})
    (finding,) = base_name_findings(manifest(("a/1.png", "real", "train"), ("b/1.jpg", "real", "val")), shared)
    assert (reasons(finding), finding.count) == (["2 images are called '1'"], 1)
    assert finding.places[0].files == ("a/1.png", "b/1.jpg")
    named = manifest(("a/1.png", "real", "train", "", "", "m.png"), ("b/1.jpg", "real", "val"))
    assert base_name_findings(named, shared) == []


def test_of_base_names_that_may_never_matter_twenty_are_named() -> None:
    faces = manifest(*[(f"{folder}/{at}.png", "real", "test") for at in range(1200) for folder in "ab"])
    shared = pd.DataFrame({"name": map(str, range(1200)), "rows": [[2 * at, 2 * at + 1] for at in range(1200)]})
    (finding,) = base_name_findings(faces, shared)
    assert len(finding.places) == 20
    assert finding.counted_title == "Images that share a base name: 1,200"


def test_a_thousand_places_are_listed_and_all_counted() -> None:
    faces = manifest(*[(f"{at}.png", "synthetic", "train") for at in range(1500)])
    unnamed = by_kind(generator_findings(faces))["unnamed_generator"]
    grey = by_kind(image_findings(faces, image_scan(*[("", "grey")] * 1500)))["image_grey"]
    gone = by_kind(missing_file_findings(faces, [(at, "path", f"'{at}.png', does not exist") for at in range(1500)]))
    for finding in (unnamed, grey, gone["image_missing"]):
        assert len(finding.places) == 1000
        assert finding.places[-1].files == ("999.png",)
        assert finding.counted_title.endswith(": 1,500")


def test_of_a_picture_that_is_repeated_without_end_a_thousand_rows_are_listed() -> None:
    faces = manifest(*[(f"{at}.png", "real", "train") for at in range(1500)])
    duplicates = pd.DataFrame({"group": 0, "row": range(1500), "kind": "same file", "distance": 0})
    (finding,) = duplicate_findings(faces, duplicates.assign(file=0, picture=0))
    (place,) = finding.places
    assert len(place.rows) == len(place.where) == len(place.files) == 1000
    assert place.more == 500
    assert place.reason == "the same file: 1500 train real"


def test_files_that_are_not_read() -> None:
    faces = manifest(("a.png", "real", "train"))
    assert unread_findings(faces) == []
    left_out = ((".jxl", 1), (".tif", 3000), ("hidden", 2), ("without extension", 1))
    (finding,) = unread_findings(replace(faces, unread=left_out))
    assert (finding.kind, finding.severity) == ("unread_files", "warning")
    assert reasons(finding) == [
        "1 .jxl file is not read",
        "3,000 .tif files are not read",
        "2 hidden files are not read",
        "1 file is without extension and not read",
    ]
    assert finding.remedy.startswith("convert the images among them to JPEG")


def test_errors_come_before_warnings() -> None:
    kinds = [Finding(kind, severity, "", "", 0, ()) for kind, severity in
             (("a", "warning"), ("b", "error"), ("c", "warning"), ("d", "error"))]  # fmt: skip
    assert [finding.kind for finding in sorted_findings(kinds)] == ["b", "d", "a", "c"]
