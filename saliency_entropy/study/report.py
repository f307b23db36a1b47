"""The report of a study: files with its tables and figures, and one page that holds them all."""

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from saliency_entropy.errors import whole_number, writing
from saliency_entropy.page import wording
from saliency_entropy.page.table import ShownTable, is_words, latex, markdown
from saliency_entropy.page.web_page import render
from saliency_entropy.run.model_file import DRAWN_DATA
from saliency_entropy.run.ranking import RANKINGS
from saliency_entropy.run.whole_files import remove_parts_of, write_atomically
from saliency_entropy.study import comparisons, contrasts, figures, questions, robustness, tables
from saliency_entropy.study.bootstrap import read_image_covariances
from saliency_entropy.study.contrasts import BETTER, DEPENDS, INCONCLUSIVE, MIN_SEEDS, UNKNOWN, WORSE, over_scores
from saliency_entropy.study.focus import read_study_maps
from saliency_entropy.study.gallery import read_gallery
from saliency_entropy.study.generator_choice import generator_choice
from saliency_entropy.study.runs import LeftOut, Run, Study, read_study
from saliency_entropy.study.sections import (
    LEADING,
    NAMES,
    ShownFigure,
    chapters,
    report_figures,
    report_tables,
)
from saliency_entropy.study.tables import MEASURES, Measures

log = logging.getLogger(__name__)
# It names the glyphs of a font that it puts into a PDF.
logging.getLogger("fontTools").setLevel(logging.WARNING)

# The columns of the terminal's table: those that fit on a line.
PRINTED = (
    "Method", "Ranked by", "Seeds", "AUROC", "AUROC unseen", "Difference", "95 % interval", "p (Holm)", "Verdict",
    "CAM entropy / nats",
)  # fmt: skip


def report(cfg: DictConfig) -> None:
    """Write the report of ``cfg.study`` below ``cfg.output`` (its folder ``report``, if None) and print its table.

    Raises:
        UserError: see :func:`~saliency_entropy.study.runs.read_study` and
            :func:`~saliency_entropy.study.gallery.read_gallery`; ``cfg.gallery_images`` is not a whole number from 0
            on; the output cannot be written.
    """
    whole_number("gallery_images", cfg.gallery_images, 0)  # 0: a report without photographs
    study = read_study(Path(str(cfg.study)))
    log.info("%d finished runs of %d methods in %s", len(study.runs), len(study.methods), study.folder)
    output = study.folder / "report" if cfg.output is None else Path(str(cfg.output))
    write_report(study, tables.measure(study), output, cfg.gallery_images)


def write_report(study: Study, measures: Measures, output: Path, gallery_images: int, above: str = "") -> None:
    """Write the report of a study that was read into ``output``; see :func:`report`. The page links to the one
    ``above``, an address, which compares the study with others."""
    maps = read_study_maps(study)
    gallery = read_gallery(maps, gallery_images)
    methods = tables.by_score(tables.method_table, measures)
    covariances = read_image_covariances(study, measures.measure)
    compared = tables.by_score(lambda own: comparisons.comparison_table(own, covariances[own.score]), measures)
    corrupted = robustness.robustness_table(study)
    answered = questions.answers(study, measures, compared)
    shown = report_tables(study, measures, methods, covariances, compared, maps, corrupted)
    pictures = report_figures(study, measures, maps, corrupted, photographs=gallery_images > 0)
    warnings = all_warnings(study, measures)
    left_out = by_reason(study.left_out)
    too_few = questions.too_few_images(measures)
    sentence = headline(methods, measures.measure, compared, too_few, every=not answered)
    # What a study shows that answers no question of the paper: every comparison with cross-entropy, and where it looks.
    listed = [] if answered or too_few else questions.against_baseline(compared)
    evidence = [" ".join([questions.in_words(rows), *questions.caveats(rows)]) for rows in listed]
    leading = [] if answered else [picture for picture in pictures if picture.name in LEADING][:1]
    unanswered = questions.unanswered(study, answered)
    content = {
        "study": study,
        "above": above,
        "headline": sentence,
        "evidence": evidence,
        "positive_control": contrasts.is_positive_control(study),
        "leading": leading,
        "warnings": warnings,
        "left_out": left_out,
        "answers": answered,
        "unanswered": unanswered,
        "controls": questions.weight_alone(compared),
        "measure": MEASURES[measures.measure],
        "chapters": chapters(shown, [picture for picture in pictures if picture not in leading]),
        "choice": generator_choice(measures, study.titles),
        "gallery": gallery,
        "map_kind": figures.map_kind(study),
        "made": how_it_was_made(study),
    }
    page = render(__package__, "report", {"tied": wording.tied}, content)
    with writing(f"output={output}", "give another folder with output="):
        further = [*evidence, *filter(None, [unanswered]), *content["controls"]]
        write(output, page, measures.runs, questions.markdown(answered, further), shown, pictures)

    log_summary(shown[0].cells.filter(PRINTED), sentence, warnings, left_out, output)


def log_summary(cells: pd.DataFrame, sentence: str, warnings: list[str], left_out: list[LeftOut], output: Path) -> None:
    """Print a table, and what stands at the head of the page."""
    log.info("%s", printed(cells))
    log.info("%s", wording.printable(sentence))
    for warning in warnings:
        log.warning("warning: %s", wording.printable(warning))
    for runs in left_out:
        log.warning("left out: %s (%s)", wording.printable(runs.name), wording.printable(runs.reason))
    log.info("report: %s", output / "index.html")


def write(
    output: Path,
    page: str,
    runs: pd.DataFrame,
    answers: str,
    shown: list[ShownTable],
    pictures: list[ShownFigure],
) -> None:
    """Write everything into ``output``, the page last, so that every file that it names is there before it."""
    for picture in pictures:
        write_atomically(output / "figures" / f"{picture.name}.png", picture.png)
        write_atomically(output / "figures" / f"{picture.name}.pdf", figures.pdf(picture.figure))
    write_atomically(output / "runs.csv", wording.csv_text(runs))
    if answers:
        write_atomically(output / "questions.md", answers)
    filled = [table for table in shown if not table.cells.empty]
    for table in filled:
        write_atomically(output / f"{table.name}.csv", wording.csv_text(table.numbers))
        write_atomically(output / f"{table.name}.md", markdown(table.cells, table.notes))
        write_atomically(output / f"{table.name}.tex", latex(table.cells, table.notes))
    drawn, tabled = {picture.name for picture in pictures}, {table.name for table in filled}
    # What an earlier report left here, perhaps another study's, would pass for this one's; a folder without photographs
    # may be meant for publication.
    earlier = [output / "figures" / f"{name}.{kind}" for name in NAMES - drawn for kind in ("png", "pdf")]
    earlier += [output / f"{name}.{kind}" for name in NAMES - tabled for kind in ("csv", "md", "tex")]
    for path in (*earlier, *([] if answers else [output / "questions.md"])):
        path.unlink(missing_ok=True)
        remove_parts_of(path)
    write_atomically(output / "index.html", page)


def headline(
    methods: pd.DataFrame, measure: str, compared: pd.DataFrame, too_few: str = "", every: bool = False
) -> str:
    """Sentences on which methods are shown to differ from cross-entropy, and on the method of the highest mean AUROC.

    Args:
        methods: :func:`~saliency_entropy.study.tables.method_table` by both scores.
        measure: :attr:`~saliency_entropy.study.tables.Measures.measure`.
        compared: :func:`~saliency_entropy.study.comparisons.comparison_table` by both scores.
        too_few: :func:`~saliency_entropy.study.questions.too_few_images`.
        every: whether every comparison with cross-entropy stands below; else that of the best method is in here.
    """
    what = "AUROC on unseen generators" if measure == "auroc_unseen" else "AUROC (all generators)"
    known = methods.dropna(subset=[f"{measure}_mean"])
    if known.empty:
        return "The test images are all real or all synthetic, so there is no AUROC."
    if too_few:
        return f"Nothing can be said about which method is better: {too_few}."
    # Score -> its rows of the highest mean.
    best = {score: tables.highest(own, f"{measure}_mean") for score, own in known.groupby("score", sort=False)}
    values = {score: f"{rows[f'{measure}_mean'].max():.3f} by {RANKINGS[score]}" for score, rows in best.items()}
    names = {score: wording.listed(list(rows["title"])) for score, rows in best.items()}
    titles = list(dict.fromkeys(names.values()))
    if known["method"].nunique() == 1:
        means, seeds = wording.listed(list(values.values())), wording.count(int(known["seeds"].iloc[0]), "seed")
        return f"{titles[0]} reaches a mean {what} of {means} over {seeds}; there is no other method beside it."
    if len(titles) == 1:
        verb = "has" if titles[0] in set(known["title"]) else "share"
        first = f"{titles[0]} {verb} the highest mean {what}, {wording.listed(list(values.values()))}."
    else:
        named = [f"{name} ({values[score]})" for score, name in names.items()]
        first = f"Which method has the highest mean {what} depends on the score: {' or '.join(named)}."
    each = questions.against_baseline(compared)
    if not each:
        return f"{first} Whether it is better than cross-entropy cannot be said: the study has no run of it."
    # Verdict -> the methods of which it is the verdict by both scores.
    found: dict[str, list[str]] = {verdict: [] for verdict in (BETTER, WORSE, DEPENDS, INCONCLUSIVE, UNKNOWN)}
    for rows in each:
        verdict, title = over_scores(list(rows["verdict"])), rows["title"].iloc[0]
        by_score = [f"{row['verdict']} by {RANKINGS[row['score']]}" for row in rows.to_dict("records")]
        found[verdict].append(f"{title} ({', '.join(by_score)})" if verdict == DEPENDS else str(title))
    named = [
        f"{wording.listed(own)} {'is' if len(own) == 1 else 'are'} {verdict} than cross-entropy by both scores"
        if verdict in (BETTER, WORSE)
        else f"nothing can be said of {wording.listed(own)} against cross-entropy"
        if verdict == UNKNOWN
        else f"against cross-entropy, {verdict}: {wording.listed(own)}"
        for verdict, own in found.items()
        if own
    ]
    verdicts = f"{'; '.join(named)}."
    sentences = [verdicts[0].upper() + verdicts[1:]]
    if found[UNKNOWN]:
        sentences.append(f"A verdict needs {MIN_SEEDS} seeds in common that do not all differ by the same.")
    sentences.append(first)
    for own in [] if every else [rows for rows in each if titles == [rows["title"].iloc[0]]]:
        sentences += [questions.in_words(own), *questions.caveats(own)]
        if (own["difference"] < 0).all():
            sentences.append(
                "On the seeds in common it is below cross-entropy: its higher mean comes from the other seeds."
            )
    return " ".join(sentences)


def all_warnings(study: Study, measures: Measures) -> list[str]:
    """Sentences that a reader must know before any number, the gravest first."""
    warnings = []
    if drawn := {run.setting("data.name") for run in study.runs} & DRAWN_DATA:
        warnings.append(
            f"The faces are drawn by a program (data: {wording.listed(sorted(drawn))}). These figures show that "
            "everything works; they say nothing about real faces."
        )
    guided = [run for run in study.runs if contrasts.uses_human_maps(run) is not False]
    if guided and (kind := figures.training_map_kind(study)) != "human":
        warnings.append(f"Where human maps are needed, these runs had {kind} maps, not human maps.")
    if study.left_out:
        # Leaving out the runs that went wrong makes a method look better than it is.
        names = [run.name for run in study.left_out]
        named = names if len(names) <= 3 else [*names[:3], f"{len(names) - 3} more"]
        warnings.append(
            f"{wording.count(len(names), 'run')} of {len(names) + len(study.runs)} "
            f"{'is' if len(names) == 1 else 'are'} left out, and in no table or figure: {wording.listed(named)}. The "
            "reasons stand at the end."
        )
    if too_few := questions.too_few_images(measures):
        warnings.append(f"Methods are not compared: {too_few}.")
    return [*warnings, *study.warnings, *measures.warnings]


def _network(run: Run) -> str:
    """Its name in conf/backbone, and timm's, which decides: ``tiny (test_resnet)``."""
    name, timm_name = run.setting("backbone.name", "not known"), run.setting("backbone.timm_name")
    return str(name) if timm_name is None else f"{name} ({timm_name})"


def how_it_was_made(study: Study) -> dict[str, str]:
    """Heading -> text; where runs differ, every value is listed."""
    results = [run.result for run in study.runs]
    settings = {
        key: _distinct(str(run.setting(key, "not known")) for run in study.runs)
        for key in ("data.name", "data.image_size", "protocol.name", "trainer.max_epochs")
    }
    return {
        "Study": study.folder.resolve().name,
        "Finished runs": str(len(study.runs)),
        "Seeds": _seeds(study),
        "Data": settings["data.name"],
        "Trained on": ", ".join(study.train_generators) or "generators not named",
        "Backbone": _distinct(_network(run) for run in study.runs),
        "Image size": settings["data.image_size"] + " pixels",
        "CAM": _distinct(f"{result['cam_cells']} cells" for result in results),
        "Protocol": settings["protocol.name"],
        "Epochs": settings["trainer.max_epochs"] + "; the one of the highest validation accuracy is scored",
        "Time of the runs": _duration(sum(result.get("wall_seconds") or 0 for result in results)),
        "Finished": max(str(result.get("finished", "")) for result in results) or "not known",
        "Versions": _distinct(" ".join(map(str, item)) for result in results for item in result["versions"].items()),
        "Git commit": _distinct(
            (result["git_commit"] or "not known").replace("+", " (with uncommitted changes)") for result in results
        ),
    }


def printed(cells: pd.DataFrame) -> str:
    """A table of text cells for a terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in cells:
        table.add_column(name, justify="left" if is_words(cells[name]) else "right")
    for row in cells.itertuples(index=False):
        # Text, not str: a title in [brackets] would be read as a style.
        table.add_row(*(Text(wording.printable(cell)) for cell in row))
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def _distinct(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _seeds(study: Study) -> str:
    """The seeds of the runs, by method where the methods have different ones."""
    seeds = {title: _ranges([run.seed for run in study.of_method(method)]) for method, title in study.titles.items()}
    distinct = {*seeds.values()}
    return distinct.pop() if len(distinct) == 1 else "; ".join(f"{title}: {own}" for title, own in seeds.items())


def by_reason(left_out: list[LeftOut]) -> list[LeftOut]:
    """The runs with one entry, such as ``droid/seed0–9``, for all seeds of a method that share a reason: a sweep that
    was ended early may lack dozens."""
    seeds: dict[tuple[str, str], list[int]] = {}
    for run in left_out:
        named = re.fullmatch(r"(.*/seed)(0|[1-9]\d*)", run.name, re.DOTALL)
        name, seed = (named[1], [int(named[2])]) if named else (run.name, [])
        seeds.setdefault((name, run.reason), []).extend(seed)
    return [LeftOut(name + _ranges(sorted(numbers)), reason) for (name, reason), numbers in seeds.items()]


def _ranges(seeds: Sequence[int]) -> str:
    """Sorted seeds as ``0–9, 12``."""
    parts: list[list[int]] = []
    for seed in seeds:
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}–{part[-1]}" for part in parts)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
