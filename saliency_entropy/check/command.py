"""The check of a data set: it looks at every file, prints what it finds, and writes a report."""

import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf
from rich import box
from rich.console import Console
from rich.progress import Progress as ProgressBar
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
    place_rows,
    places_left_out,
    shown_tables,
)
from saliency_entropy.check.scan import Progress, scan_images, scan_maps
from saliency_entropy.check.shortcuts import FEWEST, audit_shortcuts
from saliency_entropy.data.listed_files import file_problems
from saliency_entropy.data.table import Manifest
from saliency_entropy.data.und_cyborg import und_cyborg
from saliency_entropy.errors import SHOWN, UserError, whole_number, writing
from saliency_entropy.page.table import ShownTable
from saliency_entropy.page.wording import printable
from saliency_entropy.run.whole_files import write_atomically

log = logging.getLogger(__name__)

PAGE, JSON = "data_report.html", "data_report.json"
WIDTH = 100  # columns of the summary
LOG_SECONDS = 15  # between two lines of progress, where there is no terminal
GROUPS_PICTURED = 8  # groups of duplicates whose pictures a finding shows
IMAGES_PICTURED = 4  # images of a group that are shown
MOST_SHEET_IMAGES = 50  # images of a contact sheet: with 30 kinds of images, the page then has some 10 MB


def check(cfg: DictConfig) -> None:
    """Check ``cfg.data``, print a summary, and write ``data_report.html`` and ``data_report.json`` to ``cfg.output``.

    Raises:
        UserError: an option is out of range, or the output cannot be written.
        SystemExit: with code 1, if there is an error in the data.
    """
    whole_number("grid", cfg.grid, 2, most=64)
    whole_number("most_images", cfg.most_images, 2 * FEWEST)
    whole_number("contact_sheet_images", cfg.contact_sheet_images, 0, most=MOST_SHEET_IMAGES)
    whole_number("seed", cfg.seed, 0, most=2**32 - 1)
    whole_number("workers", cfg.workers, 1, or_null=True)
    output, remedy = Path(str(cfg.output)), "give another folder with output="
    with writing(f"output={output}", remedy):  # so that a failure comes now, not after hours of looking at files
        output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output).close()
    report = data_report(cfg)
    with writing(f"output={output}", remedy):
        write_atomically(output / JSON, as_json(report))
        # The page comes last: where it is, the JSON is, too. A path in another encoding cannot be UTF-8.
        write_atomically(output / PAGE, as_html(report).encode(errors="backslashreplace"))
    print_summary(report)
    log.info("written: %s and %s", output / PAGE, output / JSON)
    if report.findings_of("error"):
        sys.exit(1)


def data_report(cfg: DictConfig) -> DataReport:
    """Look at everything; of a table that its reader refuses, only the reader's reasons are reported."""
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

    options = {key: OmegaConf.select(cfg, f"data.human_maps.{key}") for key in ("blur", "binarise", "colormap")}
    options["blur"] = options["blur"] or 0.0
    grid = (cfg.grid, cfg.grid)
    made |= {"Table": manifest.origin, "CAM grid": f"{cfg.grid} × {cfg.grid} cells"}
    missing = file_problems(manifest)
    # Not even opened: reading a named pipe would never end, and a link may lead anywhere. The other rows keep their
    # numbers.
    present = manifest.without(missing)
    with _progress("images", len(present.table)) as advance:
        images = scan_images(present, cfg.workers, advance)
    with _progress("human maps", int((present.table["human_map"] != "").sum())) as advance:
        maps = scan_maps(present, images, grid, cfg.workers, advance, **options)
    usable = replace(present, table=present.table[(images.facts["problem"] == "").to_numpy()])
    duplicates = find_duplicates(present.table, images)
    log.info("shortcuts: classifying real against synthetic images by their files' properties")
    audit = audit_shortcuts(present.table, images, cfg.seed, cfg.most_images)
    joined = manifest.table if "maps" in cfg.data.source else manifest.table[:0]  # to which the reader joins maps
    joined_split = "train" if get_method(cfg.data.source._target_) is und_cyborg else None
    found = findings.sorted_findings(
        [
            *findings.split_findings(manifest.table),
            *findings.missing_file_findings(manifest, missing),
            *findings.image_findings(manifest, images),
            *findings.map_findings(manifest, maps),
            *findings.duplicate_findings(manifest, duplicates),
            *findings.shortcut_findings(audit),
            *findings.generator_findings(manifest),
            *findings.base_name_findings(manifest, shared_base_names(joined, joined_split)),
            *findings.unread_findings(manifest),
        ]
    )
    statistics = facts.map_statistics(manifest.table, maps)
    averages = facts.average_maps(manifest.table, maps)
    sheets: list[contact_sheets.ContactSheet] = []
    pictures: dict[str, list[list[contact_sheets.Picture]]] = {}
    if cfg.contact_sheet_images:
        log.info("contact sheets: decoding some images of each kind")
        sheets = contact_sheets.contact_sheets(usable, maps, cfg.contact_sheet_images, cfg.seed, **options)
        for finding in found:
            groups = finding.places[:GROUPS_PICTURED] if finding.pictures else ()
            rows = [place.rows[:IMAGES_PICTURED] for place in groups]
            if of_maps := finding.kind.startswith("map_"):
                rows = [[row for group in rows for row in group if row in usable.table.index]]
            pictures[finding.kind] = [contact_sheets.side_by_side(usable, group, of_maps) for group in rows if group]
    return DataReport(
        name,
        found,
        Facts(
            facts.image_counts(manifest.table),
            statistics,
            averages,
            grid,
            facts.file_kinds(present.table, images),
            audit,
        ),
        made,
        contact_sheets.average_map_pictures(averages, statistics.set_index("label")["maps"]),
        sheets,
        pictures,
    )


def print_summary(report: DataReport) -> None:
    """Print what is in the data set, then the findings, then the verdict; names from the data are plain text."""
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
            (f"{place_rows(place)}: {place_files(place)} – " if place.where else "") + printable(place.reason)
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
        # Headings of numbers get a line for each word, or rich would break the names in other columns.
        heading = Text(name) if words else Text(name.replace(" ", "\n"))
        shown.add_column(heading, justify="left" if words else "right", overflow="fold")
    for row in table.cells.itertuples(index=False):
        # Text, not str: rich would take a name in [brackets] for a style.
        shown.add_row(*map(Text, row))
    return shown


@contextmanager
def _progress(what: str, total: int) -> Iterator[Progress]:
    """A function that is called with the number of further items done: it moves a bar on a terminal, or logs lines."""
    console = Console()
    if console.is_terminal:
        with ProgressBar(console=console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda count: bar.advance(task, count)
        return
    if total:
        log.info("looking at %s %s", f"{total:,}", what)
    done, logged = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, logged
        done += count
        if time.monotonic() - logged > LOG_SECONDS:
            logged = time.monotonic()
            log.info("%s of %s %s", f"{done:,}", f"{total:,}", what)

    yield advance
