"""What the paper asks, as comparisons that were named before any data were seen; and the verdict on a comparison.

The primary test of every comparison is one: the paired t-test over the seeds that two methods share, on the AUROC on
unseen generators, or on all where there are none. A claim needs both scores: what holds by one depends on the score.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from saliency_entropy.study.runs import BASELINE

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

# (method, against) of the family that Holm's correction is made for; every other comparison is exploratory.
PRESPECIFIED = {(question.method, against) for question in QUESTIONS for against in question.against}


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
