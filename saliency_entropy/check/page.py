"""The check of a data set as a page and as JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from saliency_entropy.check.contact_sheets import ContactSheet, Picture
from saliency_entropy.check.facts import PROPERTIES
from saliency_entropy.check.findings import PAPER_ENTROPY, PAPER_GRID, Finding, Place
from saliency_entropy.check.scan import THUMBNAIL
from saliency_entropy.check.shortcuts import SHORTCUTS, WARN
from saliency_entropy.data.table import LABELS
from saliency_entropy.errors import SHOWN
from saliency_entropy.page.table import ShownTable
from saliency_entropy.page.web_page import render
from saliency_entropy.page.wording import count, number, printable

FILES_NAMED = 4  # of a place: a picture may be in a data set a thousand times
VALUES_SHOWN = 10  # of a property of the files: there may be thousands of sizes
FLAG = "▲"  # marks a figure as a warning: colour alone would not reach everyone


@dataclass(frozen=True, eq=False)
class Facts:
    """What is in a data set: the results of :mod:`~saliency_entropy.check.facts` and ``audit_shortcuts``."""

    counts: pd.DataFrame
    maps: pd.DataFrame
    average_maps: dict[str, np.ndarray]
    grid: tuple[int, int]  # (h, w), of the maps, in cells
    files: pd.DataFrame
    shortcuts: pd.DataFrame


@dataclass(frozen=True, eq=False)
class DataReport:
    """Everything that the check of a data set says.

    Attributes:
        name: the name of the data set, as in ``data=NAME``.
        findings: errors before warnings.
        facts: None if the table cannot be used.
        made: heading -> text; how the report was made.
        average_maps: pictures of the average human maps.
        sheets: pictures of a few images of each kind.
        pictures: kind of finding -> for each of its first places, pictures of the images there.
    """

    name: str
    findings: list[Finding]
    facts: Facts | None
    made: dict[str, str]
    average_maps: Sequence[Picture] = ()
    sheets: Sequence[ContactSheet] = ()
    pictures: Mapping[str, list[list[Picture]]] = field(default_factory=dict)

    def findings_of(self, severity: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == severity]

    @property
    def headline(self) -> str:
        counts = {severity: len(self.findings_of(severity)) for severity in ("error", "warning")}
        errors, warnings = (f"{count(number, 'kind')} of {severity}" for severity, number in counts.items())
        if counts["error"]:
            first = f"{errors}, to be mended before anything is trained"
            return f"{first}; also {warnings}." if counts["warning"] else f"{first}."
        return f"No error. {warnings}: see that they are intended." if counts["warning"] else "No error and no warning."


def as_json(report: DataReport) -> str:
    """The report for programs, in strict JSON; unknown values are null.

    Keys:

    - ``data``: the data set's name; ``made``: how the report was made;
    - ``verdict``: ``errors``, ``warnings`` or ``clean``;
    - ``findings``: a list, errors first: ``kind`` (a word such as ``image_missing``), ``severity`` (``error``,
      ``warning``), ``title``, ``remedy``, ``count`` of its places, and ``places``, the first 1,000 at most (20 for
      ``shared_base_names``): ``rows`` (of the table, from 0), ``where`` (the same rows, as a spreadsheet counts them),
      ``files``, the first 1,000 of each, ``more`` (the number of rows that are not among them) and ``reason``;
    - ``counts``: a list over ``split, label, origin`` (generator of synthetic, source of real images): ``images``,
      ``with_map``;
    - ``human_maps``: ``grid`` ([h, w], cells), ``statistics``, a list over ``label`` ("" for both): ``maps``,
      ``entropy_mean``, ``entropy_std`` (nats), ``focus_area`` (cells), ``covered``, ``several_annotators``, and
      ``average``: label -> the mean map, a list of its rows;
    - ``files``: a list over ``property, value``: the number of ``real`` and ``synthetic`` images;
    - ``shortcuts``: a list over ``split, generator`` ("" for all) and ``shortcut``: ``auroc``, ``images``, ``warn``,
      ``note``.

    The last four are null where the table cannot be used.
    """
    facts = report.facts
    content = {
        "data": report.name,
        "made": report.made,
        "verdict": "errors" if report.findings_of("error") else "warnings" if report.findings else "clean",
        "findings": [
            {key: value for key, value in asdict(finding).items() if key != "pictures"} for finding in report.findings
        ],
        "counts": facts and _records(facts.counts),
        "human_maps": facts
        and {
            "grid": list(facts.grid),
            "statistics": _records(facts.maps),
            "average": {label: average.astype(float).tolist() for label, average in facts.average_maps.items()},
        },
        "files": facts and _records(facts.files),
        "shortcuts": facts and _records(facts.shortcuts),
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def as_html(report: DataReport) -> str:
    """The report as one page. Every string is escaped by the template engine; nothing is marked safe."""
    content = {
        "report": report,
        "tables": shown_tables(report.facts) if report.facts else [],
        "shown": SHOWN,
        "where": place_rows,
        "files": place_files,
        "left_out": places_left_out,
    }
    return render(__package__, "page", {"printable": printable}, content)


def shown_tables(facts: Facts) -> list[ShownTable]:
    """The facts as tables of text, for the page and for a terminal."""
    tables = [_counts_table(facts.counts), _maps_table(facts)]
    if len(facts.files):
        tables.append(_files_table(facts.files))
    return [*tables, _shortcuts_table(facts.shortcuts)]


def place_rows(place: Place) -> str:
    """The rows of a place, ``row 2, row 14``, the first :data:`FILES_NAMED`."""
    return _first_names(place.where, place.more)


def place_files(place: Place) -> str:
    """The files of a place, the first :data:`FILES_NAMED`, without control characters."""
    return printable(_first_names(place.files, place.more))


def places_left_out(finding: Finding) -> str:
    """The number of places after the first :data:`~saliency_entropy.errors.SHOWN`; "" if there are none."""
    more = finding.count - SHOWN
    if more <= 0:
        return ""
    listed = len(finding.places)
    where = ", all of which are" if listed == finding.count else f"; the first {listed:,} of all are"
    return f"and {more:,} more{where} in data_report.json"


def _first_names(names: tuple[str, ...], unlisted: int) -> str:
    more = len(names) - FILES_NAMED + unlisted
    return ", ".join(names[:FILES_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _counts_table(counts: pd.DataFrame) -> ShownTable:
    cells = _image_cells(counts)
    cells.insert(2, "Generator or source", [printable(origin) or "(not named)" for origin in counts["origin"]])
    by_label = counts.groupby("label")["images"].sum()
    total = ", ".join(f"{by_label.get(label, 0):,} {label}" for label in LABELS)
    return ShownTable("counts", "Images", counts, cells, [f"{counts['images'].sum():,} images: {total}."])


def _maps_table(facts: Facts) -> ShownTable:
    height, width = facts.grid
    notes = []
    for row in facts.maps.to_dict("records"):
        spread = "" if math.isnan(row["entropy_std"]) else f" ± {row['entropy_std']:.2f}"
        notes.append(
            f"{(row['label'] or 'all').capitalize()}: {row['maps']:,} {'map' if row['maps'] == 1 else 'maps'}, mean "
            f"entropy {row['entropy_mean']:.2f}{spread} nats on a {height} × {width} grid, a focus of "
            f"{row['focus_area']:.1f} of {height * width} cells; {row['covered']:.0%} of a map is marked."
        )
    if notes and facts.grid == (PAPER_GRID, PAPER_GRID):
        notes.append(
            f"The paper’s human maps: about {PAPER_ENTROPY:.1f} nats, a focus of {np.exp(PAPER_ENTROPY):.1f} cells."
        )
    if len(facts.maps) and (several := facts.maps["several_annotators"].iloc[0]):
        notes.append(f"On {count(several, 'image')}, the maps of several annotators are averaged.")
    coverage = facts.counts.groupby(["split", "label"], sort=False)[["images", "with_map"]].sum().reset_index()
    shares = (coverage["with_map"] / coverage["images"]).map("{:.0%}".format)
    return ShownTable("human-maps", "Human maps", coverage, _image_cells(coverage).assign(Share=shares), notes)


def _image_cells(counts: pd.DataFrame) -> pd.DataFrame:
    """The columns that tables of images begin and end with, as text."""
    return pd.DataFrame(
        {
            "Split": counts["split"],
            "Label": counts["label"],
            "Images": counts["images"].map("{:,}".format),
            "With human map": counts["with_map"].map("{:,}".format),
        },
        dtype="str",
    )


def _files_table(files: pd.DataFrame) -> ShownTable:
    rows = []
    for name, heading in PROPERTIES.items():
        own = files[files["property"] == name]
        for value, *counts in own[["value", *LABELS]].head(VALUES_SHOWN).itertuples(index=False):
            rows.append((heading, value.replace(" x ", " × "), *(f"{count:,}" for count in counts)))
        rest = own.iloc[VALUES_SHOWN:]
        if len(rest):
            rows.append((heading, f"({len(rest):,} others)", *(f"{rest[label].sum():,}" for label in LABELS)))
    cells = pd.DataFrame(rows, columns=["Property", "Value", *(label.capitalize() for label in LABELS)], dtype="str")
    return ShownTable("files", "Files", files, cells, ["Images that can be used; sizes and modes as they are stored."])


def _shortcuts_table(audit: pd.DataFrame) -> ShownTable:
    rows = []
    for (split, generator), own in audit.groupby(["split", "generator"], sort=False):
        figures = own.set_index("shortcut").loc[list(SHORTCUTS)]
        measured = [number(row.auroc) + (f" {FLAG}" if row.warn else "") for row in figures.itertuples()]
        rows.append((split, printable(generator) or "(all)", f"{figures['images'].max():,}", *measured))
    headings = [shortcut[0].upper() + shortcut[1:].replace(" quantisation", "") for shortcut in SHORTCUTS]
    cells = pd.DataFrame(rows, columns=["Split", "Synthetic images", "Images", *headings], dtype="str")
    notes = [
        "AUROC with which one trait alone (of the file, the mean colour, or a thumbnail of "
        f"{THUMBNAIL} × {THUMBNAIL} pixels) tells synthetic from real images, by a classifier on images it was not "
        f"fitted on. 0.5: it says nothing; {FLAG}: above {WARN}, a detector may learn it instead of the picture."
    ]
    for note, own in audit[audit["note"] != ""].groupby("note", sort=False):
        compared = dict.fromkeys(f"{row.split} {printable(row.generator)}".strip() for row in own.itertuples())
        notes.append(f"{', '.join(compared)}: {printable(note)}.")
    return ShownTable("shortcuts", "Shortcuts", audit, cells, notes)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.astype(object).where(table.notna(), None).to_dict("records")  # NaN is no JSON
