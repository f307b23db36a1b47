"""Where the detectors of a study look: how focused their maps are, whether they look where people do, and where each
other does. From the maps that ``experiments/focus.py`` keeps.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from saliency_entropy.errors import UserError
from saliency_entropy.page import wording
from saliency_entropy.page.table import Column, ShownTable, shown_table
from saliency_entropy.run.console import typed
from saliency_entropy.scores.map_files import KINDS, RunMaps, Sample, maps_file, read_maps
from saliency_entropy.study.runs import BASELINE, Run, Study
from saliency_entropy.study.tables import over_seeds

log = logging.getLogger(__name__)

KIND_TITLES = {"cam": "CAM", "cam_true": "True class", "cam_difference": "Logit difference", "grad_cam": "Grad-CAM"}
TOP_SHARE = 0.2  # of the cells of a map: its highest, which are compared as a region
SHARE = f"{100 * TOP_SHARE:g} %"
AGREEMENT_FIGURES = {
    "mse": "MSE",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "iou": f"IoU of the top {SHARE}",
    "pointing": "Pointing game",
}
# A difference in entropy below this, a tenth of the focus area, is too small to ask whether half of it is left.
LEAST_DIFFERENCE = 0.1
# Why runs are "not in these figures".
LEFT_OUT = {
    "missing": "No maps of {runs}, which are",
    "damaged": "The maps of {runs} cannot be read as plain arrays, and are",
    "other images": "The maps of {runs} are of other images or on another grid, and",
    "earlier training": "The maps of {runs} were made before these runs were trained again, and are",
}


@dataclass(frozen=True, eq=False)
class StudyMaps:
    """The maps of a study's runs, all of the same images.

    Attributes:
        study: its titles and methods.
        name: of the set of images, ``test``, ``val`` ...
        sample: the images and their human maps.
        runs: those with maps, in the order of the study.
        maps: kind -> ``(R, n, h, w)`` in [0, 1], the runs in order.
        problems: sentences on runs whose maps are missing or cannot be used.
    """

    study: Study
    name: str
    sample: Sample
    runs: list[Run]
    maps: dict[str, np.ndarray]
    problems: list[str]

    @cached_property
    def methods(self) -> dict[str, np.ndarray]:
        """Method -> the places of its runs."""
        return {
            method: np.array([place for place, run in enumerate(self.runs) if run.method == method])
            for method in dict.fromkeys(run.method for run in self.runs)
        }


def read_study_maps(study: Study, name: str = "test") -> StudyMaps | None:
    """The maps of a set of images; None if the study has none, or none that can be used.

    A run without usable maps is left out, and named in :attr:`StudyMaps.problems`.

    Raises:
        UserError: the study's own file, of the images, is damaged.
    """
    try:
        sample = read_maps(maps_file(study.folder, name), Sample)
    except FileNotFoundError:
        return None
    found: dict[Run, RunMaps] = {}
    left_out: dict[str, list[str]] = {reason: [] for reason in LEFT_OUT}
    for run in study.runs:
        try:
            maps = read_maps(maps_file(run.folder, name), RunMaps)
        except FileNotFoundError:
            left_out["missing"].append(run.name)
        except UserError:
            left_out["damaged"].append(run.name)
        else:
            if maps.sample != sample.sample or maps.cam.shape != sample.human_map.shape:
                left_out["other images"].append(run.name)
            elif not run.has_checkpoint(maps.checkpoint):
                left_out["earlier training"].append(run.name)
            else:
                found[run] = maps
    problems = [
        f"{LEFT_OUT[reason].format(runs=wording.first_few(runs))} not in these figures: {typed('focus')} "
        f"makes them{'' if reason == 'missing' else ', with overwrite=true'}."
        for reason, runs in left_out.items()
        if runs
    ]
    if not found:
        for problem in problems:
            log.warning("warning: %s", problem)
        return None
    stacked = {kind: np.stack([getattr(maps, kind) for maps in found.values()]) for kind in KINDS}
    return StudyMaps(study, name, sample, list(found), stacked, problems)


def read_maps_beside_human_maps(study: Study, test: StudyMaps | None) -> StudyMaps | None:
    """The maps of the first set whose images have human maps, in the order ``test`` (which has been read), ``val``,
    ``train``, others by name; None if no set has any."""
    names = {path.stem for path in Path(study.folder / "maps").glob("*.npz")}
    usual = [name for name in ("test", "val", "train") if name in names]
    for name in (*usual, *sorted(names - {*usual})):
        maps = test if name == "test" else read_study_maps(study, name)
        if maps is not None and maps.sample.has_map.any():
            return maps
    return None


def map_entropies(maps: np.ndarray) -> np.ndarray:
    """Entropy of each map as a distribution over its cells, in nats; NaN of a constant map, which has no focus.

    Args:
        maps: ``(..., h, w)`` in [0, 1], min-max scaled, so that a constant one is zeros.

    Returns:
        ``(...)``.
    """
    cells = maps.reshape(*maps.shape[:-2], -1).astype(np.float64)
    constant = ~cells.any(axis=-1)
    cells = np.where(constant[..., None], 1.0, cells)
    return np.where(constant, np.nan, stats.entropy(cells, axis=-1))


def map_correlations(maps: np.ndarray, others: np.ndarray, ranks: bool = False) -> np.ndarray:
    """Pearson's correlation over the cells of each map and the other of the same place; NaN where one is constant.

    Args:
        maps, others: ``(n, h, w)`` each.
        ranks: Spearman's instead: of the ranks of the cells, equal ones sharing the mean of theirs.

    Returns:
        ``(n,)`` in [-1, 1].
    """
    pairs = [array.reshape(len(array), -1).astype(np.float64) for array in (maps, others)]
    known = np.logical_and(*(np.ptp(array, axis=1) > 0 for array in pairs))
    found = np.full(len(maps), np.nan)
    if known.any():
        pairs = [array[known] for array in pairs]
        if ranks:
            pairs = [stats.rankdata(array, axis=1) for array in pairs]
        found[known] = stats.pearsonr(*pairs, axis=1).statistic
    return found


def top_regions(maps: np.ndarray) -> np.ndarray:
    """The :data:`TOP_SHARE` highest cells of each map, one at least; all that equal the lowest of them, but no zeros.

    Args:
        maps: ``(n, h, w)`` in [0, 1].

    Returns:
        ``(n, h, w)`` bool.
    """
    cells = np.sort(maps.reshape(len(maps), -1), axis=1)
    count = max(1, round(TOP_SHARE * cells.shape[1]))
    return (maps >= cells[:, -count][:, None, None]) & (maps > 0)


def map_agreement(maps: np.ndarray, human_maps: np.ndarray) -> dict[str, np.ndarray]:
    """How alike each map and its human map are, in each of :data:`AGREEMENT_FIGURES`.

    ``mse`` over the cells, as in CYBORG's loss; ``pearson`` and ``spearman``, see :func:`map_correlations`; ``iou``,
    intersection over union of the :func:`top_regions` of both; ``pointing``, whether the highest cell of the map is in
    the human map's top region (of several highest cells, the share that is).

    Args:
        maps, human_maps: ``(n, h, w)`` in [0, 1].

    Returns:
        ``(n,)`` each; all NaN where a map is constant.
    """
    region, human_region = top_regions(maps), top_regions(human_maps)
    highest = maps == maps.max(axis=(1, 2), keepdims=True)
    constant = ~(maps.any(axis=(1, 2)) & human_maps.any(axis=(1, 2)))
    union = (region | human_region).sum(axis=(1, 2))
    found = {
        "mse": np.square(maps.astype(np.float64) - human_maps).mean(axis=(1, 2)),
        "pearson": map_correlations(maps, human_maps),
        "spearman": map_correlations(maps, human_maps, ranks=True),
        "iou": (region & human_region).sum(axis=(1, 2)) / np.maximum(union, 1),
        "pointing": (highest & human_region).sum(axis=(1, 2)) / highest.sum(axis=(1, 2)),
    }
    return {name: np.where(constant, np.nan, values) for name, values in found.items()}


def focus_table(maps: StudyMaps) -> pd.DataFrame:
    """One row per method, in numbers: how focused its maps are.

    Returns:
        ``method, title, seeds``, and of each of :data:`~saliency_entropy.scores.map_files.KINDS` the ``_mean`` and
        ``_std`` (of a sample, over the seeds) of ``<kind>_entropy``, the mean over the images in nats, and of
        ``<kind>_focus_area``, exp of it, in cells; and ``<kind>_constant``, how many maps of all seeds are constant and
        in neither. NaN where every map of a run is constant.
    """
    found = {kind: map_entropies(of_runs) for kind, of_runs in maps.maps.items()}
    figures: dict[str, np.ndarray] = {}
    for kind in KINDS:
        figures[f"{kind}_entropy"] = _mean_of_known(found[kind])
        figures[f"{kind}_focus_area"] = np.exp(figures[f"{kind}_entropy"])
    table = _over_runs(maps, figures)
    for kind in KINDS:
        table[f"{kind}_constant"] = [np.isnan(found[kind][places]).sum() for places in maps.methods.values()]
    return table


def human_agreement_table(maps: StudyMaps) -> pd.DataFrame | None:
    """One row per method, in numbers: its own CAMs beside the human maps of the same images.

    Returns:
        ``method, title, seeds, images`` (with a human map), and the ``_mean`` and ``_std`` (of a sample, over the
        seeds) of each of :data:`AGREEMENT_FIGURES`, the mean over the images, without constant CAMs. None if no image
        has a human map.
    """
    has_map = maps.sample.has_map
    if not has_map.any():
        return None
    human_maps = maps.sample.human_map[has_map]
    found = [map_agreement(own[has_map], human_maps) for own in maps.maps["cam"]]
    columns = {name: _mean_of_known(np.stack([run[name] for run in found])) for name in AGREEMENT_FIGURES}
    table = _over_runs(maps, columns)
    table.insert(3, "images", int(has_map.sum()))
    return table


def run_agreement_table(maps: StudyMaps) -> pd.DataFrame:
    """One row for every two methods, and for each with itself, in numbers: how alike two runs' CAMs of an image are.

    Returns:
        ``method, title, against, against_title``; of the pairs of runs of different seeds ``pairs`` and ``pearson``,
        the mean over the pairs of the mean over the images; of the pairs of one seed ``pairs_same_seed`` and
        ``pearson_same_seed``: two methods then begin with the same weights and see the images in the same order. NaN
        without a pair.
    """
    cams, titles = maps.maps["cam"], maps.study.titles
    pearson = np.full((len(cams), len(cams)), np.nan)
    for one, other in combinations(range(len(cams)), 2):
        pearson[one, other] = pearson[other, one] = _mean_of_known(map_correlations(cams[one], cams[other]))
    seeds = np.array([run.seed for run in maps.runs])
    rows = []
    for i, (method, own) in enumerate(maps.methods.items()):
        for against, others in list(maps.methods.items())[: i + 1]:
            pairs = combinations(own, 2) if against == method else product(own, others)
            pairs = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)  # also of none
            row = {"method": method, "title": titles[method], "against": against, "against_title": titles[against]}
            same = seeds[pairs[:, 0]] == seeds[pairs[:, 1]]
            for suffix, chosen in (("", pairs[~same]), ("_same_seed", pairs[same])):
                row |= {f"pairs{suffix}": len(chosen), f"pearson{suffix}": _mean_of_known(pearson[tuple(chosen.T)])}
            rows.append(row)
    return pd.DataFrame(rows)


def mean_cams(maps: StudyMaps) -> dict[str, np.ndarray]:
    """Method -> ``(h, w)`` in [0, 1]: its mean CAM over images and seeds, constant ones left out; NaN if all are."""
    found = {}
    for method, places in maps.methods.items():
        cams = maps.maps["cam"][places].reshape(-1, *maps.sample.human_map.shape[1:])
        found[method] = np.full(cams.shape[1:], np.nan)
        if (known := cams.any(axis=(1, 2))).any():
            found[method] = cams[known].mean(axis=0)
    return found


def shown_focus(table: pd.DataFrame, maps: StudyMaps) -> ShownTable:
    """:func:`focus_table` as readers see it; its notes tell whether other kinds of map are as focused."""
    count, (height, width) = len(maps.sample.row), maps.sample.human_map.shape[1:]
    about_figures = (
        f"Entropy H and focus area exp(H) of the maps of the same {wording.count(count, 'image')} of set {maps.name}, "
        f"on {height} × {width} cells: H is a run’s mean over the images; ± is the standard deviation over the "
        "seeds (n − 1). The images are drawn from each label and generator in proportion."
    )
    about_kinds = (
        "CAM: of the class whose CAM the run is trained with. True class, logit difference: the CAMs of these. "
        "Grad-CAM: of the predicted class; for a linear layer of averaged feature maps, as here, it is the CAM without "
        "its negative part, and so tells what that part adds."
    )
    sentences = [about_figures, about_kinds, _on_survival(table)]
    constant = {title: int(table[f"{kind}_constant"].sum()) for kind, title in KIND_TITLES.items()}
    if any(constant.values()):
        named = wording.listed([f"{number:,} ({title})" for title, number in constant.items() if number])
        sentences.append(
            f"Constant maps, which have no focus and are left out: {named} of {len(maps.runs) * count:,} each."
        )
    sentences += [*_on_constant(table, [f"{kind}_entropy" for kind in KINDS]), *maps.problems]
    columns = [
        Column("Method", "title", notes=sentences),
        Column("Seeds", "seeds"),
        *(Column(f"{title} / nats", f"{kind}_entropy", "spread", 2) for kind, title in KIND_TITLES.items()),
        *(Column(f"{title} / cells", f"{kind}_focus_area", "spread", 1) for kind, title in KIND_TITLES.items()),
    ]
    return shown_table("focus", "Focus by kind of map", table, columns)


def shown_human_agreement(table: pd.DataFrame, maps: StudyMaps, map_kind: str) -> ShownTable:
    """:func:`human_agreement_table` as readers see it.

    Args:
        table: :func:`human_agreement_table`.
        maps: what it is of.
        map_kind: what stood in the place of human maps, see :func:`~saliency_entropy.study.figures.map_kind`.
    """
    human_maps = maps.sample.human_map[maps.sample.has_map]
    chance = top_regions(human_maps).mean()
    images = wording.count(int(table["images"].iloc[0]), "image")
    sentences = [
        f"CAMs beside the {map_kind} maps of the same {images} of set {maps.name}: mean over the images; ± is the "
        "standard deviation over the seeds (n − 1).",
        "MSE: mean squared error over the cells, 0 if they are the same. Pearson, Spearman: correlation over cells. "
        f"IoU: intersection over union of the {SHARE} highest cells of either. Pointing game: how often the CAM’s "
        f"highest cell is one of the map’s {SHARE} highest; a random cell is one with probability {chance:.3f}.",
    ]
    if len(human_maps) > 1:
        blind = map_agreement(_means_of_others(human_maps), human_maps)
        reached = [
            f"{title} {wording.number(_mean_of_known(blind[name]))}" for name, title in AGREEMENT_FIGURES.items()
        ]
        sentences.append(
            "Faces are alike: the mean of the other images’ maps, which does not look at the image at all, reaches "
            f"{wording.listed(reached)}."
        )
    if map_kind != "human":
        sentences.append(f"These are {map_kind} maps, not human maps: nobody looked at the images.")
    if maps.name == "train":
        sentences.append("These are images of the training, and some methods were trained on these very maps.")
    elif maps.name == "val":
        sentences.append("These are images of the validation, by which each run’s epoch was chosen.")
    columns = [
        Column("Method", "title", notes=[*sentences, *_on_constant(table, AGREEMENT_FIGURES), *maps.problems]),
        Column("Seeds", "seeds"),
        *(Column(title, name, "spread") for name, title in AGREEMENT_FIGURES.items()),
    ]
    return shown_table("human_agreement", f"Agreement with {map_kind} maps", table, columns)


def shown_run_agreement(table: pd.DataFrame, maps: StudyMaps) -> ShownTable:
    """:func:`run_agreement_table` as readers see it: one row and one column per method; runs of different seeds on
    the diagonal and below it, of the same seed above."""
    within = table["method"] == table["against"]
    sentences = [
        "Pearson’s correlation of two runs’ CAMs of the same image: mean over the "
        f"{wording.count(len(maps.sample.row), 'image')} of set {maps.name}, and over the pairs of runs. On the "
        "diagonal and below it the runs have different seeds: on the diagonal both are of one method, which tells how "
        "far a CAM is a matter of the method rather than of chance."
    ]
    if not within.all():
        sentences.append(
            "Above the diagonal the runs have the same seed, so they began with the same weights and saw the images in "
            "the same order."
        )
    if ((table["pairs"] == 0) | (~within & (table["pairs_same_seed"] == 0))).any():
        sentences.append("“–”: there is no such pair of runs.")
    if (table["pearson"].isna() & (table["pairs"] > 0)).any():
        sentences.append("“–” also where every CAM of a run is constant.")
    titles = list(table["title"].unique())
    cells = {}
    for row in table.to_dict("records"):
        cells[row["against_title"], row["title"]] = row["pearson_same_seed"]
        cells[row["title"], row["against_title"]] = row["pearson"]
    rows = [{"title": title} | {f"with {other}": cells[title, other] for other in titles} for title in titles]
    columns = [
        Column("Method", "title", notes=sentences + maps.problems),
        *(Column(title, f"with {title}", "number") for title in titles),
    ]
    return shown_table("run_agreement", "Agreement between runs", table, columns, pd.DataFrame(rows))


def _means_of_others(maps: np.ndarray) -> np.ndarray:
    """For each of ``(n, h, w)`` maps the mean of all others, scaled to [0, 1] as every map is."""
    means = (maps.sum(axis=0, dtype=np.float64) - maps) / (len(maps) - 1)
    low, high = means.min(axis=(1, 2), keepdims=True), means.max(axis=(1, 2), keepdims=True)
    return (means - low) / np.where(high > low, high - low, 1.0)


def _on_survival(table: pd.DataFrame) -> str:
    """Whether methods whose CAM is more focused than that of cross-entropy are more focused by the other maps, too."""
    own = table.set_index("method")
    if BASELINE not in own.index:
        return "Whether a low entropy survives a change of map needs cross-entropy runs, and there are none."
    means = own[[f"{kind}_entropy_mean" for kind in KINDS]]
    below = (means.loc[BASELINE] - means).set_axis(KINDS, axis=1)
    lower = below[below["cam"] >= LEAST_DIFFERENCE]
    if lower.empty:
        return (
            f"No method’s CAM entropy is {LEAST_DIFFERENCE} nats or more below that of cross-entropy, so there is no "
            "low entropy that could survive a change of map."
        )
    sentences = []
    for kind in KINDS[1:]:
        known = lower[lower[kind].notna()]
        survives = known[kind] >= known["cam"] / 2
        parts = []
        for chosen, words in ((survives, "it survives, at least by half, for"), (~survives, "it does not for")):
            methods = [
                f"{own.loc[method, 'title']} ({wording.number(row[kind], 2)}; CAM {wording.number(row['cam'], 2)})"
                for method, row in known[chosen].iterrows()
            ]
            parts += [f"{words} {wording.listed(methods)}"] if methods else []
        if parts:
            sentences.append(f"{KIND_TITLES[kind]}: {'; '.join(parts)}.")
    return (
        "Does an entropy below that of cross-entropy survive a change of map? In brackets, how many nats below it a "
        f"method is by that map, and by the CAM, for methods with {LEAST_DIFFERENCE} or more by the CAM; of the means "
        "over the seeds, without a test. " + " ".join(sentences)
    )


def _over_runs(maps: StudyMaps, columns: dict[str, np.ndarray]) -> pd.DataFrame:
    """``method, title, seeds``, and mean and standard deviation over the seeds of ``(R,)`` figures; NaN if one is."""
    methods = [run.method for run in maps.runs]
    rows = pd.DataFrame({"method": methods, "title": [maps.study.titles[method] for method in methods], **columns})
    return over_seeds(rows, ["method", "title"], columns)


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis without NaN; NaN if every value is."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.where(count, total / np.maximum(count, 1), np.nan)[()]


def _on_constant(table: pd.DataFrame, figures: Iterable[str]) -> list[str]:
    missing = table[[f"{name}_mean" for name in figures]].isna().any(axis=None)
    return ["“–”: every map of a kind is constant in at least one run."] if missing else []
