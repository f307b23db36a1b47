"""The comparisons that were named before any data were seen, the paper's and those of the positive control; and the
verdict on a comparison.

The primary test of every comparison is one: the paired t-test over the seeds that two methods share, on the AUROC on
unseen generators, or on all where there are none. A claim needs both scores: what holds by one depends on the score.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from saliency_entropy.study.runs import BASELINE, Run, Study

# A difference whose interval excludes 0 is shown if its p after Holm's correction is below this.
SIGNIFICANCE = 0.05
POWER = 0.8
# With three seeds, a difference would have to be 5.7 of its standard deviations to be shown among five comparisons.
MIN_SEEDS = 5
BETTER, WORSE, INCONCLUSIVE, UNKNOWN = "better", "worse", "inconclusive", "cannot be said"
DEPENDS = "depends on the score"
# The names of methods without a run in the study.
NAMES = {
    BASELINE: "Cross-entropy",
    "cyborg": "CYBORG",
    "hseb": "HSEB",
    "fmmmse": "FMMMSE",
    "droid": "DROID",
    "droid_cyborg": "DROID + CYBORG",
}


@dataclass(frozen=True)
class Question:
    """A research question of the paper (section 1).

    Attributes:
        name: RQ1 to RQ4.
        quote: the question in the paper's words, shortened.
        method: the method that it asks about.
        against: the methods that this one must be better than for a yes.
        human_maps: whether the question is about human maps, so that stand-ins for them do not answer it.
        presumes: the name of the question whose yes it presumes, if any.
    """

    name: str
    quote: str
    method: str
    against: tuple[str, ...]
    human_maps: bool = False
    presumes: str = ""


QUESTIONS = (
    Question(
        "RQ1",
        "Does requesting the average entropy of the model’s and human’s saliencies to match increase the performance, "
        "compared to […] just cross-entropy loss?",
        "hseb",
        (BASELINE,),
        human_maps=True,
    ),
    Question(
        "RQ2",
        "If the answer to RQ1 is affirmative, what if we aggressively request the minimum possible entropy of the "
        "model’s saliency?",
        "fmmmse",
        (BASELINE, "hseb"),
        presumes="RQ1",
    ),
    Question(
        "RQ3",
        "Is there a better strategy to control the entropy of the model’s saliency than requesting a specific entropy "
        "(as in RQ1) or aggressively minimizing such entropy (as in RQ2)?",
        "droid",
        ("hseb", "fmmmse"),
    ),
    Question(
        "RQ4",
        "Does the model benefit from combining the human saliency-guided training with non-human-guided control of "
        "the model salience’s entropy?",
        "droid_cyborg",
        ("cyborg", "droid"),
        human_maps=True,
    ),
)


class Family(NamedTuple):
    """The (method, against) that Holm's correction is made for; every other comparison is exploratory."""

    name: str
    pairs: set[tuple[str, str]]


PAPERS = Family("RQ1–RQ4", {(question.method, against) for question in QUESTIONS for against in question.against})
NEEDS_HUMAN_MAPS = {
    "saliency_entropy.losses.CrossEntropy": False,
    "saliency_entropy.losses.Entropy": False,
    "saliency_entropy.losses.LogEntropy": False,
    "saliency_entropy.losses.HumanSaliency": True,
}
POSITIVE_CONTROL = "positive control"
EXPLORATORY = "exploratory"


def is_positive_control(study: Study) -> bool:
    """Whether the data are the decoy, with the faces' own maps: then methods that use maps must beat cross-entropy."""
    run = study.runs[0]  # the runs of a study share their data and its control
    others = run.setting("data.template_maps") or (run.setting("data.human_maps.control") or "none") != "none"
    return run.setting("data.name") == "decoy" and not others


def family(study: Study) -> Family:
    """The comparisons that were named before the data of a study: those of the paper's questions, or on the decoy each
    method that uses human maps against cross-entropy."""
    if not is_positive_control(study):
        return PAPERS
    guided = [method for method in study.methods if uses_human_maps(study.of_method(method)[0])]
    return Family(POSITIVE_CONTROL, {(method, BASELINE) for method in guided})


def uses_human_maps(run: Run) -> bool | None:
    """Whether a loss has a term that needs human maps, as ``losses.Term.needs_human_maps`` says, which only a loss that
    is built could tell; None if that is not known, as of a term that is not the package's."""
    terms = run.setting("loss.terms")
    found = {_needs_human_maps(term) for term in terms.values()} if isinstance(terms, dict) else {None}
    return True if True in found else None if None in found else False


def _needs_human_maps(term: Any) -> bool | None:
    if not isinstance(term, dict):
        return None
    if term.get("_target_") == "saliency_entropy.losses.EntropyMatch":
        return isinstance(term.get("target", ""), str)  # else it is a number of nats
    return NEEDS_HUMAN_MAPS.get(term.get("_target_"))


def verdict(row: Mapping[str, Any]) -> str:
    """What a row of :func:`~saliency_entropy.study.tables.paired_table` shows of its method, by its score."""
    if row["pairs"] < MIN_SEEDS or pd.isna(row["p_holm"]):
        return UNKNOWN
    if row["p_holm"] < SIGNIFICANCE and not row["low"] <= 0 <= row["high"]:
        return BETTER if row["difference"] > 0 else WORSE
    return INCONCLUSIVE


def over_scores(verdicts: list[str]) -> str:
    """One verdict from those by every score."""
    return verdicts[0] if len({*verdicts}) == 1 else DEPENDS
