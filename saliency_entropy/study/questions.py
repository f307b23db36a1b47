"""The paper's four research questions, answered from the figures of a study.

A question is answered by every comparison that its wording asks for. The paper's own answers rest on differences from
cross-entropy and from CYBORG, which do not say whether one strategy is better than another.
"""

from dataclasses import dataclass

import pandas as pd

from saliency_entropy.page import wording
from saliency_entropy.study.figures import human_entropy, map_kind
from saliency_entropy.study.generator_choice import unseen_synthetic
from saliency_entropy.study.run_figures import MIN_IMAGES
from saliency_entropy.study.runs import BASELINE, Study
from saliency_entropy.study.tables import Measures

# A difference whose interval excludes 0 counts as shown if its p after Holm's correction is below this.
SIGNIFICANCE = 0.05
SHOWN, NOT_SHOWN, UNKNOWN = "Shown", "Not shown", "Cannot be said"
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


@dataclass(frozen=True)
class Answer:
    """What a study says about a question.

    Attributes:
        question: one of :data:`QUESTIONS`.
        verdict: "Shown", "Not shown" or "Cannot be said".
        claim: the verdict as a sentence that names the methods.
        sentences: the figures that it rests on, and its limits.
    """

    question: Question
    verdict: str
    claim: str
    sentences: tuple[str, ...]


def answers(study: Study, measures: Measures, comparisons: pd.DataFrame) -> list[Answer]:
    """The answers to the four questions, in order.

    Args:
        study: for its maps, methods and titles.
        measures: of the study; "better" means a higher :attr:`~Measures.measure`.
        comparisons: :func:`~saliency_entropy.study.comparisons.comparison_table` of these measures.
    """
    found: dict[str, Answer] = {}
    for question in QUESTIONS:
        found[question.name] = _answer(question, study, measures, comparisons, found.get(question.presumes))
    return list(found.values())


def too_few_images(measures: Measures) -> str:
    """Why the test images are too few to compare methods by, as a clause; "" if they are enough."""
    first = measures.runs.iloc[0]
    images = {"synthetic": int(first["test_synthetic"]), "real": int(first["test_real"])}
    of = "test images"
    if measures.measure == "auroc_unseen":
        images["synthetic"] = unseen_synthetic(measures)
        of = "test images, the synthetic ones of unseen generators"
    few = [wording.count(count, f"{kind} image") for kind, count in images.items() if 0 < count < MIN_IMAGES]
    return f"there are only {wording.listed(few)} ({of}; {MIN_IMAGES} of either are the least)" if few else ""


def comparison(comparisons: pd.DataFrame, method: str, against: str) -> pd.Series | None:
    """The row of :func:`~saliency_entropy.study.comparisons.comparison_table` on two methods, ``against`` the one that
    comes first in the paper's order; None if the study lacks one of them."""
    if comparisons.empty:
        return None
    rows = comparisons[(comparisons["method"] == method) & (comparisons["against"] == against)]
    return rows.iloc[0] if len(rows) else None


def in_words(row: pd.Series) -> str:
    """A sentence on a :func:`comparison`: the difference, its interval and p, and the verdict."""
    names = f"{row['title']} against {row['against_title']}"
    if row["pairs"] == 0:
        return f"{names}: no seed in common."
    difference = wording.number(row["difference"], sign="+")
    seeds = wording.count(row["pairs"], "seed")
    if row["pairs"] < max(row["seeds"], row["seeds_against"]):
        seeds = f"the {seeds} in common of {row['seeds']} and {row['seeds_against']}"
    if pd.isna(row["difference"]):
        return f"{names}: no AUROC."
    if row["pairs"] == 1:
        return f"{names}: {difference} over {seeds}; one seed says nothing about another, so there is no interval."
    if pd.isna(row["p_holm"]):
        return f"{names}: {difference} over {seeds}, equal in each, which allows no test."
    if _better(row):
        verdict = "better"
    elif row["high"] < 0 and row["p_holm"] < SIGNIFICANCE:
        verdict = "worse"
    elif row["low"] <= 0 <= row["high"]:
        verdict = "no difference is shown"
    else:
        verdict = "the interval excludes 0, but not after the correction: no difference is shown"
    interval = wording.interval(row["low"], row["high"], sign="+")
    p = wording.p_equals(row["p_holm"])
    return f"{names}: {difference} over {seeds} (95 % interval {interval}; {p} after Holm’s correction): {verdict}."


def these_images_only(row: pd.Series) -> list[str]:
    """A sentence if a :func:`comparison` shows its method to be better, but not over other images."""
    if not _better(row) or row["both_low"] > 0:
        return []
    interval = wording.interval(row["both_low"], row["both_high"], sign="+")
    return [
        f"That holds for these test images; over other images, too, {row['title']} is not shown to be better than "
        f"{row['against_title']} (95 % interval over seeds and images {interval})."
    ]


def markdown(answered: list[Answer]) -> str:
    """The questions, and the answers as lists; the words of a study's files cannot be markup."""
    paragraphs = []
    for answer in answered:
        paragraphs += [
            f"**{answer.question.name}.** *{wording.escape_markdown(answer.question.quote)}*\n",
            f"**{wording.escape_markdown(answer.claim)}**\n",
            *(f"- {wording.escape_markdown(sentence)}" for sentence in answer.sentences),
            "",
        ]
    return "\n".join(paragraphs)


def _answer(
    question: Question, study: Study, measures: Measures, comparisons: pd.DataFrame, presumed: Answer | None
) -> Answer:
    missing = [NAMES[name] for name in (question.method, *question.against) if name not in study.methods]
    rows = [comparison(comparisons, question.method, other) for other in question.against if not missing]
    unknown = ""
    if missing:
        unknown = f"The study has no finished run of {wording.listed(missing)}."
    elif measures.measure != "auroc_unseen":
        unknown = (
            "The question is about generators that are not in training, and the test set holds no image that is known "
            "to be of one; these are differences in AUROC on all test images."
        )
    elif too_few := too_few_images(measures):
        unknown = f"Nothing can be said: {too_few}."
    if unknown or any(pd.isna(row["p_holm"]) for row in rows):
        verdict = UNKNOWN
    else:
        verdict = SHOWN if all(_better(row) for row in rows) else NOT_SHOWN
    sentences = [in_words(row) for row in rows]
    if unknown:
        sentences.append(unknown)
    if verdict == SHOWN:
        sentences += [sentence for row in rows for sentence in these_images_only(row)]
    if not missing:
        sentences += [_entropies(question, study, measures), *_limits(question, study, presumed)]
    return Answer(question, verdict, _claim(question, verdict, study), tuple(sentences))


def _claim(question: Question, verdict: str, study: Study) -> str:
    method, *others = (study.titles.get(name, NAMES[name]) for name in (question.method, *question.against))
    better = f"{method} is better than {wording.listed(others)}"
    if verdict == UNKNOWN:
        return f"It cannot be said whether {better}."
    return f"Shown: {better}." if verdict == SHOWN else f"Not shown: that {better}."


def _better(row: pd.Series) -> bool:
    return row["low"] > 0 and row["p_holm"] < SIGNIFICANCE


def _entropies(question: Question, study: Study, measures: Measures) -> str:
    means = measures.runs.groupby("method")["cam_entropy"].mean()
    parts = [
        f"{study.titles[method]} {wording.number(means[method], 2)}" for method in (question.method, *question.against)
    ]
    maps = human_entropy(study) if question.human_maps else None
    known = f" (training images’ {map_kind(study)} maps {wording.number(maps, 2)})" if maps is not None else ""
    return f"Mean CAM entropy of the test images in nats: {wording.listed(parts)}{known}."


def _limits(question: Question, study: Study, presumed: Answer | None) -> list[str]:
    sentences = []
    if question.human_maps and human_entropy(study) is None:
        sentences.append("No run notes the entropy of human maps, so whether the model’s matches it cannot be said.")
    elif question.human_maps and (kind := map_kind(study)) != "human":
        sentences.append(f"The maps were {kind} maps, not human ones: about human saliency this says nothing.")
    if presumed is not None and presumed.verdict != SHOWN:
        sentences.append(f"The question presumes a yes to {presumed.question.name}, which these runs do not give.")
    return sentences
