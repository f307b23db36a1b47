"""What is wrong with a data set, and what is worth knowing before a detector is trained on it.

:data:`ERRORS` would stop a training or make its figures false; what :data:`WARNINGS` tell of may be intended.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Literal

import numpy as np
import pandas as pd

from saliency_entropy.check.duplicates import crossing_groups
from saliency_entropy.check.scan import ImageScan, MapScan
from saliency_entropy.check.shortcuts import WARN
from saliency_entropy.data.group_names import near_misses
from saliency_entropy.data.human_maps.implausible import KINDS
from saliency_entropy.data.listed_files import OUTSIDE_ROOT
from saliency_entropy.data.table import LABELS, SPLITS, Manifest, map_names
from saliency_entropy.errors import SHOWN
from saliency_entropy.study.tables import MIN_IMAGES

PAPER_ENTROPY = 3.0  # nats, the mean of the paper's human maps on a 7 x 7 grid
PAPER_GRID = 7
ENTROPY_MARGIN = 0.5  # nats of difference from the paper that are worth a look; a uniform map is 0.9 away
MOST_PLACES = 1000  # listed by a finding, and images listed by a place; more of them have one cause
LOW_COVERAGE = 0.5  # share of training images with a map below which the map terms lack most of the batch


@dataclass(frozen=True)
class Place:
    """Where something was found.

    Attributes:
        rows: rows of the manifest's table, from 0, the first :data:`MOST_PLACES`; none where no row is at fault.
        where: the same rows, as the user counts them (``row 14``).
        files: the table's names of these images, or of the map.
        reason: what was found there.
        more: the number of rows that are not listed.
    """

    rows: tuple[int, ...] = ()
    where: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    reason: str = ""
    more: int = 0


@dataclass(frozen=True)
class Finding:
    """One kind of fault, and where it was found.

    Attributes:
        kind: a word for programs, such as ``image_missing``.
        severity: ``error`` or ``warning``.
        title: the fault, in words.
        remedy: what to do.
        count: the number of places, including those that are not listed.
        places: the gravest first, at most :data:`MOST_PLACES`.
        pictures: whether the images of a place are worth looking at side by side or, of a map, beside it.
    """

    kind: str
    severity: Literal["error", "warning"]
    title: str
    remedy: str
    count: int
    places: tuple[Place, ...]
    pictures: bool = False

    @property
    def counted_title(self) -> str:
        """The title with the number of places, where they are rows."""
        rows = any(place.rows for place in self.places)
        return f"{self.title}: {self.count:,}" if rows else self.title


COPY_AGAIN = "copy them again, or remove them from the table"
# A word for each reason why a file cannot be used -> how the sentences about it begin after the file's name, the end
# of its title, and what to do. The first that fits counts.
FILE_FAULTS = {
    "missing": (r"does not exist", "that do not exist", "copy them there, or remove them from the table"),
    "empty": (r"is empty", "that are empty (0 bytes)", COPY_AGAIN),
    "outside": (
        "|".join(OUTSIDE_ROOT),
        "that lie outside the data root",
        "copy them under the data root, or set data.root to a folder above them",
    ),
    "not_a_file": (r"is not a file", "that are not files", "name files, or remove them from the table"),
    "unreadable": (
        r"may not be read|cannot be read|cannot be looked at",
        "that cannot be read",
        "give yourself read access, or copy them again",
    ),
    "unknown_format": (
        r"is not an image in a known format|is a compressed SVG",
        "in an unknown format",
        "convert them to JPEG, PNG, WebP or BMP, all images of both labels in the same way",
    ),
    "misnamed": (
        r"holds a\w? \w+ image under the extension",
        "whose extension does not match their format",
        "rename them to match their format",
    ),
    "oversized": (
        r"has (?:too many|\d+ x \d+) pixels",
        "with too many pixels",
        "scale them down, or remove them from the table",
    ),
    "animated": (r"is animated", "that are animated", "save the intended frame as a still image"),
    "deep": (
        r"has more than 8 bits",
        "with more than 8 bits per channel",
        "convert them to 8 bits, all images of both labels in the same way",
    ),
    "damaged": (r"is truncated or damaged", "that are truncated or damaged", COPY_AGAIN),
    "colour": (
        r"is in colour",
        "in colour",
        "save them in grey or, if they are heat maps, name their colour map in matplotlib: "
        "+data.human_maps.colormap=jet",
    ),
    "constant": (
        r"is a constant map",
        "that are constant, so that they mark nothing",
        "remove them from column human_map; if the blur or the grid made them constant, change that",
    ),
    "unusable": ("", "that cannot be used", "mend them as their reasons say, or remove them from the table"),
}

# Kind of finding -> its title and what to do. Titles of unusual files get their counts by label.
KEEP_ONE = "keep it where it belongs, and remove the other rows"
ERRORS = {
    "table": ("The table cannot be used", "mend it; nothing else could be checked before that"),
    "incomplete_split": (
        "Splits that lack images",
        "a study needs train, val and test images, of both labels in train and val: add rows",
    ),
    **{f"image_{fault}": (f"Images {title}", remedy) for fault, (_, title, remedy) in FILE_FAULTS.items()},
    **{f"map_{fault}": (f"Human maps {title}", remedy) for fault, (_, title, remedy) in FILE_FAULTS.items()},
    "same_picture_both_labels": ("The same picture as real and as synthetic", KEEP_ONE),
    "same_picture_across_splits": ("The same picture in several splits", KEEP_ONE),
}
LOOK_ACROSS = "look at them: if they show the same picture, keep one, or move all of them into one split"
WARNINGS = {
    "image_cmyk": (
        "Images in CMYK",
        "convert them yourself if colours matter: they become RGB by the plain formula, without their colour profile",
    ),
    "image_palette": (
        "Images with a palette",
        "see that both labels have them alike: so few colours are a trace of how a file was stored, which stays in RGB",
    ),
    "image_alpha": (
        "Images with transparency",
        "flatten them if they need a background: the alpha channel is dropped, and the colours under it become visible",
    ),
    "image_exif_rotated": (
        "Images that are turned upright as their EXIF says",
        "see that their human maps were drawn on the upright image",
    ),
    "image_grey": (
        "Grey images",
        "see that both labels have them alike: otherwise colour alone tells the labels apart",
    ),
    "image_several_pictures": (
        "JPEG files that hold further pictures",
        "see that the first is the photograph: the others are not used",
    ),
    "map_inverted": (f"Human maps that {KINDS['inverted']}", "invert them, if what was marked is dark in them"),
    "map_bright_border": (f"Human maps that {KINDS['bright border']}", "see that they are no frames, and not inverted"),
    "map_full_rectangle": (f"Human maps that {KINDS['full rectangle']}", "leave them out, if they mark nothing in it"),
    "map_image_itself": (f"Human maps that {KINDS['image itself']}", "name the files of the maps, not of the images"),
    "map_same_map": (f"Human maps that {KINDS['same map']}", "name each image's own, unless one is to stand for all"),
    "map_narrow_range": (
        "Human maps that use a small part of the levels from 0 to 255",
        "nothing, if they were stored so (a mask as 0/1, strokes drawn with some transparency): each file is scaled to "
        "its own range. If faint was to mean less certain, that is lost; a map that marks nothing must be one level",
    ),
    "map_other_aspect": (
        "Human maps whose aspect ratio differs from their image's",
        "see that the map is of this image, and of the whole of it: both are squashed to the same square",
    ),
    "no_maps": (
        "No training image has a human map",
        "CYBORG, HSEB and DROID + CYBORG need human maps: add column human_map, use data.template_maps=true for "
        "aligned faces, or train methods that need no maps",
    ),
    "few_maps": (
        f"Fewer than {LOW_COVERAGE:.0%} of a label's training images have a human map",
        "terms that compare with human maps see only images that have one: add maps, or keep this in mind when "
        "comparing methods",
    ),
    "map_entropy": (
        "The entropy of the human maps differs from the paper's",
        "nothing, if this is intended: HSEB draws the CAMs to this mean. Thin strokes become wider with "
        "data.human_maps.blur",
    ),
    "near_duplicates_both_labels": ("Nearly the same picture as real and as synthetic", LOOK_ACROSS),
    "near_duplicates_across_splits": ("Nearly the same picture in several splits", LOOK_ACROSS),
    "same_picture_in_split": (
        "The same picture repeated in a split",
        "it counts more than once there: remove all rows but one, unless the repetition is intended",
    ),
    "near_duplicates_in_split": (
        "Nearly the same picture repeated in a split",
        "look at them: a picture that is repeated counts more than once",
    ),
    "shortcut": (
        f"Shortcuts that alone reach an AUROC above {WARN}",
        "store and crop real and synthetic images in the same way, or state this limit with every result",
    ),
    "unnamed_generator": (
        "Synthetic images without a generator",
        "fill in column generator: without it, no test image counts as of an unseen generator",
    ),
    "misspelt_generator": (
        "Generators of the test images that look misspelt",
        "correct column generator: spelt otherwise than in training, a generator counts as unseen",
    ),
    "few_test_images": (
        f"Fewer than {MIN_IMAGES} test images",
        "add test images: with so few, the report of a study gives no AUROC by generator",
    ),
    "shared_base_names": (
        "Images that share a base name",
        "nothing, unless human maps are to be found by base name (data.source.maps): then rename one of each",
    ),
    "unread_files": (
        "Files that are not read",
        "convert the images among them to JPEG, PNG, WebP or BMP, all images of both labels in the same way",
    ),
}


def table_findings(message: str) -> list[Finding]:
    """The faults that a reader names when it refuses a table, one a line of its message."""
    return _general_finding("table", [line for line in message.splitlines() if line.strip()])


def unread_findings(manifest: Manifest) -> list[Finding]:
    """Files in the folder of the images that its reader left out."""
    reasons = []
    for kind, number in manifest.unread:
        files = "file is" if number == 1 else "files are"
        if kind == "without extension":
            reasons.append(f"{number:,} {files} without extension and not read")
        else:
            reasons.append(f"{number:,} {kind} {files} not read")
    return _general_finding("unread_files", reasons)


def split_findings(table: pd.DataFrame) -> list[Finding]:
    """Splits without images, and a training or validation set of one class."""
    reasons = []
    for split in SPLITS:
        labels = set(table["label"][table["split"] == split])
        if not labels:
            reasons.append(f"split {split} has no image")
        elif split != "test":
            reasons += [f"split {split} has no {label} image" for label in LABELS if label not in labels]
    return _general_finding("incomplete_split", reasons)


def missing_file_findings(manifest: Manifest, problems: Sequence[tuple[int, str, str]]) -> list[Finding]:
    """The findings of :func:`~saliency_entropy.data.listed_files.file_problems`."""
    findings = []
    for column in ("path", "human_map"):
        sentences = [(row, sentence) for row, named, sentence in problems if named == column]
        findings += _file_findings(manifest, column, sentences, repr)
    return findings


def image_findings(manifest: Manifest, scan: ImageScan) -> list[Finding]:
    """Images that cannot be used, and those that are unusual."""
    return _scan_findings(manifest, "path", scan.facts)


def map_findings(manifest: Manifest, scan: MapScan) -> list[Finding]:
    """Human maps that cannot be used, those that are unusual, and how many images have one."""
    return [
        *_scan_findings(manifest, "human_map", scan.facts),
        *_coverage_findings(manifest.table),
        *_entropy_findings(scan),
    ]


def duplicate_findings(manifest: Manifest, duplicates: pd.DataFrame) -> list[Finding]:
    """Pictures that are in the data set more than once, of the table of
    :func:`~saliency_entropy.check.duplicates.find_duplicates`."""
    crossing = crossing_groups(manifest.table, duplicates)
    inside = duplicates[~duplicates["group"].isin(crossing["group"])]
    inside = inside.groupby("group").agg(kind=("kind", "first"), rows=("row", list))
    both_labels = crossing["labels"].str.contains("+", regex=False)
    extents = (
        ("both_labels", crossing[both_labels]),
        ("across_splits", crossing[~both_labels]),
        ("in_split", inside),
    )
    findings = []
    for extent, groups in extents:
        near = groups["kind"] == "near"
        for kind, alike in (("same_picture", groups[~near]), ("near_duplicates", groups[near])):
            places = (_group_place(manifest, *group) for group in zip(alike["rows"], alike["kind"], strict=True))
            findings += _finding(f"{kind}_{extent}", places, len(alike))
    return findings


def base_name_findings(manifest: Manifest, shared: pd.DataFrame) -> list[Finding]:
    """The images of :func:`~saliency_entropy.check.duplicates.shared_base_names`, which lie in different folders, as
    long as the table names no map: one could be joined to them."""
    if (manifest.table["human_map"] != "").any():
        return []
    # A few examples are enough of what may never matter.
    examples = islice(zip(shared["name"], shared["rows"], strict=True), SHOWN)
    places = (_place(manifest, rows, f"{len(rows):,} images are called {name!r}") for name, rows in examples)
    return _finding("shared_base_names", places, len(shared))


def generator_findings(manifest: Manifest) -> list[Finding]:
    """Synthetic images without a generator, and generators with few test images."""
    table = manifest.table
    unnamed = table.index[(table["label"] == "synthetic") & (table["generator"] == "")]
    places = (_place(manifest, [row], f"split {table.at[row, 'split']}") for row in unnamed)
    test = table[table["split"] == "test"]
    counts = test[(test["label"] == "synthetic") & (test["generator"] != "")].groupby("generator").size()
    reasons = [
        f"{generator} has {_image_count(count, 'test')}" for generator, count in counts.items() if count < MIN_IMAGES
    ]
    real = int((test["label"] == "real").sum())
    if 0 < real < MIN_IMAGES:
        reasons.append(f"there are {_image_count(real, 'real test')}, against which every generator is measured")
    return [
        *_finding("unnamed_generator", places, len(unnamed)),
        *_general_finding("misspelt_generator", near_misses(table)),
        *_general_finding("few_test_images", reasons),
    ]


def shortcut_findings(audit: pd.DataFrame) -> list[Finding]:
    """Traits that tell the labels apart and say next to nothing about the picture, of the table of
    :func:`~saliency_entropy.check.shortcuts.audit_shortcuts`."""
    reasons = []
    warned = audit[audit["warn"]].sort_values("auroc", ascending=False)
    # The training images come first, since a detector may learn their shortcuts.
    warned = warned.sort_values("split", key=lambda split: split.map(SPLITS.index), kind="stable")
    for row in warned.to_dict("records"):
        images = (
            f"{row['split']} images of {row['generator']}" if row["generator"] else f"synthetic {row['split']} images"
        )
        reasons.append(
            f"{row['shortcut']} alone tells the {images} from the real ones with an AUROC of {row['auroc']:.3f} "
            f"({_image_count(row['images'])})"
        )
    return _general_finding("shortcut", reasons)


def sorted_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Errors before warnings, each in the order given."""
    return sorted(findings, key=lambda finding: finding.severity != "error")


def _scan_findings(manifest: Manifest, column: str, facts: pd.DataFrame) -> list[Finding]:
    """Files of a column that cannot be used, and those that are unusual."""
    problems = facts["problem"][facts["problem"] != ""]
    findings = _file_findings(manifest, column, problems.items(), lambda name: str(manifest.file(name)))
    words = facts["unusual"].str.split(";").explode()
    kinds = f"{_prefix(column)}_" + words.str.lower().str.replace(r"[ -]", "_", regex=True)
    for kind in WARNINGS:
        table = manifest.table.loc[kinds.index[kinds == kind]]
        cells = zip(table.index, table[column], table["label"], table["split"], strict=True)
        places = (_place(manifest, [row], f"{label}, {split}", (name,)) for row, name, label, split in cells)
        counts = ", ".join(f"{(table['label'] == label).sum()} {label}" for label in LABELS)
        findings += _finding(kind, places, len(table), f" ({counts})")
    return findings


def _file_findings(
    manifest: Manifest, column: str, sentences: Iterable[tuple[int, str]], spelling: Callable[[str], str]
) -> list[Finding]:
    """A finding for each of the :data:`FILE_FAULTS` among the files of a column.

    Args:
        sentences: (row, sentence about its file); a sentence begins with the name of the file.
        spelling: how the sentences spell a name of the table.
    """
    places: dict[str, list[Place]] = {fault: [] for fault in FILE_FAULTS}
    for row, sentence in sentences:
        cell = manifest.table.at[row, column]
        names = map_names(cell) if column == "human_map" else [cell]
        spelled = {spelling(name): name for name in names}
        spelled["; ".join(spelled)] = cell  # a sentence about the merged map names all files
        # The longest: one name may be the beginning of another.
        named = max(filter(sentence.startswith, spelled), key=len, default="")
        reason = sentence.removeprefix(named).lstrip(", ")
        fault = next(fault for fault, (begins, *_) in FILE_FAULTS.items() if re.match(begins, reason))
        # A sentence about a single file ends with what to do, which the finding says once.
        without_remedy = reason.rpartition("; ")[0] or reason
        places[fault].append(_place(manifest, [row], without_remedy, (spelled.get(named, cell),)))
    return [
        finding
        for fault, found in places.items()
        for finding in _finding(f"{_prefix(column)}_{fault}", found, len(found))
    ]


def _coverage_findings(table: pd.DataFrame) -> list[Finding]:
    train = table[table["split"] == "train"]
    if train.empty:
        return []
    has_map = train["human_map"] != ""
    if not has_map.any():
        return _general_finding("no_maps", ["column human_map is empty or absent"])
    share = has_map.groupby(train["label"]).mean()
    low = [label for label in LABELS if label in share and share[label] < LOW_COVERAGE]
    return _general_finding(
        "few_maps", [f"{share[label]:.0%} of the {label} training images have a map" for label in low]
    )


def _entropy_findings(scan: MapScan) -> list[Finding]:
    entropy = scan.facts["entropy"].dropna()
    # The paper's figure holds for its grid alone.
    if entropy.empty or scan.maps.shape[1:] != (PAPER_GRID, PAPER_GRID):
        return []
    mean = float(entropy.mean())
    if abs(mean - PAPER_ENTROPY) <= ENTROPY_MARGIN:
        return []
    return _general_finding(
        "map_entropy",
        [
            f"their mean entropy is {mean:.2f} nats ({np.exp(mean):.1f} of {PAPER_GRID**2} cells), the paper's about "
            f"{PAPER_ENTROPY:.1f} ({np.exp(PAPER_ENTROPY):.1f} cells)"
        ],
    )


def _group_place(manifest: Manifest, rows: Sequence[int], likeness: str) -> Place:
    """The place of a group of pictures; its first rows are one of each split and label."""
    by_kind: dict[str, list[int]] = {}
    for row in rows:
        kind = f"{manifest.table.at[row, 'split']} {manifest.table.at[row, 'label']}"
        by_kind.setdefault(kind, []).append(row)
    order = [row for turn in zip_longest(*by_kind.values()) for row in turn if row is not None]
    counts = ", ".join(f"{len(own)} {kind}" for kind, own in by_kind.items())
    what = {"near": "nearly the same", "same picture": "the same pixels", "same file": "the same file"}[likeness]
    return _place(manifest, order, f"{what}: {counts}")


def _place(manifest: Manifest, rows: Sequence[int], reason: str, files: tuple[str, ...] = ()) -> Place:
    """The place of these rows; their images, if no other files are given."""
    # Not one look-up of all rows: for the many small groups of a large data set that takes a hundred times as long.
    listed = tuple(int(row) for row in rows[:MOST_PLACES])
    files = files or tuple(manifest.table.at[row, "path"] for row in listed)
    return Place(listed, tuple(map(manifest.where, listed)), files, reason, len(rows) - len(listed))


def _general_finding(kind: str, reasons: Sequence[str]) -> list[Finding]:
    """The finding of these faults, which lie in no single row; nothing if there are no faults."""
    return _finding(kind, (Place(reason=reason) for reason in reasons), len(reasons))


def _finding(kind: str, places: Iterable[Place], count: int, title_end: str = "") -> list[Finding]:
    """The finding at ``count`` places; only those that are listed are made. Nothing if there are no places."""
    if not count:
        return []
    title, remedy = ERRORS.get(kind) or WARNINGS[kind]
    return [
        Finding(
            kind,
            "error" if kind in ERRORS else "warning",
            title + title_end,
            remedy,
            count,
            tuple(islice(places, MOST_PLACES)),
            pictures=kind.startswith(("same_picture", "near_duplicates", "map_colour"))
            or (kind in WARNINGS and kind.startswith("map_")),
        )
    ]


def _prefix(column: str) -> str:
    return "image" if column == "path" else "map"


def _image_count(count: int, kind: str = "") -> str:
    return " ".join(word for word in (f"{count:,}", kind, "image" if count == 1 else "images") if word)
