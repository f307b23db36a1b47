"""The variants of a study side by side, or studies that were trained apart: AUROC and CAM entropy along the axes, and
what else differs."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from operator import itemgetter
from pathlib import Path

import pandas as pd

from saliency_entropy.errors import UserError, listing
from saliency_entropy.page import wording
from saliency_entropy.page.table import Column, ShownTable, shown, shown_table
from saliency_entropy.run.folder import flatten, scientific_config
from saliency_entropy.run.ranking import RANKINGS, SUFFIXES
from saliency_entropy.run.study_folders import method_order, seed_folders
from saliency_entropy.run.variants import read_variant, short_keys, variant_folders
from saliency_entropy.study import contrasts, tables
from saliency_entropy.study.run_files import images_of, usual
from saliency_entropy.study.runs import (
    BASELINE,
    METHOD_KEYS,
    VARIED,
    LeftOut,
    Run,
    Study,
    TestImages,
    is_below,
    read_study,
)
from saliency_entropy.study.statistics import holm, paired_difference

STUDY = "study"  # the axis of studies that were trained apart
MAPS = "data.human_maps"  # above the settings that change nothing for cross-entropy, which uses no map
# Of result.json, what may differ beside the configuration.
MADE = ("cam_cells", "data_hash", "images_hash", "map_range", "git_commit", "versions")
SHOWN_TEXT = re.compile(r"[\w.+ -]{1,40}")  # of a configuration: a page is passed on, and longer text may be a path


@dataclass(frozen=True, eq=False)
class Variant:
    """The runs of one place on the axes.

    Attributes:
        name: of its folder, ``fraction=0.25``; after that of its study, where there are several.
        values: axis -> text or number; None where these runs have no such setting.
        study: its runs.
        measures: what their scores say.
        comparable: what variants must share to be compared: the test images, and which of them are unseen.
        digest: of the bytes of the test images' files, which they must share where it is known; else "".
    """

    name: str
    values: dict[str, str | float | None]
    study: Study
    measures: tables.Measures
    comparable: tuple[str, tuple[str, ...]]
    digest: str


@dataclass(frozen=True, eq=False)
class StudyAxes:
    """Variants that can be compared.

    Attributes:
        names: of the studies.
        keys: the axes, such as ``data.human_maps.fraction``; ``study`` is the first, if there are several studies.
        variants: by study, then by their values.
        left_out: variants, and runs of the others, that are in no table or figure.
    """

    names: list[str]
    keys: list[str]
    variants: list[Variant]
    left_out: list[LeftOut]

    @property
    def measure(self) -> str:
        return self.variants[0].measures.measure

    @property
    def titles(self) -> dict[str, str]:
        """Method -> its name in tables and figures, in order."""
        titles = {method: title for variant in self.variants for method, title in variant.study.titles.items()}
        return {method: titles[method] for method in sorted(titles, key=method_order)}

    def stands_for_all(self, method: str) -> bool:
        """Whether the one variant that has a method stands for the others, too: they differ in nothing but human maps
        (:data:`MAPS`), which its loss does not use."""
        own = [runs for variant in self.variants if (runs := variant.study.of_method(method))]
        return len(own) == 1 < len(self.variants) and _unchanged_by(self.keys, own[0])

    def baseline(self, variant: Variant, method: str, reference: str | None = None) -> pd.DataFrame:
        """The runs that those of a method in a variant are compared with, a part of ``measures.runs``: cross-entropy of
        the same variant or, if it has none, of one that differs only in that it has no such setting, or in human maps
        (:data:`MAPS`) that its loss does not use; with a ``reference``, the name of a variant, the same method there.
        Empty, if there are none but the runs themselves. Raises UserError if there is no such reference."""
        named = {own.name: own for own in self.variants}
        if reference not in (None, *named):
            raise UserError(f"reference={reference} is not a variant that can be compared; choose of {listing(named)}")
        fits: list[tuple[tuple[bool, int, int], Variant]] = []  # itself, the nearest, of most runs
        for own in (variant, *self.variants):
            differing = [key for key, value in own.values.items() if value not in (None, variant.values.get(key))]
            runs = own.study.of_method(BASELINE)
            if runs and _unchanged_by(differing, runs):
                fits.append(((own is not variant, len(differing), -len(runs)), own))
        nearest = min(fits, key=itemgetter(0), default=(None, variant))[1]
        other, chosen = (nearest, BASELINE) if reference is None else (named[reference], method)
        runs = other.measures.runs
        return runs[(runs["method"] == chosen) & ((other, chosen) != (variant, method))]


def _unchanged_by(keys: Sequence[str], runs: Sequence[Run]) -> bool:
    """Whether runs come out the same wherever these settings are: all are of human maps, which no loss of them uses."""
    return not keys or (all(is_below(key, [MAPS]) for key in keys) and not any(map(contrasts.uses_human_maps, runs)))


def read_axes(folders: Sequence[Path]) -> StudyAxes:
    """Read the variants of studies; a study without variants is one itself.

    A variant is left out, with the reason, if it has no finished run, or if other images are its test images, or unseen
    ones, than those of most. Raises UserError if a folder is missing or is given twice, or no variant is left.
    """
    names, images = _names(folders), TestImages()
    found: list[Variant] = []
    left_out: list[LeftOut] = []
    for owner, study_name in zip(folders, names, strict=True):
        parts = variant_folders(owner)
        beside = seed_folders(owner) if parts else []
        left_out += [LeftOut(f"{run.parent.name}/{run.name}", "it is in no variant") for run in beside]
        for folder in parts or [owner]:
            several = {STUDY: study_name} if len(folders) > 1 else {}
            name = "/".join((*several.values(), *([folder.name] if parts else [])))
            try:
                study = read_study(folder)
            except UserError as error:
                left_out.append(LeftOut(name, str(error).replace(str(folder), name)))
                continue
            scores = study.runs[0].test_scores(("path", "label", "generator"))
            relatives = study.runs[0].result.get("relatives", [])
            comparable = images.fingerprint(scores), (*study.train_generators, "", *relatives)
            digest = max(images_of(run.folder / "scores" / "test.parquet") for run in study.runs)
            values = dict(several)
            for key, value in (read_variant(folder) or {}).items():
                values[key] = value if value is None or type(value) in (str, int, float) else json.dumps(value)
            found.append(Variant(name, values, study, tables.measure(study), comparable, digest))
    foreign = _foreign(found)
    left_out += [LeftOut(variant.name, reason) for variant, reason in foreign.items()]
    variants = [variant for variant in found if variant not in foreign]
    if not variants:
        raise UserError("there is nothing to compare: " + listing(f"{own.name}: {own.reason}" for own in left_out))
    left_out += [LeftOut(f"{own.name}/{run.name}", run.reason) for own in variants for run in own.study.left_out]
    keys = dict.fromkeys(key for variant in variants for key in variant.values)
    return StudyAxes(names, list(keys), variants, left_out)


def variant_table(axes: StudyAxes, measure: str | None = None, reference: str | None = None) -> pd.DataFrame:
    """One row per variant and method, in numbers.

    Args:
        axes: the variants.
        measure: a column of :attr:`~saliency_entropy.study.tables.Measures.runs`; None for the AUROC by which a report
            compares methods.
        reference: see :meth:`StudyAxes.baseline`.

    Returns:
        ``variant``, a column for each axis, ``method, title, seeds``; ``_mean`` and ``_std`` over the seeds of the
        measure and of ``cam_entropy`` (nats); from :meth:`StudyAxes.baseline`, seed by seed: ``pairs``, mean
        ``difference``, its 95 % interval by Student's t ``difference_low, difference_high``, ``p`` of the paired
        t-test, and ``p_holm``, corrected for all tests of the table. NaN where there is no figure.
    """
    measure = measure or axes.measure
    rows = []
    for variant in axes.variants:
        runs = variant.measures.runs
        place = {"variant": variant.name} | {key: variant.values.get(key) for key in axes.keys}
        for row in tables.over_seeds(runs, ["method", "title"], [measure, "cam_entropy"]).to_dict("records"):
            values = runs[runs["method"] == row["method"]].set_index("seed")[measure]
            baseline = axes.baseline(variant, row["method"], reference).set_index("seed")[measure]
            shared = values.index.intersection(baseline.index)
            found = paired_difference(values[shared].to_numpy(), baseline[shared].to_numpy())
            interval = {"difference_low": found.low, "difference_high": found.high}
            rows.append(place | row | {"pairs": len(shared), "difference": found.mean} | interval | {"p": found.p})
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p"].to_numpy()))


def numeric_axis(axes: StudyAxes) -> str | None:
    """The first axis whose values are numbers, at least two."""
    for key in axes.keys:
        values = {variant.values.get(key) for variant in axes.variants} - {None}
        if len(values) > 1 and all(isinstance(value, Real) for value in values):
            return key
    return None


def differing_settings(axes: StudyAxes) -> pd.DataFrame:
    """What differs between the variants beside the axes, the method and the seeds: ``setting, value, variants``, a row
    for each value of a setting that has several. Those of a method's loss are compared for the method."""
    apart = [key for key in (*axes.keys, *VARIED) if key not in METHOD_KEYS]
    found: dict[tuple[str, str], dict[str, str]] = {}
    for variant in axes.variants:
        for method in variant.study.methods:
            run = variant.study.of_method(method)[0]
            made = flatten({name: run.result.get(name) for name in MADE})
            for key, value in (scientific_config(run.config) | made).items():
                if not is_below(key, apart):
                    place = key, method if is_below(key, METHOD_KEYS) else ""
                    found.setdefault(place, {}).setdefault(variant.name, json.dumps(value, default=str))
    rows = []
    for (key, method), values in found.items():
        if not method:
            values = {variant.name: values.get(variant.name, '"not set"') for variant in axes.variants}
        for value in dict.fromkeys(values.values()) if len({*values.values()}) > 1 else ():
            names = wording.first_few([name for name, own in values.items() if own == value], 5)
            setting = f"{key} ({method})" if method else key
            rows.append({"setting": setting, "value": _shown(json.loads(value)), "variants": names})
    return pd.DataFrame(rows, columns=["setting", "value", "variants"])


def shown_variants(axes: StudyAxes, table: pd.DataFrame, measure: str, reference: str | None = None) -> ShownTable:
    """:func:`variant_table` as readers see it."""
    same = (
        "cross-entropy of the same variant (without such runs, of one that lacks only the setting, or differs only in "
        "the human maps, which cross-entropy does not use)"
    )
    of = same if reference is None else f"the same method in {reference}"
    about = [
        f"{measure_title(measure)}, mean ± standard deviation over the seeds (n − 1); CAM entropy of the test images.",
        f"Differences are from {of} with the same seed: mean, 95 % interval by Student’s t, and p of the paired t-test "
        f"after Holm’s correction for the {table['p'].notna().sum()} tests of this table. “–”: what is compared with, "
        "or fewer than two seeds in common. With reference=VARIANT they are from the same method there.",
    ]
    if len(one := table["variant"][table["seeds"] == 1].unique()):
        about.append(f"One seed of a method says nothing about another, as in {listing(one)}.")
    columns = [
        *(Column(short, lambda row, key=key: axis_value(row[key])) for key, short in short_keys(axes.keys).items()),
        Column("Method", "title"),
        Column("Seeds", "seeds"),
        Column("AUROC", measure, "spread", notes=about),
        Column("Difference", "difference", "number", sign="+"),
        Column("95 % interval", "difference_", "interval", sign="+"),
        Column("p (Holm)", "p_holm", "p"),
        Column("CAM entropy / nats", "cam_entropy", "spread", 2),
    ]
    return shown_table(f"variants_{measure}", f"Variants and methods: {measure_title(measure)}", table, columns)


def shown_overview(axes: StudyAxes, table: pd.DataFrame, measure: str) -> ShownTable:
    """The AUROCs of :func:`variant_table`: one row per variant, one column per method."""
    columns = [Column("Variant", "variant"), *tables.columns_per_method(axes.titles)]
    rows = tables.per_method(table, ["variant"], measure)
    return shown_table(f"overview_{measure}", f"{measure_title(measure)}, mean ± standard deviation", rows, columns)


def shown_settings(table: pd.DataFrame) -> ShownTable:
    """:func:`differing_settings` as readers see it."""
    about = "Some follow from an axis, as the size of images from the backbone; any other may explain a difference."
    note = about if len(table) else "Beside the axes, the method and the seeds, nothing differs."
    cells = shown(table, [Column(name.capitalize(), name) for name in table])
    return ShownTable("settings", "What differs beside the axes", table, cells, [note])


def measure_title(measure: str) -> str:
    """``AUROC, unseen generators``, and the score that ranks the images."""
    return f"{tables.MEASURES[measure.removesuffix(SUFFIXES['margin'])]}, by {ranked_by(measure)}"


def ranked_by(measure: str) -> str:
    """The score of :data:`~saliency_entropy.run.ranking.RANKINGS` that a measure ranks images by, for readers."""
    return RANKINGS["margin" if measure.endswith(SUFFIXES["margin"]) else "logit"]


def axis_value(value: str | float | None) -> str:
    """A value of an axis, for readers."""
    if value is None or value != value:  # NaN, which tables have for None
        return wording.NONE
    return f"{value:g}" if isinstance(value, Real) else value


def _names(folders: Sequence[Path]) -> list[str]:
    """The end of each study's path that tells it from the others; raises UserError if one is missing or there twice."""
    for number, folder in enumerate(folders):
        if not folder.is_dir():
            raise UserError(f"study={folder} is not a folder; give the folders of studies, as study=[runs/a,runs/b]")
        if folder.resolve() in [other.resolve() for other in folders[:number]]:
            raise UserError(f"study= names {folder} twice; give each study once")
    parts = [folder.resolve().parts for folder in folders]
    ends = (["/".join(own[-length:]) for own in parts] for length in range(1, max(map(len, parts)) + 1))
    return next(names for names in ends if len({*names}) == len(names))


def _foreign(variants: Sequence[Variant]) -> dict[Variant, str]:
    """Why variants are left out that cannot be compared with most; raises UserError if as many have other images."""
    (most, count), *others = Counter(variant.comparable for variant in variants).most_common() or [(None, 0)]
    reasons = {}
    for variant in variants:
        if variant.comparable != most:
            first = next(own for own in variants if own.comparable == most)
            alike = variant.comparable[0] == first.comparable[0]
            why = f"scored on other {'unseen generators' if alike else 'test images'} than {first.name}"
            if (variant.comparable, count) in others:
                raise UserError(f"{variant.name} was {why}, so that they cannot stand in one table; make two reports")
            reasons[variant] = why
    alike = usual(kept.digest for kept in variants if kept not in reasons)
    why = "scored on test images whose files have other bytes than those of the other variants, under the same names"
    return {variant: why for variant in variants if variant.digest not in alike} | reasons


def _shown(value: object) -> str:
    """A setting for readers."""
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    text = (value if isinstance(value, str) else json.dumps(value)) or "not known"
    return text if SHOWN_TEXT.fullmatch(text) else "(not shown)"
