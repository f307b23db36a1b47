"""The check of a data set as a page and as JSON."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from saliency_entropy.check.contact_sheets import ContactSheet, Picture
from saliency_entropy.check.facts import PROPERTIES
from saliency_entropy.check.findings import PAPER_ENTROPY, PAPER_GRID, Finding, Place
from saliency_entropy.check.scan import THUMBNAIL
from saliency_entropy.check.shortcuts import SHORTCUTS, WARN
from saliency_entropy.data.table import LABELS, SPLITS
from saliency_entropy.errors import SHOWN
from saliency_entropy.page.table import ShownTable
from saliency_entropy.page.web_page import render
from saliency_entropy.page.wording import NONE, printable

FILES_NAMED = 4  # of one place; a picture may be in a data set a thousand times
VALUES_SHOWN = 10  # of one property of the files; there may be thousands of sizes
FLAG = "▲"  # after a figure that is a warning: colour alone would not reach everyone


@dataclass(frozen=True, eq=False)
class Facts:
    """What is in a data set.

    Attributes:
        counts: of :func:`~saliency_entropy.check.facts.image_counts`.
        maps: of :func:`~saliency_entropy.check.facts.map_statistics`.
        average_maps: of :func:`~saliency_entropy.check.facts.average_maps`.
        grid: ``(h, w)``, what the maps were put on, in cells.
        files: of :func:`~saliency_entropy.check.facts.file_kinds`.
        shortcuts: of :func:`~saliency_entropy.check.shortcuts.audit_shortcuts`.
    """

    counts: pd.DataFrame
    maps: pd.DataFrame
    average_maps: dict[str, np.ndarray]
    grid: tuple[int, int]
    files: pd.DataFrame
    shortcuts: pd.DataFrame


@dataclass(frozen=True, eq=False)
class DataReport:
    """All that the check of a data set says.

    Attributes:
        name: the data set's, as in ``data=NAME``.
        findings: errors before warnings.
        facts: None of a table that cannot be used.
        made: heading -> text; how the report was made.
        average_maps: pictures of the average human maps.
        sheets: pictures of a few images of each kind.
        pictures: kind of finding -> for each of its first places, the images in question.
    """

    name: str
    findings: list[Finding]
    facts: Facts | None
    made: dict[str, str]
    average_maps: tuple[Picture, ...] = ()
    sheets: tuple[ContactSheet, ...] = ()
    pictures: dict[str, list[list[Picture]]] | None = None

    def of(self, severity: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == severity]

    @property
    def headline(self) -> str:
        errors, warnings = (len(self.of(severity)) for severity in ("error", "warning"))
        if errors:
            first = f"{_kinds(errors, 'error')}, to be mended before anything is trained"
            return f"{first}; {_kinds(warnings, 'warning')} besides." if warnings else f"{first}."
        if warnings:
            return f"No error. {_kinds(warnings, 'warning')}: see that they are meant so."
        return "No error and no warning."


def as_json(report: DataReport) -> str:
    """The report for programs, in strict JSON; what is not known is null.

    Keys:

    - ``data``: the data set's name; ``made``: how the report was made;
    - ``verdict``: ``errors``, ``warnings`` or ``clean``;
    - ``findings``: a list, errors first: ``kind`` (a word such as ``image_missing``), ``severity`` (``error``,
      ``warning``), ``title``, ``remedy``, ``count`` of its places, and ``places``, the first 1,000 at most (20 of
      ``shared_base_names``): ``rows`` (of the table, from 0), ``where`` (the same, as a spreadsheet counts them),
      ``files``, the first 1,000 of each, ``more`` (how many rows are not among them) and ``reason``;
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
        "verdict": "errors" if report.of("error") else "warnings" if report.findings else "clean",
        "findings": [
            {
                "kind": finding.kind,
                "severity": finding.severity,
                "title": finding.title,
                "remedy": finding.remedy,
                "count": finding.count,
                "places": [asdict(place) for place in finding.places],
            }
            for finding in report.findings
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
        "where": place_where,
        "files": place_files,
        "left_out": places_left_out,
    }
    return render(__package__, "page", {"printable": printable}, content)


def shown_tables(facts: Facts) -> list[ShownTable]:
    """The facts as readers see them, on the page and on a terminal."""
    tables = [_counts_table(facts.counts), _maps_table(facts)]
    if len(facts.files):
        tables.append(_files_table(facts.files))
    return [*tables, _shortcuts_table(facts.shortcuts)]


def place_where(place: Place) -> str:
    """``row 2, row 14``; the first :data:`FILES_NAMED`."""
    return _first(place.where, place.more)


def place_files(place: Place) -> str:
    """The files of a place, the first :data:`FILES_NAMED`, without control characters."""
    return printable(_first(place.files, place.more))


def places_left_out(finding: Finding) -> str:
    """How many places are not among the first :data:`~saliency_entropy.errors.SHOWN`; "" if there is none."""
    more = finding.count - SHOWN
    if more <= 0:
        return ""
    listed = len(finding.places)
    where = ", all of which are" if listed == finding.count else f"; the first {listed:,} of all are"
    return f"and {more:,} more{where} in data_report.json"


def _first(names: tuple[str, ...], unlisted: int) -> str:
    more = len(names) - FILES_NAMED + unlisted
    return ", ".join(names[:FILES_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _counts_table(counts: pd.DataFrame) -> ShownTable:
    cells = pd.DataFrame(
        {
            "Split": counts["split"],
            "Label": counts["label"],
            "Generator or source": [printable(origin) or "(not named)" for origin in counts["origin"]],
            "Images": _numbers(counts["images"]),
            "With human map": _numbers(counts["with_map"]),
        },
        dtype="str",
    )
    of = counts.groupby("label")["images"].sum()
    total = ", ".join(f"{of.get(label, 0):,} {label}" for label in LABELS)
    return ShownTable("counts", "Images", counts, cells, [f"{counts['images'].sum():,} images: {total}."])


def _maps_table(facts: Facts) -> ShownTable:
    coverage = facts.counts.groupby(["split", "label"], sort=False)[["images", "with_map"]].sum().reset_index()
    height, width = facts.grid
    notes = []
    for row in facts.maps.to_dict("records"):
        of = (row["label"] or "all").capitalize()
        spread = "" if math.isnan(row["entropy_std"]) else f" ± {row['entropy_std']:.2f}"
        notes.append(
            f"{of}: {row['maps']:,} {'map' if row['maps'] == 1 else 'maps'}, mean entropy {row['entropy_mean']:.2f}"
            f"{spread} nats on a {height} × {width} grid, a focus of {row['focus_area']:.1f} of {height * width} "
            f"cells; {row['covered']:.0%} of a map is marked."
        )
    if notes and facts.grid == (PAPER_GRID, PAPER_GRID):
        notes.append(
            f"The paper’s human maps: about {PAPER_ENTROPY:.1f} nats, a focus of {np.exp(PAPER_ENTROPY):.1f} cells."
        )
    if len(facts.maps) and (several := facts.maps["several_annotators"].iloc[0]):
        notes.append(f"{several:,} images have the maps of several annotators, which are averaged.")
    cells = pd.DataFrame(
        {
            "Split": coverage["split"],
            "Label": coverage["label"],
            "Images": _numbers(coverage["images"]),
            "With human map": _numbers(coverage["with_map"]),
            "Share": [f"{share:.0%}" for share in coverage["with_map"] / coverage["images"]],
        },
        dtype="str",
    )
    return ShownTable("human-maps", "Human maps", coverage, cells, notes)


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
    for split in SPLITS:
        of_split = audit[audit["split"] == split]
        for generator, own in of_split.groupby("generator", sort=False):
            figures = own.set_index("shortcut")
            measured = [
                NONE if np.isnan(auroc) else f"{auroc:.3f}{f' {FLAG}' if warn else ''}"
                for auroc, warn in figures.loc[list(SHORTCUTS), ["auroc", "warn"]].itertuples(index=False)
            ]
            rows.append((split, printable(generator) or "(all)", f"{figures['images'].max():,}", *measured))
    headings = [shortcut[0].upper() + shortcut[1:].replace(" quantisation", "") for shortcut in SHORTCUTS]
    columns = ["Split", "Synthetic images", "Images", *headings]
    notes = [
        "AUROC with which one trait alone (of the file, the mean colour, or a thumbnail of "
        f"{THUMBNAIL} × {THUMBNAIL} pixels) tells synthetic from real images, by a classifier on images it was not "
        f"fitted on. 0.5: it says nothing; {FLAG}: above {WARN}, a detector may learn it instead of the picture."
    ]
    for note, own in audit[audit["note"] != ""].groupby("note", sort=False):
        of = dict.fromkeys(f"{row.split} {printable(row.generator)}".strip() for row in own.itertuples())
        notes.append(f"{', '.join(of)}: {printable(note)}.")
    return ShownTable("shortcuts", "Shortcuts", audit, pd.DataFrame(rows, columns=columns, dtype="str"), notes)


def _numbers(column: pd.Series) -> list[str]:
    return [f"{number:,}" for number in column]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    # tolist: plain Python numbers; NaN is no JSON.
    columns = {name: table[name].astype(object).tolist() for name in table}
    plain = {name: [_plain(value) for value in values] for name, values in columns.items()}
    return [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _kinds(count: int, what: str) -> str:
    return f"{count} kind{'' if count == 1 else 's'} of {what}"
