"""The report of a study with variants, or of several studies: a page that compares them, and the report of each."""

import logging
import os
import re
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from saliency_entropy.errors import UserError, whole_number, writing
from saliency_entropy.page import wording
from saliency_entropy.page.web_page import render
from saliency_entropy.run.ranking import SUFFIXES
from saliency_entropy.run.variants import variant_folders
from saliency_entropy.study import axes, axis_figures, questions, report, tables
from saliency_entropy.study.axes import StudyAxes
from saliency_entropy.study.contrasts import MIN_SEEDS, SIGNIFICANCE
from saliency_entropy.study.sections import Chapter, ShownFigure

TIME = "Time of the runs"  # which each report gives for its own

log = logging.getLogger(__name__)


def write_reports(cfg: DictConfig) -> None:
    """Write the report of ``cfg.study`` by :func:`~saliency_entropy.study.report.report`. Of a study with variants, or
    of a list of studies, write a page that compares them, and below it the report of each.

    Raises:
        UserError: see :func:`~saliency_entropy.study.axes.read_axes` and
            :func:`~saliency_entropy.study.report.report`.
    """
    folders = [Path(str(study)) for study in (cfg.study if OmegaConf.is_list(cfg.study) else [cfg.study])]
    if not folders:
        raise UserError("study=[] names no study; give the folder of one, such as study=runs/demo")
    if len(folders) == 1 and not variant_folders(folders[0]):
        if cfg.reference is not None:
            raise UserError(f"reference={cfg.reference} names a variant, and study={folders[0]} has none; leave it out")
        report.report(OmegaConf.merge(cfg, {"study": str(folders[0])}))
        return
    whole_number("gallery_images", cfg.gallery_images, 0)
    reference = None if cfg.reference is None else str(cfg.reference)
    compared = axes.read_axes(folders)
    measures = [compared.measure + suffix for suffix in SUFFIXES.values()]
    found = {measure: axes.variant_table(compared, measure, reference) for measure in measures}
    place = folders[0] if len(folders) == 1 else folders[0].parent / "+".join(compared.names).replace("/", "-")
    output = place / "report" if cfg.output is None else Path(str(cfg.output))
    for variant in compared.variants:
        log.info("%s: %d finished runs", wording.printable(variant.name), len(variant.study.runs))
        above = os.path.relpath(output / "index.html", output / variant.name)
        report.write_report(variant.study, variant.measures, output / variant.name, cfg.gallery_images, above)
    with writing(f"output={output}", "give another folder with output="):
        _write_comparison(compared, found, output, reference)


def _write_comparison(compared: StudyAxes, found: dict[str, pd.DataFrame], output: Path, reference: str | None) -> None:
    overviews = [axes.shown_overview(compared, table, measure) for measure, table in found.items()]
    details = [axes.shown_variants(compared, table, measure, reference) for measure, table in found.items()]
    settings = axes.shown_settings(axes.differing_settings(compared))
    pictures = [_picture(compared, measure) for measure in found]
    warnings, left_out = _warnings(compared), report.by_reason(compared.left_out)
    sentence = headline(compared, found, reference)
    content = {
        "above": "",
        "headline": sentence,
        "evidence": [],
        "leading": [],
        "warnings": warnings,
        "left_out": left_out,
        "answers": [],
        "unanswered": "",
        "chapters": [
            Chapter("Along the axes", [*pictures, *overviews]),
            Chapter("Differences", [*details, settings]),
        ],
        "choice": None,
        "gallery": None,
        "pages": {variant.name: quote(f"{variant.name}/index.html") for variant in compared.variants},
        "made": _how_it_was_made(compared),
    }
    page = render(report.__package__, "report", {"tied": wording.tied}, content)
    report.write(output, page, all_runs(compared), "", [*overviews, *details, settings], pictures)
    report.log_summary(overviews[0].cells, sentence, warnings, left_out, output)


def all_runs(compared: StudyAxes) -> pd.DataFrame:
    """The figures of every run, :attr:`~saliency_entropy.study.tables.Measures.runs`, after its variant and values."""
    own = [(variant, variant.measures.runs) for variant in compared.variants]
    places = [pd.DataFrame({"variant": one.name} | one.values, index=runs.index) for one, runs in own]
    return pd.concat([place.join(runs) for place, (_, runs) in zip(places, own, strict=True)], ignore_index=True)


def headline(compared: StudyAxes, found: dict[str, pd.DataFrame], reference: str | None = None) -> str:
    """Which method in which variant has the highest mean AUROC, and how many differences are shown, by every score."""
    table = found[compared.measure]
    if table[f"{compared.measure}_mean"].isna().all():
        return "The test images are all real or all synthetic, so there is no AUROC."
    if too_few := questions.too_few_images(compared.variants[0].measures):
        return f"Nothing can be said about which method is better: {too_few}."
    best = {name: tables.highest(own, f"{name}_mean") for name, own in found.items()}
    values = [f"{rows[f'{name}_mean'].max():.3f} by {axes.ranked_by(name)}" for name, rows in best.items()]
    places = [wording.first_few(list(rows["title"] + " in " + rows["variant"])) for rows in best.values()]
    what = f"the highest mean {tables.MEASURES[compared.measure].replace(',', ' on')}"
    verb = "has" if len(best[compared.measure]) == 1 else "share"
    highest = f"{places[0]} {verb} {what}: {wording.listed(values)}."
    if len({*places}) > 1:
        named = " or ".join(f"{place} ({value})" for place, value in zip(places, values, strict=True))
        highest = f"Which method and variant has {what} depends on the score: {named}."
    enough = table["p_holm"].notna() & (table["pairs"] >= MIN_SEEDS)
    signs = pd.DataFrame(
        {name: np.sign(own["difference"]) * (own["p_holm"] < SIGNIFICANCE) for name, own in found.items()}
    )
    if not enough.any():
        return f"{highest} No difference can be judged: none is over {MIN_SEEDS} seeds or more."
    above, below = ((enough & (signs == sign).all(axis=1)).sum() for sign in (1, -1))
    shown = (
        f"{highest} Of {wording.count(enough.sum(), 'difference')} from "
        f"{reference or 'cross-entropy'} over at least {MIN_SEEDS} seeds, {above} are shown to be above 0 and {below} "
        "below, by every score and after Holm’s correction."
    )
    if not above + below:
        return shown
    return (
        f"{shown} What is shown is exploratory and holds for these test images ({_images(compared)}); how far others "
        "would move it, the reports of the variants say."
    )


def _images(compared: StudyAxes) -> str:
    """The test images that methods are compared by, which all variants share."""
    runs, unseen = compared.variants[0].measures.runs.iloc[0], compared.measure == "auroc_unseen"
    of = " of unseen generators" if unseen else ""
    return f"{runs['test_unseen' if unseen else 'test_synthetic']} synthetic{of}, {runs['test_real']} real"


def _picture(compared: StudyAxes, measure: str) -> ShownFigure:
    title, key = axes.measure_title(measure), axes.numeric_axis(compared)
    figure = axis_figures.auroc_by_axis(compared, measure)
    # That of the entropy asked for is dotted.
    dashed = any(line.get_linestyle() == "--" for panel in figure.axes for line in panel.lines)
    along = " Dashed: a method without this setting, or one that it does not change." if dashed else ""
    if key and key.endswith(axis_figures.TARGET):
        along += " Shaded: the entropies that are best in the paper, where they are those of the training images."
    return ShownFigure(
        f"{measure}_by_axis",
        title,
        figure,
        f"{title}, and the CAM entropy of the test images, by {key or 'variant'}: mean over the seeds ± 1 standard "
        f"deviation.{along}",
    )


def _warnings(compared: StudyAxes) -> list[str]:
    """The warnings of the variants' reports, with the variants, unless all have it; first, what hinders comparing.
    Of those that differ in nothing but their numbers, the first stands for all."""
    alike: dict[str, dict[str, list[str]]] = {}
    for variant in compared.variants:
        for warning in report.all_warnings(variant.study, variant.measures):
            alike.setdefault(re.sub(r"\d[\d.,]*", "#", warning), {}).setdefault(warning, []).append(variant.name)
    count, found = len(compared.variants), []
    for own in alike.values():
        (text, names), *others = own.items()
        said = text if len(names) == count else f"{wording.first_few(names)}: {text}"
        also = [name for _, further in others for name in further]
        found.append(f"{said} (Likewise, with other numbers: {wording.first_few(also)}.)" if also else said)
    if len({variant.study.runs[0].result["cam_cells"] for variant in compared.variants}) > 1:
        found.insert(0, "The CAMs have different numbers of cells, so that their entropies are on different scales.")
    if missing := [own.name for own in compared.left_out if "/seed" not in own.name]:
        found.insert(0, f"In no table or figure, for the reasons at the end: {wording.first_few(missing)}.")
    if count == 1:
        found.insert(0, f"Only {compared.variants[0].name} can be shown; there is nothing beside it.")
    return found


def _how_it_was_made(compared: StudyAxes) -> dict[str, str]:
    made = [report.how_it_was_made(variant.study) for variant in compared.variants]
    values = {key: [axes.axis_value(variant.values.get(key)) for variant in compared.variants] for key in compared.keys}
    return {name: ", ".join(dict.fromkeys(own[name] for own in made)) for name in made[0] if name != TIME} | {
        "Study": " and ".join(compared.names),
        "Finished runs": str(sum(len(variant.study.runs) for variant in compared.variants)),
        "Axes": "; ".join(f"{key}: {', '.join(dict.fromkeys(own))}" for key, own in values.items()),
    }
