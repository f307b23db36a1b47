"""The report of a study: files with its tables and figures, and one page that holds them all."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from saliency_entropy.errors import UserError
from saliency_entropy.page import wording
from saliency_entropy.page.table import ShownTable, is_words, latex, markdown
from saliency_entropy.page.web_page import render
from saliency_entropy.run.folder import write_atomically
from saliency_entropy.study import comparisons, figures, questions, robustness, tables
from saliency_entropy.study.bootstrap import read_image_covariance
from saliency_entropy.study.focus import read_study_maps
from saliency_entropy.study.gallery import read_gallery
from saliency_entropy.study.generator_choice import generator_choice
from saliency_entropy.study.questions import SIGNIFICANCE, Answer
from saliency_entropy.study.runs import BASELINE, LeftOut, Study, read_study
from saliency_entropy.study.sections import (
    PHOTOGRAPHS,
    ShownFigure,
    chapters,
    report_figures,
    report_tables,
)
from saliency_entropy.study.tables import MEASURES, Measures

log = logging.getLogger(__name__)
# It tells which glyphs of a font it puts into a PDF.
logging.getLogger("fontTools").setLevel(logging.WARNING)

# The columns of the terminal's table, those that a line holds.
PRINTED = ("Method", "Seeds", "AUROC", "AUROC unseen", "Difference", "95 % interval", "p (Holm)", "CAM entropy / nats")


def report(cfg: DictConfig) -> None:
    """Write the report of ``cfg.study`` below ``cfg.output`` (its folder ``report``, if None) and print its table.

    Raises:
        UserError: see :func:`~saliency_entropy.study.runs.read_study` and
            :func:`~saliency_entropy.study.gallery.read_gallery`; ``cfg.gallery_images`` is not a whole number from 0
            on; the output cannot be written.
    """
    if type(cfg.gallery_images) is not int or cfg.gallery_images < 0:
        raise UserError(
            f"gallery_images is {cfg.gallery_images!r}; give a whole number, 0 for a report without photographs"
        )
    study = read_study(Path(str(cfg.study)))
    log.info("%d finished runs of %d methods in %s", len(study.runs), len(study.methods), study.folder)
    output = study.folder / "report" if cfg.output is None else Path(str(cfg.output))
    maps = read_study_maps(study)
    gallery = read_gallery(maps, cfg.gallery_images)
    measures = tables.measure(study)
    methods = tables.method_table(measures)
    covariance = read_image_covariance(study, measures.measure)
    compared = comparisons.comparison_table(measures, covariance)
    corrupted = robustness.robustness_table(study)
    answered = questions.answers(study, measures, compared)
    shown = report_tables(study, measures, methods, covariance, compared, maps, corrupted)
    pictures = report_figures(study, measures, maps, corrupted, photographs=cfg.gallery_images > 0)
    warnings = all_warnings(study, measures)
    left_out = _by_reason(study.left_out)
    against = compared[compared["against"] == BASELINE] if len(compared) else compared
    lows = dict(zip(against["method"], against["both_low"], strict=True)) if len(against) else {}
    sentence = headline(methods, measures.measure, lows, questions.too_few_images(measures))
    content = {
        "study": study,
        "headline": sentence,
        "warnings": warnings,
        "left_out": left_out,
        "answers": answered,
        "measure": MEASURES[measures.measure],
        "chapters": chapters(shown, pictures),
        "choice": generator_choice(measures, study.titles),
        "gallery": gallery,
        "map_kind": figures.map_kind(study),
        "made": how_it_was_made(study),
    }
    page = render(__package__, "report", {"tied": wording.tied}, content)
    try:
        write(output, page, measures.runs, answered, shown, pictures)
    except OSError as error:
        raise UserError(f"output={output} cannot be written ({error}); give another folder with output=") from None

    log.info("%s", printed(shown[0].cells.filter(PRINTED)))
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
    answered: list[Answer],
    shown: list[ShownTable],
    pictures: list[ShownFigure],
) -> None:
    """Leave everything in ``output``, the page last: where it is, what it names is there too."""
    for picture in pictures:
        write_atomically(output / "figures" / f"{picture.name}.png", picture.png)
        write_atomically(output / "figures" / f"{picture.name}.pdf", figures.pdf(picture.figure))
    for name in {*PHOTOGRAPHS} - {picture.name for picture in pictures}:
        # Of an earlier report: who asks for one without photographs may publish the folder.
        for kind in ("png", "pdf"):
            (output / "figures" / f"{name}.{kind}").unlink(missing_ok=True)
    write_atomically(output / "runs.csv", wording.neutralised(runs).to_csv(index=False))
    write_atomically(output / "questions.md", questions.markdown(answered))
    for table in shown:
        if table.cells.empty:
            continue
        write_atomically(output / f"{table.name}.csv", wording.neutralised(table.numbers).to_csv(index=False))
        write_atomically(output / f"{table.name}.md", markdown(table.cells, table.notes))
        write_atomically(output / f"{table.name}.tex", latex(table.cells, table.notes))
    write_atomically(output / "index.html", page)


def headline(methods: pd.DataFrame, measure: str, lows: Mapping[str, float], too_few: str = "") -> str:
    """One sentence or two on the method of the highest mean AUROC, and whether it is shown to beat cross-entropy.

    Args:
        methods: :func:`~saliency_entropy.study.tables.method_table`.
        measure: :attr:`~saliency_entropy.study.tables.Measures.measure`.
        lows: method -> the lower end of the interval of its difference from cross-entropy, over seeds and images.
        too_few: :func:`~saliency_entropy.study.questions.too_few_images`.
    """
    what = "AUROC on unseen generators" if measure == "auroc_unseen" else "AUROC (all generators)"
    known = methods.dropna(subset=[f"{measure}_mean"])
    if known.empty:
        return "The test images are all real or all synthetic, so there is no AUROC."
    best = known.loc[known[f"{measure}_mean"].idxmax()]
    value = f"{best[f'{measure}_mean']:.3f}"
    if too_few:
        return f"Nothing can be said about which method is better: {too_few}."
    if len(known) == 1:
        seeds = f"{best['seeds']} seed{'s' if best['seeds'] > 1 else ''}"
        return f"{best['title']} reaches a mean {what} of {value} over {seeds}; there is no other method beside it."
    if methods["seeds"].max() == 1:
        return (
            f"With one seed a method, nothing can be said about which method is better. The highest {what} is "
            f"{value}, {best['title']}."
        )
    first = f"{best['title']} has the highest mean {what}, {value}"
    if best["method"] == BASELINE:
        return f"{first}: no other method is shown to be better."
    if pd.isna(best["difference"]):
        return f"{first}. Whether it is better than cross-entropy is not shown: there is no pair of runs to compare."
    above = f"{wording.number(best['difference'], sign='+')} from cross-entropy"
    if pd.isna(best["p_holm"]):
        return f"{first}: {above}. That it is better is not shown: the seeds that both have allow no interval."
    interval = f"95 % interval {wording.interval(best['difference_low'], best['difference_high'], sign='+')}"
    compared = f"{first}: {above} ({interval}; {wording.p_equals(best['p_holm'])} after Holm’s correction)"
    if best["difference_low"] > 0 and best["p_holm"] < SIGNIFICANCE:
        if lows.get(best["method"], 1) <= 0:
            return (
                f"{compared}. The interval excludes 0 for these test images; over other images, too, that it is better "
                "is not shown."
            )
        return f"{compared}. The interval excludes 0."
    if best["difference_high"] < 0:
        return (
            f"{compared}. On the seeds in common it is below cross-entropy: its higher mean comes from the other "
            "seeds, and that it is better is not shown."
        )
    if best["difference_low"] > 0:
        return f"{compared}. The interval excludes 0, but not after the correction: that it is better is not shown."
    return f"{compared}. The interval includes 0: that it is better than cross-entropy is not shown."


def all_warnings(study: Study, measures: Measures) -> list[str]:
    """What a reader must know before any number, the gravest first."""
    names = {_at(run.config, "data.name") for run in study.runs}
    warnings = []
    if "builtin" in names:
        warnings.append(
            "The faces are drawn by a program (data: builtin). These figures show that everything works; they say "
            "nothing about real faces."
        )
    if (kind := figures.map_kind(study)) != "human":
        warnings.append(f"Where human maps are needed, these runs had {kind} maps, not human maps.")
    if study.left_out:
        # Who leaves out the runs that went wrong makes the others look better than the method is.
        names = [run.name for run in study.left_out]
        named = names if len(names) <= 3 else [*names[:3], f"{len(names) - 3} more"]
        count = wording.count(len(names), "run")
        warnings.append(
            f"{count} of {len(names) + len(study.runs)} {'is' if len(names) == 1 else 'are'} left out, and in no table "
            f"or figure: {wording.listed(named)}. The reasons stand at the end."
        )
    if too_few := questions.too_few_images(measures):
        warnings.append(f"Methods are not compared: {too_few}.")
    return [*warnings, *study.warnings, *measures.warnings]


def how_it_was_made(study: Study) -> dict[str, str]:
    """Heading -> text; what differs between runs is listed."""
    seconds = [run.result.get("wall_seconds") for run in study.runs]
    seeds = {method: [run.seed for run in study.of_method(method)] for method in study.methods}
    seed_sets = {tuple(value) for value in seeds.values()}
    versions = _distinct(f"{name} {version}" for run in study.runs for name, version in run.result["versions"].items())
    commits = _distinct(
        commit.replace("+", " (with uncommitted changes)") if (commit := run.result["git_commit"]) else "not known"
        for run in study.runs
    )
    if len(seed_sets) == 1:
        seed_text = _ranges(next(iter(seed_sets)))
    else:
        seed_text = "; ".join(f"{study.titles[method]}: {_ranges(value)}" for method, value in seeds.items())
    return {
        "Study": study.folder.resolve().name,
        "Finished runs": str(len(study.runs)),
        "Seeds": seed_text,
        "Data": _config_values(study, "data.name"),
        "Trained on": ", ".join(study.train_generators) or "generators not named",
        "Backbone": _config_values(study, "backbone.name"),
        "Image size": _config_values(study, "data.image_size") + " pixels",
        "CAM": _distinct(f"{run.result['cam_cells']} cells" for run in study.runs),
        "Protocol": _config_values(study, "protocol.name"),
        "Epochs": _config_values(study, "trainer.max_epochs")
        + "; the one of the highest validation accuracy is scored",
        "Time of the runs": _duration(sum(value for value in seconds if value is not None)),
        "Finished": max(str(run.result.get("finished", "")) for run in study.runs) or "not known",
        "Versions": versions,
        "Git commit": commits,
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


def _config_values(study: Study, key: str) -> str:
    return _distinct(str(_at(run.config, key)) for run in study.runs)


def _at(config: dict[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part, "not known") if isinstance(value, dict) else "not known"
    return value


def _distinct(values: Any) -> str:
    return ", ".join(dict.fromkeys(values))


def _by_reason(left_out: list[LeftOut]) -> list[LeftOut]:
    """One entry for the seeds of a method that share a reason, ``droid/seed0–9``: a sweep that was ended early may lack
    dozens."""
    seeds: dict[tuple[str, str], list[int]] = {}
    for run in left_out:
        named = re.fullmatch(r"(.*/seed)(0|[1-9]\d*)", run.name, re.DOTALL)
        name, seed = (named[1], [int(named[2])]) if named else (run.name, [])
        seeds.setdefault((name, run.reason), []).extend(seed)
    return [LeftOut(name + _ranges(sorted(numbers)), reason) for (name, reason), numbers in seeds.items()]


def _ranges(seeds: tuple[int, ...] | list[int]) -> str:
    """``0–9, 12`` for these seeds, which are sorted."""
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
