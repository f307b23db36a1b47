"""The tables of a study on AUROC: of each run, each method, and each generator."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from saliency_entropy.metrics import unseen_images
from saliency_entropy.page import wording
from saliency_entropy.page.table import Column, ShownTable, shown_table
from saliency_entropy.run.ranking import RANKINGS, SUFFIXES
from saliency_entropy.study import contrasts, statistics
from saliency_entropy.study.contrasts import EXPLORATORY, Family
from saliency_entropy.study.run_figures import (
    AUROCS,
    GROUP_FIGURES,
    MIN_IMAGES,
    group_columns,
    run_figures,
    unknown_sources,
)
from saliency_entropy.study.runs import BASELINE, Study

GENERATOR_COLUMNS = ["generator", "seen", "against", "synthetic", "real"]
GROUP_COLUMNS = ["column", "group", "synthetic", "real", "against"]
FALSE_POSITIVE_RATES = np.linspace(0, 1, 201)
METHOD_FIGURES = (
    "auroc", "auroc_unseen", "auroc_macro", "auroc_unseen_macro", "accuracy", "cam_entropy", "focus_area",
)  # fmt: skip
MEASURES = {"auroc": "AUROC, all generators", "auroc_unseen": "AUROC, unseen generators"}
# Of a table of both scores.
RANKED_BY = Column("Ranked by", lambda row: RANKINGS[row["score"]])
VERDICT = Column(
    "Verdict", lambda row: (row["verdict"] or wording.NONE) + (" (depends on the score)" if row["depends"] else "")
)


@dataclass(frozen=True, eq=False)
class Measures:
    """What the test scores of a study say.

    Attributes:
        runs: one row per run: ``method, title, seed`` and its figures. In [0, 1]: ``auroc`` of all synthetic images
            against all real ones, ``auroc_unseen`` of those by generators not in training nor relatives of one,
            ``auroc_macro`` and ``auroc_unseen_macro`` (the mean of these generators' own AUROCs), ``accuracy``.
            ``cam_entropy``, the mean over the test images, in nats; ``focus_area``, exp of it, in CAM cells;
            ``common_mode_ratio``, see :func:`~saliency_entropy.study.run_figures.common_mode_ratio`. What
            :func:`~saliency_entropy.study.error_tables.operating_point_table` and
            :func:`~saliency_entropy.study.error_tables.calibration_table` average over the seeds. ``val_real``,
            ``test_real``, ``test_synthetic`` and ``test_unseen``, numbers of images. What ranks images is by
            :attr:`score`, and with ``_margin`` by the margin.
        generators: one row per run, generator and set of real images: ``method, seed, generator, seen`` (in training:
            yes, no, relative or not known), ``against`` (the sources of the real images, "" for all), ``synthetic`` and
            ``real`` (numbers of images), ``auroc`` and ``auroc_margin`` (NaN with fewer than 30 of either).
        groups: one row per run and group of test images: ``method, seed, column`` (of the manifest), ``group`` (the
            value there), ``synthetic`` and ``real`` (numbers of images), ``against`` (which other images a group of
            one class is ranked with: all real, all synthetic), ``auroc, auroc_margin``, and at the threshold of equal
            errors on validation ``apcer`` and ``bpcer``; each NaN with fewer than 30 images that it needs.
        ungrouped: columns of the manifest with too many different values to group by.
        rocs: score -> method -> ``(runs, G)``, the true positive rates at :data:`FALSE_POSITIVE_RATES`, of
            :attr:`measure`.
        measure: the AUROC that methods are compared by: ``auroc_unseen``, or ``auroc`` if no generator is unseen.
        warnings: sentences on scores that do not fit together or do not allow a figure.
        family: the comparisons between methods that were named before any data.
        score: what images are ranked by, one of ``run.ranking.RANKINGS``.
    """

    runs: pd.DataFrame
    generators: pd.DataFrame
    groups: pd.DataFrame
    ungrouped: list[str]
    rocs: dict[str, dict[str, np.ndarray]]
    measure: str
    warnings: list[str]
    family: Family
    score: str = "logit"

    @property
    def roc(self) -> dict[str, np.ndarray]:
        """:attr:`rocs` by :attr:`score`."""
        return self.rocs[self.score]

    def by(self, score: str) -> "Measures":
        """These measures, which are by logit 1, with the images ranked by any score."""

        def ranked(table: pd.DataFrame) -> pd.DataFrame:
            own = [name for name in table if name.endswith(f"_{score}")]
            return table.assign(**{name.removesuffix(f"_{score}"): table[name] for name in own})

        tables = {name: ranked(getattr(self, name)) for name in ("runs", "generators", "groups")}
        return replace(self, score=score, **tables)


def by_score(table: Callable[[Measures], pd.DataFrame], measures: Measures) -> pd.DataFrame:
    """The rows that ``table`` makes of the measures by each score, those of all scores together, in column ``score``;
    where there is a verdict, ``depends`` says whether it is another by another score."""
    parts = [table(measures.by(score)).assign(score=score) for score in RANKINGS]
    both = pd.concat(parts).sort_index(kind="stable").reset_index(drop=True)
    if "verdict" in both:
        keys = [name for name in ("method", "against") if name in both]
        both["depends"] = both.groupby(keys, sort=False)["verdict"].transform("nunique") > 1
    return both


def measure(study: Study) -> Measures:
    """What the test and validation scores of every run say, read one run after the other."""
    columns, ungrouped = group_columns(study.runs[0])
    rows, by_generator, by_group, warnings = [], [], [], []
    problems: dict[str, list[str]] = {}
    compared: dict[str, tuple[tuple[object, ...], ...]] = {}
    rocs: dict[str, dict[str, list[np.ndarray]]] = {score: {method: [] for method in study.methods} for score in AUROCS}
    for run in study.runs:
        test = run.test_scores(optional=columns)
        if unusable := [column for column in columns if column not in test]:
            warnings.append(
                f"{run.name}: scores/test.parquet has no column of values {wording.listed(unusable)}; the "
                "tables of these groups are without this run."
            )
        found = run_figures(test, run.val_scores(), study.train_generators, columns, study.relatives)
        name = {"method": run.method, "seed": run.seed}
        rows.append({"method": run.method, "title": study.titles[run.method], "seed": run.seed} | found.figures)
        compared[run.name] = tuple(tuple(row[column] for column in GENERATOR_COLUMNS) for row in found.generators)
        by_generator += [name | row for row in found.generators]
        by_group += [name | row for row in found.groups]
        for score, curve in found.roc.items():
            rocs[score][run.method].append(curve.interpolated(FALSE_POSITIVE_RATES))
        for problem in found.problems:
            problems.setdefault(problem, []).append(run.name)
        noted = run.result["test"]["auroc"]
        if noted is not None and not np.isclose(rows[-1]["auroc"], noted, rtol=0, atol=1e-3, equal_nan=True):
            warnings.append(
                f"{run.name}: scores/test.parquet gives AUROC {rows[-1]['auroc']:.4f}, result.json says {noted:.4f}; "
                "the tables follow the scores."
            )
    unknown = unknown_sources(test)
    if unknown:
        warnings.append(f"Column compare_with names {', '.join(unknown)}, but no real test image has such a source.")
    warnings += _compared_differently(compared)
    warnings += [f"{_named_runs(names, len(study.runs))}: {problem}" for problem, names in problems.items()]
    return Measures(
        pd.DataFrame(rows),
        # Without synthetic test images there is no row to take the columns from.
        pd.DataFrame(by_generator, columns=["method", "seed", *GENERATOR_COLUMNS, *AUROCS.values()]),
        pd.DataFrame(by_group, columns=["method", "seed", *GROUP_COLUMNS, *GROUP_FIGURES]),
        ungrouped,
        {score: {method: np.stack(own) for method, own in of.items()} for score, of in rocs.items()},
        # The runs share their test images and training generators.
        "auroc_unseen" if unseen_images(test, study.train_generators, study.relatives).any() else "auroc",
        warnings,
        contrasts.family(study),
    )


def paired_table(measures: Measures) -> pd.DataFrame:
    """One row for every two methods, ``method`` less ``against``, by the seeds that both have: the primary test.

    Returns:
        ``method, title, against, against_title, seeds, seeds_against``, ``pairs`` (seeds in common), ``family`` (the
        name of :attr:`Measures.family`, or ``exploratory``), and of :attr:`Measures.measure` the ``difference``, its
        95 % interval ``low, high`` and ``p`` by Student's t, ``p_holm`` (for the comparisons of the family),
        ``detectable`` (the smallest difference that such seeds show in 80 of 100 studies at the strictest step of the
        correction), ``correlation`` over the seeds (above 0, pairing narrows the interval), ``d_z``, and the
        ``verdict``. NaN where the runs do not allow the figure.
    """
    name, named = measures.family
    groups = {method: own.set_index("seed") for method, own in measures.runs.groupby("method", sort=False)}
    rows = []
    for (against, other), (method, own) in combinations(groups.items(), 2):
        shared = own.index.intersection(other.index)
        values, baseline = own.loc[shared, measures.measure], other.loc[shared, measures.measure]
        found = statistics.paired_difference(values.to_numpy(), baseline.to_numpy())
        rows.append(
            {"method": method, "title": own["title"].iloc[0], "against": against}
            | {"against_title": other["title"].iloc[0], "seeds": len(own), "seeds_against": len(other)}
            | {"pairs": len(shared), "family": name if (method, against) in named else EXPLORATORY}
            | {"difference": found.mean, "low": found.low, "high": found.high, "p": found.p}
            | {"correlation": values.corr(baseline, min_periods=3), "deviation": (values - baseline).std(ddof=1)}
            | {"d_z": statistics.hedges_g_paired(values.to_numpy(), baseline.to_numpy())}
        )
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(rows)
    of_family = table.groupby("family")["p"]
    table["p_holm"] = of_family.transform(lambda p: statistics.holm(p.to_numpy()))
    strictest = contrasts.SIGNIFICANCE / of_family.transform("count").clip(lower=1)
    needed = zip(table.pop("deviation"), table["pairs"], strictest, strict=True)
    table["detectable"] = [statistics.detectable_difference(*each, contrasts.POWER) for each in needed]
    return table.assign(verdict=[contrasts.verdict(row) for row in table.to_dict("records")])


def method_table(measures: Measures) -> pd.DataFrame:
    """One row per method, in numbers: the ``_mean`` and ``_std`` (of a sample, over the seeds; NaN with one) of each
    column of :attr:`Measures.runs`, and its difference from cross-entropy.

    Returns:
        ``method, title, seeds``, means and standard deviations, and of ``paired_table`` against cross-entropy
        ``pairs, family, difference, difference_low, difference_high, p, p_holm, verdict``; 0, "" and NaN without one.
    """
    names = ["pairs", "family", "difference", "low", "high", "p", "p_holm", "verdict"]
    compared = paired_table(measures).reindex(columns=["method", "against", *names])
    compared = compared[compared["against"] == BASELINE].drop(columns="against")
    compared = compared.rename(columns={"low": "difference_low", "high": "difference_high"})
    table = over_seeds(measures.runs, ["method", "title"], METHOD_FIGURES).merge(compared, on="method", how="left")
    table["pairs"] = table["pairs"].fillna(0).astype(int)
    table[["family", "verdict"]] = table[["family", "verdict"]].astype(object).fillna("")
    return table


def highest(table: pd.DataFrame, figure: str) -> pd.DataFrame:
    """The rows with the highest value of a figure as readers see it, with three digits: several, if they are equal."""
    shown = table[figure].round(3)
    return table[shown == shown.max()]


def generator_table(measures: Measures) -> pd.DataFrame:
    """One row per generator, set of real images and method: ``auroc_mean`` and ``auroc_std`` over the seeds, and with
    ``_margin`` those by the margin."""
    return over_seeds(measures.generators, [*GENERATOR_COLUMNS, "method"], AUROCS.values())


def shown_methods(table: pd.DataFrame, measures: Measures) -> ShownTable:
    """:func:`method_table` :func:`by_score` as readers see it."""
    about_scores = (
        "Ranked by: logit 1, the logit of “synthetic” without a softmax, is the paper’s; the margin is that logit "
        "minus the one of “real”, which ranks as the softmax does. Cross-entropy trains the margin alone: the mean of "
        "both logits moves logit 1, but no probability. What holds by one of the two only depends on the score."
    )
    about_auroc = (
        "± is the standard deviation over the seeds (n − 1). Accuracy, CAM entropy and focus area (exp of a run’s mean "
        "CAM entropy) do not depend on the ranking. CAM entropy is of the test images at the scored epoch; the paper’s "
        "curves are of the training images, as those by epoch here."
    )
    related = ", nor relatives of one that is" if (measures.generators["seen"] == "relative").any() else ""
    about_unseen = f"Unseen: images of generators that are not in training{related}, against all real test images."
    none_unseen = "No test image is known to be by a generator that is not in training."
    if measures.measure == "auroc_unseen":
        ranked = [
            Column("AUROC", "auroc", "spread"),
            Column("AUROC unseen", "auroc_unseen", "spread", notes=[about_unseen]),
            Column("Unseen, mean of generators", "auroc_unseen_macro", "spread", notes=[_on_generators(measures)]),
        ]
    else:
        ranked = [Column("AUROC", "auroc", "spread", notes=[none_unseen])]
    columns = [
        Column("Method", "title", notes=[about_scores, about_auroc]),
        RANKED_BY,
        Column("Seeds", "seeds"),
        *ranked,
        Column("Difference", "difference", "number", sign="+", notes=_on_differences(table, measures.measure)),
        Column("95 % interval", "difference_", "interval", sign="+"),
        Column("p (Holm)", "p_holm", "p"),
        VERDICT,
        Column("Accuracy", "accuracy", "spread"),
        Column("CAM entropy / nats", "cam_entropy", "spread", 2),
        Column("Focus area / cells", "focus_area", "spread", 1),
    ]
    return shown_table("methods", "Methods", table, columns)


def shown_generators(table: pd.DataFrame, titles: dict[str, str]) -> ShownTable:
    """:func:`generator_table` as readers see it: one row per generator, set of real images and score, one column
    per method."""
    suited = (table["against"] != "").any()
    sentences = [
        "AUROC of each generator’s test images against all real test images"
        + (
            ", and where the data say which real images suit a generator (column compare_with), against those alone."
            if suited
            else "."
        )
    ]
    few = table[(table["synthetic"] < MIN_IMAGES) | (table["real"] < MIN_IMAGES)]
    if len(few):
        # A generator with too few images against all real ones has too few against some of them, too.
        whole = set(few["generator"][few["against"] == ""])
        names = [
            _generator(generator) if generator in whole else f"{_generator(generator)} against {_sources(against)}"
            for generator, against in zip(few["generator"], few["against"], strict=True)
        ]
        sentences.append(
            f"“–” for {', '.join(dict.fromkeys(names))}: fewer than {MIN_IMAGES} synthetic or real test images."
        )
    if (table.groupby(GENERATOR_COLUMNS)["method"].nunique() < table["method"].nunique()).any():
        sentences.append("“–” also where a method’s runs were not compared with these real images.")
    if (table["seen"] == "relative").any():
        sentences.append("Relative: of the family of a generator in training, and so neither seen nor unseen.")
    if table["generator"].str.contains("+", regex=False).any():
        sentences.append("a+b: a or b, it is not known which.")
    columns = [
        Column("Generator", lambda row: _generator(row["generator"]), notes=sentences),
        Column("In training", "seen"),
        Column("Against real", lambda row: _sources(row["against"]) or "all"),
        Column("Images", synthetic_and_real),
        RANKED_BY,
        *columns_per_method(titles),
    ]
    rows = per_method_and_score(table, GENERATOR_COLUMNS, "auroc")
    return shown_table("generators", "AUROC by generator", table, columns, rows)


def per_method(table: pd.DataFrame, keys: list[str], figure: str) -> pd.DataFrame:
    """One row per combination of ``keys``, and for each method the columns ``<method>_mean`` and ``<method>_std`` of
    the figure, NaN where the method lacks the combination."""
    wide = table[keys].drop_duplicates(ignore_index=True)
    for method, own in table.groupby("method", sort=False):
        names = {f"{figure}_{part}": f"{method}_{part}" for part in ("mean", "std")}
        wide = wide.merge(own[[*keys, *names]].rename(columns=names), on=keys, how="left")
    return wide


def per_method_and_score(table: pd.DataFrame, keys: list[str], figure: str) -> pd.DataFrame:
    """The rows of :func:`per_method` by each score, those of all scores together, in column ``score``."""
    parts = [per_method(table, keys, f"{figure}{suffix}").assign(score=score) for score, suffix in SUFFIXES.items()]
    return pd.concat(parts).sort_index(kind="stable")


def columns_per_method(titles: dict[str, str]) -> list[Column]:
    """The columns of the methods in a table of :func:`per_method`."""
    return [Column(title, method, "spread") for method, title in titles.items()]


def synthetic_and_real(row: Mapping[str, Any]) -> str:
    """The numbers of images of both classes, ``60 + 80``."""
    return f"{row['synthetic']:,} + {row['real']:,}"


def _on_differences(table: pd.DataFrame, measure: str) -> list[str]:
    """Notes on the differences from cross-entropy, and on those that are missing or not over all seeds."""
    if BASELINE not in set(table["method"]):
        return ["Differences need cross-entropy runs, and this study has none: “–”."]
    sentences = []
    others = table[table["method"] != BASELINE].drop_duplicates("method")
    if table["p"].notna().any():
        exploratory = list(others["title"][others["family"] == EXPLORATORY])
        sentences.append(
            f"Differences are from cross-entropy with the same seed ({MEASURES[measure]}): their mean, its 95 % "
            "interval by Student’s t, and p of the paired t-test after Holm’s correction for its family of comparisons"
            + (f"; those of {wording.listed(exploratory)} are exploratory" if exploratory else "")
            + ". The other pairs of methods, and what the seeds could show, are in the table of comparisons."
        )
    constant = (others["pairs"] > 1) & others["p"].isna() & others["difference"].notna()
    for chosen, why in (
        (others["pairs"] == 0, "no seed in common with cross-entropy, so no difference"),
        (others["pairs"] == 1, "one seed in common with cross-entropy, so no interval and no p"),
        (constant, "every seed differs by the same, which allows no t-test"),
    ):
        if chosen.any():
            sentences.append(f"“–” for {', '.join(others['title'][chosen])}: {why}.")
    partial = others[(others["pairs"] > 1) & (others["pairs"] < others["seeds"])]
    return sentences + [
        f"{row['title']}: the difference is over {row['pairs']} of its {row['seeds']} seeds."
        for row in partial.to_dict("records")
    ]


def _named_runs(names: list[str], count: int) -> str:
    """The first few of these runs; "Every run" if they are all ``count`` runs of the study."""
    if len(names) == count > 1:
        return "Every run"
    return wording.first_few(names)


def _generator(name: str) -> str:
    return name or "(not named)"


def _sources(against: str) -> str:
    return against.replace("+", " + ")


def _compared_differently(compared: dict[str, tuple[tuple[object, ...], ...]]) -> list[str]:
    """Whether the runs' manifests disagree on which real images suit a generator.

    Args:
        compared: run -> :data:`GENERATOR_COLUMNS` of each of its generators and sets of real images.
    """
    (usual, count), *others = Counter(compared.values()).most_common()
    if not others:
        return []
    names = [name for name, rows in compared.items() if rows != usual]
    return [
        f"The test images of {wording.first_few(names)} have other values in the columns source or compare_with than "
        f"those of the other {wording.count(count, 'run')}: AUROCs of a generator against different real images stand "
        "in rows of their own, and are not to be compared."
    ]


def _on_generators(measures: Measures) -> str:
    own = measures.generators[(measures.generators["seen"] == "no") & (measures.generators["against"] == "")]
    sentence = "Unseen, mean of generators: the mean of these generators’ own AUROCs, however many images each has"
    few = list(dict.fromkeys(own["generator"][own["auroc"].isna()].map(_generator)))
    if few:
        sentence += f", without {wording.listed(few)} (fewer than {MIN_IMAGES} synthetic or real images)"
    return f"{sentence}."


def over_seeds(rows: pd.DataFrame, keys: list[str], figures: Iterable[str]) -> pd.DataFrame:
    """One row per combination of ``keys`` in rows of single runs: the keys, ``seeds`` (the number of these rows), and
    the ``_mean`` and ``_std`` (of a sample; NaN with one row) of each figure; NaN if a row lacks the figure."""
    grouped = rows.groupby(keys, sort=False)
    table = {"seeds": grouped.size()}
    for name in figures:
        table |= {f"{name}_mean": grouped[name].mean(skipna=False), f"{name}_std": grouped[name].std(skipna=False)}
    return pd.DataFrame(table).reset_index()
