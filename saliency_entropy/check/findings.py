"""What is wrong with a data set, and what is worth knowing before it is trained on.

An error is what would stop a training or make its figures false; a warning is what may be meant so.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Literal

import numpy as np
import pandas as pd

from saliency_entropy.check.duplicates import across
from saliency_entropy.check.scan import ImageScan, MapScan
from saliency_entropy.check.shortcuts import WARN
from saliency_entropy.data.table import LABELS, OUTSIDE_ROOT, SPLITS, Manifest, map_names
from saliency_entropy.errors import SHOWN
from saliency_entropy.study.tables import MIN_IMAGES

PAPER_ENTROPY = 3.0  # nats, of human maps on a 7 x 7 grid: what the paper gives
PAPER_GRID = 7
ENTROPY_MARGIN = 0.5  # nats; further from the paper's is worth a look. Half the distance from 3.0 to a uniform map
MOST_PLACES = 1000  # that a finding lists, and images that a place lists; who has more has one cause for all
LOW_COVERAGE = 0.5  # a smaller share of training images with a map leaves the map terms without most of the batch


@dataclass(frozen=True)
class Place:
    """Where something was found.

    Attributes:
        rows: of the manifest's table, from 0, the first :data:`MOST_PLACES`; none where no row is at fault.
        where: the same, as the user counts them (``row 14``).
        files: what the table calls these images, or the map.
        reason: what was found there.
        more: the number of rows that are not listed.
    """

    rows: tuple[int, ...]
    where: tuple[str, ...]
    files: tuple[str, ...]
    reason: str
    more: int = 0


@dataclass(frozen=True)
class Finding:
    """One kind of fault.

    Attributes:
        kind: a word for programs, such as ``image_missing``.
        severity: ``error`` or ``warning``.
        title: what it is, for people.
        remedy: what to do.
        places: the gravest first, at most :data:`MOST_PLACES`.
        count: of all places, those that are not listed, too.
        pictures: whether the images of a place are worth looking at side by side.
    """

    kind: str
    severity: Literal["error", "warning"]
    title: str
    remedy: str
    places: tuple[Place, ...]
    count: int
    pictures: bool = False

    @property
    def counted_title(self) -> str:
        """The title with the number of places, where they are rows."""
        rows = any(place.rows for place in self.places)
        return f"{self.title}: {self.count:,}" if rows else self.title


@dataclass(frozen=True)
class FileFault:
    """A kind of file that cannot be used: a word for it, how the sentences on it begin after the file's name, what is
    said of such files, and what to do."""

    kind: str
    begins: str
    title: str
    remedy: str


FILE_FAULTS = (
    FileFault("missing", r"does not exist", "that do not exist", "copy them there, or remove them from the table"),
    FileFault("empty", r"is empty", "that are empty (0 bytes)", "copy them again, or remove them from the table"),
    FileFault(
        "outside",
        "|".join(OUTSIDE_ROOT),
        "that lie outside the data root",
        "copy them under the data root, or set data.root to a folder above them",
    ),
    FileFault("not_a_file", r"is not a file", "that are no files", "name files, or remove them from the table"),
    FileFault(
        "unreadable",
        r"may not be read|cannot be read|cannot be looked at",
        "that cannot be read",
        "give yourself read access, or copy them again",
    ),
    FileFault(
        "unknown_format",
        r"is not an image in a known format|is a compressed SVG",
        "in an unknown format",
        "convert them to JPEG, PNG, WebP or BMP, all images of both labels in the same way",
    ),
    FileFault(
        "misnamed",
        r"holds a\w? \w+ image under the extension",
        "whose extension is not that of their format",
        "rename them to what they are",
    ),
    FileFault(
        "oversized",
        r"has (?:too many|\d+ x \d+) pixels",
        "with too many pixels",
        "scale them down, or remove them from the table",
    ),
    FileFault("animated", r"is animated", "that are animated", "save the frame that is meant as a still image"),
    FileFault(
        "deep",
        r"has more than 8 bits",
        "with more than 8 bits per channel",
        "convert them to 8 bits, all images of both labels in the same way",
    ),
    FileFault(
        "damaged",
        r"is truncated or damaged",
        "that are truncated or damaged",
        "copy them again, or remove them from the table",
    ),
    FileFault(
        "constant",
        r"is a constant map",
        "that are constant, so that they mark nothing",
        "remove them from column human_map; if the blur or the grid made them so, change that",
    ),
    FileFault("unusable", "", "that cannot be used", "mend them as their reasons say, or remove them from the table"),
)
# What can be read, and may yet not be what was meant: title, what to do.
UNUSUAL_IMAGES = {
    "CMYK": (
        "Images in CMYK",
        "convert them yourself if colours matter: they become RGB by the plain formula, without their colour profile",
    ),
    "palette": (
        "Images with a palette",
        "see that both labels have them alike: so few colours are a trace of how a file was stored, which stays in RGB",
    ),
    "alpha": (
        "Images with transparency",
        "flatten them if a background is meant: the alpha channel is dropped, and colours that it hid become visible",
    ),
    "EXIF-rotated": (
        "Images that are turned upright as their EXIF says",
        "see that their human maps were drawn on the upright image",
    ),
    "grey": (
        "Grey images",
        "see that both labels have them alike: else colour alone tells the labels apart",
    ),
    "several pictures": (
        "JPEG files that hold further pictures",
        "see that the first is the photograph: the others are not used",
    ),
}
UNUSUAL_MAPS = {
    "colour": (
        "Human maps in colour",
        "see that their grey values (ITU-R 601 luma) are what is meant; colours of a colour map must be converted",
    ),
    "other aspect": (
        "Human maps of another aspect than their image",
        "see that the map is of this image, and of the whole of it: both are squashed to the same square",
    ),
}


def table_finding(message: str) -> Finding:
    """What a reader says of a table that it refuses: a line a fault."""
    (finding,) = _found(
        "table",
        "error",
        "The table cannot be used",
        "mend it; nothing else could be checked before that",
        [_everywhere(line) for line in message.splitlines() if line.strip()],
    )
    return finding


def unread_findings(manifest: Manifest) -> list[Finding]:
    """Files in the folder of the images that its reader left out."""
    return _found(
        "unread_files",
        "warning",
        "Files that are not read",
        "convert what is an image to JPEG, PNG, WebP or BMP, all images of both labels in the same way",
        [_everywhere(_unread(kind, number)) for kind, number in manifest.unread],
    )


def split_findings(table: pd.DataFrame) -> list[Finding]:
    """Splits without images, and a training or validation set of one class."""
    reasons = []
    for split in SPLITS:
        labels = set(table["label"][table["split"] == split])
        if not labels:
            reasons.append(f"split {split} has no image")
        elif split != "test":
            reasons += [f"split {split} has no {label} image" for label in LABELS if label not in labels]
    return _found(
        "incomplete_split",
        "error",
        "Splits that lack images",
        "a study needs train, val and test images, of both labels in train and val: add rows",
        [_everywhere(reason) for reason in reasons],
    )


def missing_file_findings(manifest: Manifest, problems: Sequence[tuple[int, str, str]]) -> list[Finding]:
    """The findings on :func:`~saliency_entropy.data.table.file_problems`."""
    findings = []
    for column in ("path", "human_map"):
        told = []
        for row, _, sentence in (problem for problem in problems if problem[1] == column):
            cell = manifest.table.at[row, column]
            name = next((name for name in _names(column, cell) if sentence.startswith(repr(name))), cell)
            told.append((row, name, sentence.removeprefix(repr(name)).removeprefix(", ")))
        findings += _file_findings(manifest, column, told)
    return findings


def image_findings(manifest: Manifest, scan: ImageScan) -> list[Finding]:
    """Images that cannot be used, and those that are unusual."""
    told = []
    for row, sentence in scan.facts["problem"][scan.facts["problem"] != ""].items():
        name = manifest.table.at[row, "path"]
        told.append((row, name, _after_name(sentence, [str(manifest.file(name))])))
    return [
        *_file_findings(manifest, "path", told),
        *_unusual_findings(manifest, scan.facts, "path", UNUSUAL_IMAGES),
    ]


def map_findings(manifest: Manifest, scan: MapScan) -> list[Finding]:
    """Human maps that cannot be used, unusual ones, and how many images have one."""
    told = []
    for row, sentence in scan.facts["problem"][scan.facts["problem"] != ""].items():
        cell = manifest.table.at[row, "human_map"]
        names = {str(manifest.file(name)): name for name in map_names(cell)}
        whole = "; ".join(names)
        # The longest first: one name may be the beginning of another.
        known = next((text for text in sorted({whole, *names}, key=len, reverse=True) if sentence.startswith(text)), "")
        told.append((row, names.get(known, cell), _after_name(sentence, [known])))
    return [
        *_file_findings(manifest, "human_map", told),
        *_unusual_findings(manifest, scan.facts, "human_map", UNUSUAL_MAPS),
        *_coverage_findings(manifest.table),
        *_entropy_findings(scan),
    ]


def duplicate_findings(manifest: Manifest, duplicates: pd.DataFrame) -> list[Finding]:
    """Pictures that are in the data set more than once.

    Args:
        manifest: whose rows they are.
        duplicates: of :func:`~saliency_entropy.check.duplicates.find_duplicates`.
    """
    crossing = across(manifest.table, duplicates)
    both = crossing["labels"].str.contains("+", regex=False)
    near = crossing["kind"] == "near"
    inside = duplicates[~duplicates["group"].isin(crossing["group"])]
    alike = inside.groupby("group").agg(kind=("kind", "first"), rows=("row", list)).reset_index()
    one_place = "keep it where it belongs, and remove the other rows"
    look = "look at them: if they show the same picture, keep one, or move all of them into one split"
    once = "it counts more than once there: remove all rows but one, unless that is meant"
    look_inside = "look at them: a picture that is repeated counts more than once"
    same, nearly = "The same picture", "Nearly the same picture"
    kinds = (
        ("same_picture_both_labels", "error", f"{same} as real and as synthetic", one_place, crossing[both & ~near]),
        ("same_picture_across_splits", "error", f"{same} in several splits", one_place, crossing[~both & ~near]),
        ("near_duplicates_both_labels", "warning", f"{nearly} as real and as synthetic", look, crossing[both & near]),
        ("near_duplicates_across_splits", "warning", f"{nearly} in several splits", look, crossing[~both & near]),
        ("same_picture_in_split", "warning", f"{same} repeated in a split", once, alike[alike["kind"] != "near"]),
        ("near_duplicates_in_split", "warning", f"{nearly} repeated in a split", look_inside,
         alike[alike["kind"] == "near"]),
    )  # fmt: skip
    findings = []
    for kind, severity, title, remedy, groups in kinds:
        places = (_group(manifest, rows, how) for rows, how in zip(groups["rows"], groups["kind"], strict=True))
        findings += _found(kind, severity, title, remedy, places, len(groups), pictures=True)
    return findings


def base_name_findings(manifest: Manifest, shared: pd.DataFrame) -> list[Finding]:
    """Images in different folders that have the same name, where no map is named yet that could be joined to them.

    Args:
        manifest: whose rows they are.
        shared: of :func:`~saliency_entropy.check.duplicates.shared_base_names`.
    """
    if (manifest.table["human_map"] != "").any():
        return []
    # It may never matter, so that a few examples do.
    places = (
        _at(manifest, rows, f"{len(rows):,} images are called {name!r}")
        for name, rows in islice(zip(shared["name"], shared["rows"], strict=True), SHOWN)
    )
    return _found(
        "shared_base_names",
        "warning",
        "Images that share a base name",
        "nothing, unless human maps are to be found by base name (data.source.maps): then rename one of each",
        places,
        len(shared),
    )


def generator_findings(manifest: Manifest) -> list[Finding]:
    """Synthetic images without a generator, and generators with few test images."""
    table = manifest.table
    unnamed = table.index[(table["label"] == "synthetic") & (table["generator"] == "")]
    findings = _found(
        "unnamed_generator",
        "warning",
        "Synthetic images without a generator",
        "fill in column generator: without it, no test image counts as of an unseen generator",
        (_at(manifest, [row], f"split {table.at[row, 'split']}") for row in unnamed),
        len(unnamed),
    )
    test = table[table["split"] == "test"]
    counts = test[(test["label"] == "synthetic") & (test["generator"] != "")].groupby("generator").size()
    reasons = [f"{generator} has {_images(count, 'test')}" for generator, count in counts.items() if count < MIN_IMAGES]
    real = int((test["label"] == "real").sum())
    if 0 < real < MIN_IMAGES:
        reasons.append(f"there are {_images(real, 'real test')}, against which every generator is measured")
    return findings + _found(
        "few_test_images",
        "warning",
        f"Fewer than {MIN_IMAGES} test images",
        "add some: the report of a study gives no AUROC of their own with so few",
        [_everywhere(reason) for reason in reasons],
    )


def shortcut_findings(audit: pd.DataFrame) -> list[Finding]:
    """What tells the labels apart and says next to nothing of the picture.

    Args:
        audit: of :func:`~saliency_entropy.check.shortcuts.audit_shortcuts`.
    """
    places = []
    warned = audit[audit["warn"]].sort_values("auroc", ascending=False)
    # First those of the training images, which a detector may learn.
    warned = warned.sort_values("split", key=lambda split: split.map(SPLITS.index), kind="stable")
    for row in warned.to_dict("records"):
        of = f"{row['split']} images of {row['generator']}" if row["generator"] else f"synthetic {row['split']} images"
        places.append(
            _everywhere(
                f"{row['shortcut']} alone tells the {of} from the real ones with an AUROC of {row['auroc']:.3f} "
                f"({_images(row['images'])})"
            )
        )
    return _found(
        "shortcut",
        "warning",
        f"Shortcuts that alone reach an AUROC above {WARN}",
        "store and crop real and synthetic images in the same way, or name this limit with every result",
        places,
    )


def sorted_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Errors before warnings, each in the order given."""
    return sorted(findings, key=lambda finding: finding.severity != "error")


def _file_findings(manifest: Manifest, column: str, told: Sequence[tuple[int, str, str]]) -> list[Finding]:
    """The findings on (row, file, what is wrong with it), one a :class:`FileFault`."""
    what, prefix = ("Images", "image") if column == "path" else ("Human maps", "map")
    of = [next(fault for fault in FILE_FAULTS if re.match(fault.begins, reason)) for _, _, reason in told]
    findings = []
    for fault in FILE_FAULTS:
        places = [
            Place((row,), (manifest.where(row),), (name,), _without_remedy(reason))
            for (row, name, reason), its in zip(told, of, strict=True)
            if its is fault
        ]
        findings += _found(f"{prefix}_{fault.kind}", "error", f"{what} {fault.title}", fault.remedy, places)
    return findings


def _unusual_findings(
    manifest: Manifest, facts: pd.DataFrame, column: str, kinds: dict[str, tuple[str, str]]
) -> list[Finding]:
    words = facts["unusual"].str.split(";").explode()
    findings = []
    for word, (title, remedy) in kinds.items():
        table = manifest.table.loc[words.index[words == word]]
        counts = ", ".join(f"{(table['label'] == label).sum()} {label}" for label in LABELS)
        places = (
            Place((row,), (manifest.where(row),), (name,), f"{label}, {split}")
            for row, name, label, split in zip(table.index, table[column], table["label"], table["split"], strict=True)
        )
        kind = f"{'image' if column == 'path' else 'map'}_{word.lower().replace(' ', '_').replace('-', '_')}"
        findings += _found(kind, "warning", f"{title} ({counts})", remedy, places, len(table))
    return findings


def _coverage_findings(table: pd.DataFrame) -> list[Finding]:
    train = table[table["split"] == "train"]
    if train.empty:
        return []
    has_map = train["human_map"] != ""
    if not has_map.any():
        return _found(
            "no_maps",
            "warning",
            "No training image has a human map",
            "CYBORG, HSEB and DROID + CYBORG need them: add column human_map, use data.template_maps=true for aligned "
            "faces, or train methods that need none",
            [_everywhere("column human_map is empty or absent")],
        )
    share = has_map.groupby(train["label"]).mean()
    low = [
        f"{share[label]:.0%} of the {label} training images have a map"
        for label in LABELS
        if label in share and share[label] < LOW_COVERAGE
    ]
    return _found(
        "few_maps",
        "warning",
        f"Fewer than {LOW_COVERAGE:.0%} of a label's training images have a human map",
        "terms that compare with human maps see only images that have one: add maps, or mind it when comparing methods",
        [_everywhere(reason) for reason in low],
    )


def _entropy_findings(scan: MapScan) -> list[Finding]:
    entropy = scan.facts["entropy"].dropna()
    # The paper's figure holds for its grid alone.
    if entropy.empty or scan.maps.shape[1:] != (PAPER_GRID, PAPER_GRID):
        return []
    mean = float(entropy.mean())
    if abs(mean - PAPER_ENTROPY) <= ENTROPY_MARGIN:
        return []
    return _found(
        "map_entropy",
        "warning",
        "The human maps are of another entropy than the paper's",
        "nothing, if they are meant so: HSEB draws the CAMs to this mean. Thin strokes become wider with "
        "data.human_maps.blur",
        [
            _everywhere(
                f"their mean entropy is {mean:.2f} nats ({np.exp(mean):.1f} of {PAPER_GRID**2} cells), the paper's "
                f"about {PAPER_ENTROPY:.1f} ({np.exp(PAPER_ENTROPY):.1f} cells)"
            )
        ],
    )


def _group(manifest: Manifest, rows: Sequence[int], how: str) -> Place:
    """A group of pictures, one of each split and label named first."""
    by_kind: dict[str, list[int]] = {}
    for row in rows:
        kind = f"{manifest.table.at[row, 'split']} {manifest.table.at[row, 'label']}"
        by_kind.setdefault(kind, []).append(row)
    order = [row for turn in zip_longest(*by_kind.values()) for row in turn if row is not None]
    counts = ", ".join(f"{len(of)} {kind}" for kind, of in by_kind.items())
    what = {"near": "nearly the same", "same picture": "the same pixels", "same file": "the same file"}[how]
    return _at(manifest, order, f"{what}: {counts}")


def _at(manifest: Manifest, rows: Sequence[int], reason: str) -> Place:
    # Not one look-up of all rows: for the many small groups of a large data set that takes a hundred times as long.
    listed = tuple(int(row) for row in rows[:MOST_PLACES])
    files = tuple(manifest.table.at[row, "path"] for row in listed)
    return Place(listed, tuple(map(manifest.where, listed)), files, reason, len(rows) - len(listed))


def _everywhere(reason: str) -> Place:
    return Place((), (), (), reason)


def _unread(kind: str, number: int) -> str:
    files = f"{number:,} {{}}{'file is' if number == 1 else 'files are'} not read"
    if kind == "without extension":
        return files.format("").replace(" not read", " without extension and not read")
    return files.format(f"{kind} ")


def _found(
    kind: str,
    severity: Literal["error", "warning"],
    title: str,
    remedy: str,
    places: Iterable[Place],
    count: int | None = None,
    pictures: bool = False,
) -> list[Finding]:
    """The finding of these places, of which there are ``count``, where no more are to be made than are listed; nothing,
    if there is none."""
    if count is None:
        places = list(places)
        count = len(places)
    return (
        [Finding(kind, severity, title, remedy, tuple(islice(places, MOST_PLACES)), count, pictures)] if count else []
    )


def _names(column: str, cell: str) -> Iterator[str]:
    yield from map_names(cell) if column == "human_map" else [cell]


def _after_name(sentence: str, names: Sequence[str]) -> str:
    for name in names:
        sentence = sentence.removeprefix(name)
    return sentence.strip()


def _without_remedy(reason: str) -> str:
    """The sentences on single files end with what to do, which a finding says once."""
    return reason.rpartition("; ")[0] or reason


def _images(count: int, kind: str = "") -> str:
    return " ".join(word for word in (f"{count:,}", kind, "image" if count == 1 else "images") if word)
