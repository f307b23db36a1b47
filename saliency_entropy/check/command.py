"""The check of a data set: every file is looked at, and what is found is printed and written."""

import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from saliency_entropy.check import contact_sheets, facts, findings
from saliency_entropy.check.duplicates import find_duplicates, shared_base_names
from saliency_entropy.check.page import (
    DataReport,
    Facts,
    as_html,
    as_json,
    place_files,
    place_where,
    places_left_out,
    shown_tables,
)
from saliency_entropy.check.scan import ImageScan, MapScan, scan_images, scan_maps
from saliency_entropy.check.shortcuts import FEWEST, audit_shortcuts
from saliency_entropy.data.table import Manifest, file_problems
from saliency_entropy.data.und_cyborg import und_cyborg
from saliency_entropy.errors import SHOWN, UserError
from saliency_entropy.page.wording import printable
from saliency_entropy.run.folder import write_atomically
from saliency_entropy.study.report import ShownTable

log = logging.getLogger(__name__)

PAGE, JSON = "data_report.html", "data_report.json"
WIDTH = 100  # of the summary, in columns
LOG_SECONDS = 15  # between two lines on the progress, where there is no terminal
GROUPS_PICTURED = 8  # of one finding
IMAGES_PICTURED = 4  # of one group
# option -> its least and its greatest value; the greatest contact sheets make a page of some 10 MB of 30 kinds
RANGES = {
    "grid": (2, 64),
    "most_images": (2 * FEWEST, None),
    "contact_sheet_images": (0, 50),
    "seed": (0, 2**32 - 1),
    "workers": (1, None),
}


def check(cfg: DictConfig) -> None:
    """Check ``cfg.data``, print a summary, and write ``data_report.html`` and ``data_report.json`` to ``cfg.output``.

    Raises:
        UserError: an option is out of range, or the output cannot be written.
        SystemExit: with code 1, if there is an error in the data.
    """
    for option, (least, most) in RANGES.items():
        _require_number(option, cfg[option], least, most)
    output = Path(str(cfg.output))
    with _writing(output):  # found out now, not after hours of looking at files
        output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output).close()
    report = data_report(cfg)
    with _writing(output):
        write_atomically(output / JSON, as_json(report))
        # The page last: where it is, the other is there too. A path in another encoding cannot be UTF-8.
        write_atomically(output / PAGE, as_html(report).encode(errors="backslashreplace"))
    print_summary(report)
    log.info("written: %s and %s", output / PAGE, output / JSON)
    if report.of("error"):
        sys.exit(1)


def data_report(cfg: DictConfig) -> DataReport:
    """Look at everything; a table that its reader refuses is all that is reported then."""
    name = str(cfg.data.name)
    made = {
        "Data": name,
        "Data root": str(OmegaConf.select(cfg, "data.root") or ""),
        "Seed": str(cfg.seed),
        "Made": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "Versions": ", ".join(f"{package} {version(package)}" for package in ("saliency-entropy", "pillow")),
    }
    made = {heading: text for heading, text in made.items() if text}
    try:
        manifest: Manifest = instantiate(cfg.data.source, _convert_="all")()
    except UserError as error:
        return DataReport(name, findings.table_findings(str(error)), None, made)

    blur = OmegaConf.select(cfg, "data.human_maps.blur", default=0.0)
    binarise = OmegaConf.select(cfg, "data.human_maps.binarise", default=None)
    grid = (cfg.grid, cfg.grid)
    made |= {"Table": manifest.origin, "CAM grid": f"{cfg.grid} × {cfg.grid} cells"}
    missing = file_problems(manifest)
    there = manifest.without(missing)  # a named pipe would wait for ever, and a link may lead anywhere
    images, maps = _scanned(there, grid, blur, binarise, cfg.workers)
    # Rows stay where they are in the table, so that they keep their numbers.
    usable = replace(there, table=there.table[(images.facts["problem"] == "").to_numpy()])
    duplicates = find_duplicates(there.table, images)
    log.info("shortcuts: classifying real against synthetic images by their files' properties")
    audit = audit_shortcuts(there.table, images, cfg.seed, cfg.most_images)
    found = findings.sorted_findings(
        [
            *findings.split_findings(manifest.table),
            *findings.missing_file_findings(manifest, missing),
            *findings.image_findings(manifest, images),
            *findings.map_findings(manifest, maps),
            *findings.duplicate_findings(manifest, duplicates),
            *findings.shortcut_findings(audit),
            *findings.generator_findings(manifest),
            *findings.base_name_findings(manifest, _shared_base_names(cfg, manifest)),
            *findings.unread_findings(manifest),
        ]
    )
    statistics = facts.map_statistics(manifest.table, maps)
    averages = facts.average_maps(manifest.table, maps)
    return DataReport(
        name,
        found,
        Facts(
            facts.image_counts(manifest.table),
            statistics,
            averages,
            grid,
            facts.file_kinds(there.table, images),
            audit,
        ),
        made,
        tuple(contact_sheets.average_map_pictures(averages, statistics.set_index("label")["maps"])),
        *_photographs(usable, maps, found, blur, binarise, cfg.contact_sheet_images, cfg.seed),
    )


def print_summary(report: DataReport) -> None:
    """What is in the data set, then what was found, then the verdict; names from data as plain text."""
    console = Console(highlight=False)
    console.width = min(WIDTH, console.width) if console.is_terminal else WIDTH
    for table in shown_tables(report.facts) if report.facts else []:
        console.print(Text(f"\n{table.heading}", style="bold"))
        console.print(_terminal_table(table))
        for note in table.notes:
            console.print(Text(note))
    for finding in report.findings:
        style = "bold red" if finding.severity == "error" else "bold yellow"
        console.print(Text(f"\n{finding.severity.upper()}  {finding.counted_title}", style=style))
        lines = [
            (f"{place_where(place)}: {place_files(place)} – " if place.where else "") + printable(place.reason)
            for place in finding.places[:SHOWN]
        ]
        if left_out := places_left_out(finding):
            lines.append(left_out)
        for line in (*lines, f"What to do: {finding.remedy}."):
            for part in Text(line).wrap(console, console.width - 2):
                console.print(Text("  ").append_text(part))
    console.print(Text(f"\n{printable(report.name)}: {report.headline}", style="bold"))


def _terminal_table(table: ShownTable) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name, words in zip(table.cells, table.word_columns, strict=True):
        # Headings of numbers are a word a line: rich would rather break names.
        heading = Text(name) if words else Text(name.replace(" ", "\n"))
        shown.add_column(heading, justify="left" if words else "right", overflow="fold")
    for row in table.cells.itertuples(index=False):
        # Text, not str: a name in [brackets] would be read as a style.
        shown.add_row(*map(Text, row))
    return shown


def _shared_base_names(cfg: DictConfig, manifest: Manifest) -> pd.DataFrame:
    """Of the images that the reader of these data would join human maps to."""
    if "maps" not in cfg.data.source:  # it joins none
        return shared_base_names(manifest.table[:0])
    of_training = get_method(cfg.data.source._target_) is und_cyborg
    return shared_base_names(manifest.table, "train" if of_training else None)


def _scanned(
    manifest: Manifest, grid: tuple[int, int], blur: float, binarise: float | None, workers: int | None
) -> tuple[ImageScan, MapScan]:
    with _progress("images", len(manifest.table)) as advance:
        images = scan_images(manifest, workers, advance)
    # An image that cannot be used says nothing of its map's aspect.
    with _progress("human maps", int((manifest.table["human_map"] != "").sum())) as advance:
        maps = scan_maps(manifest, grid, blur, binarise, workers, advance)
    return images, maps


def _photographs(
    manifest: Manifest,
    maps: MapScan,
    found: list[findings.Finding],
    blur: float,
    binarise: float | None,
    images: int,
    seed: int,
) -> tuple[tuple[contact_sheets.ContactSheet, ...], dict[str, list[list[contact_sheets.Picture]]]]:
    """The contact sheets, and the pictures of the findings that are looked at side by side; none, if no images are to
    be shown."""
    if not images:
        return (), {}
    log.info("contact sheets: decoding some images of each kind")
    sheets = contact_sheets.contact_sheets(manifest, maps, blur, binarise, images, seed)
    pictures = {
        finding.kind: [
            contact_sheets.side_by_side(manifest, place.rows[:IMAGES_PICTURED])
            for place in finding.places[:GROUPS_PICTURED]
        ]
        for finding in found
        if finding.pictures
    }
    return tuple(sheets), pictures


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """A function to be called with the number of further items that are done: a bar on a terminal, else lines."""
    console = Console()
    if console.is_terminal:
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda count: bar.advance(task, count)
        return
    if total:
        log.info("looking at %s %s", f"{total:,}", what)
    done, told = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, told
        done += count
        if time.monotonic() - told > LOG_SECONDS:
            told = time.monotonic()
            log.info("%s of %s %s", f"{done:,}", f"{total:,}", what)

    yield advance


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"output={output} cannot be written to ({error.strerror}); give another folder with output="
        ) from None


def _require_number(option: str, value: Any, least: int, most: int | None) -> None:
    if value is None and option == "workers":
        return
    if type(value) is not int or value < least or (most is not None and value > most):
        upper = f"to {most}" if most is not None else "on"
        raise UserError(f"{option} is {value!r}; give a whole number from {least} {upper}")
