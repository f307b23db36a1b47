"""AUROC on further sets of images: those that ``experiments/evaluate.py`` scored for every run after its training."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from saliency_entropy.errors import in_one_line
from saliency_entropy.page import wording
from saliency_entropy.scores.tables import SUFFIX
from saliency_entropy.study.run_figures import MIN_IMAGES, auroc_of, is_of_this_checkpoint
from saliency_entropy.study.runs import Run, Study
from saliency_entropy.study.tables import over_seeds, spread_column

OWN = ("test", "val")  # what every run scores itself
COLUMNS = ["path", "label", "generator", "logit_synthetic"]
KEYS = ["set", "generator", "synthetic", "real", "method", "title"]


@dataclass(frozen=True, eq=False)
class OtherSets:
    """What the further score files of a study say.

    Attributes:
        numbers: a row a set, generator ("" for all together) and method: ``set, generator, synthetic, real`` (numbers
            of images), ``method, title, seeds, auroc_mean, auroc_std`` (all real images of the set against the
            synthetic ones; NaN with fewer than 30 of either). Empty if no file can be used.
        problems: sentences on what is left out.
    """

    numbers: pd.DataFrame
    problems: list[str]


def other_sets(study: Study) -> OtherSets | None:
    """What the runs' ``scores/<set>.parquet`` say; None if there are no further sets."""
    files = {path.stem for run in study.runs for path in (run.folder / "scores").glob("[!.]*.parquet")}
    names = sorted(name for name in files if name not in OWN and not name.endswith(SUFFIX))
    if not names:
        return None
    tables, problems = [], []
    for name in names:
        found, of_set = _of_set(study, name)
        problems += of_set
        if found:
            rows = [
                row | {"set": name, "method": run.method, "title": study.titles[run.method]}
                for run, of_run in found.items()
                for row in of_run
            ]
            tables.append(over_seeds(pd.DataFrame(rows), KEYS, ["auroc"]))
    return OtherSets(pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(), problems)


def shown_other_sets(numbers: pd.DataFrame) -> pd.DataFrame:
    """:attr:`OtherSets.numbers` as a reader sees it: a row a set and generator, a column a method; text only."""
    rows = []
    for (name, generator, synthetic, real), own in numbers.groupby(KEYS[:4], sort=False):
        cells = dict(zip(own["title"], spread_column(own, "auroc", 3), strict=True))
        rows.append({"Set": name, "Generator": generator or "(all)", "Images": f"{synthetic:,} + {real:,}"} | cells)
    return pd.DataFrame(rows).fillna(wording.NONE)


def other_sets_notes(sets: OtherSets) -> list[str]:
    """What a reader of the table must know."""
    sentences = [
        "AUROC on the sets of images that experiments/evaluate.py scored beside the test images: synthetic + real "
        "ones; ± is the standard deviation over the seeds (n − 1). They are in no other figure."
    ]
    if len(sets.numbers) and sets.numbers["auroc_mean"].isna().any():
        sentences.append(
            f"“–”: fewer than {MIN_IMAGES} synthetic or real images, scores that are not finite, or no run of the "
            "method."
        )
    return [*sentences, *sets.problems]


def _of_set(study: Study, name: str) -> tuple[dict[Run, list[dict[str, object]]], list[str]]:
    """The figures of the runs that can be compared, and sentences on the others and on scores that are
    not finite."""
    figures: dict[Run, list[dict[str, object]]] = {}
    about: dict[Run, int] = {}
    left_out: dict[str, list[str]] = {}
    broken: set[Run] = set()
    for run in study.runs:
        path = run.folder / "scores" / f"{name}.parquet"
        if not path.exists():
            left_out.setdefault("they have no such scores", []).append(run.name)
            continue
        # A file of something else makes the readers raise almost anything.
        try:
            if not is_of_this_checkpoint(run, path):
                left_out.setdefault("they were trained again after these scores were made", []).append(run.name)
                continue
            scores = pd.read_parquet(path, columns=COLUMNS).fillna({"generator": ""})
            figures[run] = _figures(scores)
            if not np.isfinite(scores["logit_synthetic"]).all():
                broken.add(run)
        except Exception as error:
            why = in_one_line(error).replace(f"{study.folder}/", "")
            left_out.setdefault("their scores cannot be used", []).append(f"{run.name} ({why})")
            continue
        # The same for the same images in any order.
        about[run] = int(pd.util.hash_pandas_object(scores[COLUMNS[:3]].astype("str"), index=False).to_numpy().sum())
    usual = Counter(about.values()).most_common(1)[0][0] if about else 0
    kept = next((run.name for run in figures if about[run] == usual), "")
    for run in [run for run in figures if about[run] != usual]:
        del figures[run]
        left_out.setdefault(f"they were scored on other images than {kept}", []).append(run.name)
    problems = [
        f"Left out of set {name}, since {why}: {wording.some(runs)}; experiments/evaluate.py with overwrite=true "
        "scores them."
        for why, runs in left_out.items()
    ]
    not_finite = [run.name for run in figures if run in broken]
    if not_finite:
        problems.append(f"“–” in set {name} where scores are not finite, those of {wording.some(not_finite)}.")
    return figures, problems


def _figures(scores: pd.DataFrame) -> list[dict[str, object]]:
    """A row for all synthetic images, and one for each generator, where there are several."""
    synthetic = (scores["label"] == "synthetic").to_numpy()
    generators = scores["generator"].astype("str").to_numpy()
    logits = scores["logit_synthetic"].to_numpy()
    named = sorted({*generators[synthetic]} - {""})
    masks = {"": synthetic} | ({name: synthetic & (generators == name) for name in named} if len(named) > 1 else {})
    real = int((~synthetic).sum())
    return [
        {
            "generator": generator,
            "synthetic": int(mask.sum()),
            "real": real,
            "auroc": auroc_of(logits, mask, ~synthetic),
        }
        for generator, mask in masks.items()
    ]
