"""The paper's four research questions, answered from the figures of a study.

A question is answered by every comparison that its wording asks for, by both scores. The paper's own answers rest on
differences from cross-entropy and from CYBORG, which do not say whether one strategy is better than another.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from saliency_entropy.page import wording
from saliency_entropy.run.ranking import RANKINGS
from saliency_entropy.study import contrasts
from saliency_entropy.study.contrasts import BETTER, DEPENDS, EXPLORATORY, INCONCLUSIVE, UNKNOWN, WORSE, Question
from saliency_entropy.study.figures import human_entropy, training_map_kind
from saliency_entropy.study.generator_choice import unseen_synthetic
from saliency_entropy.study.run_figures import MIN_IMAGES
from saliency_entropy.study.runs import BASELINE, Study
from saliency_entropy.study.tables import Measures


@dataclass(frozen=True)
class Answer:
    """What a study says about a question.

    Attributes:
        question: one of :data:`~saliency_entropy.study.contrasts.QUESTIONS`.
        verdict: better, worse, inconclusive, depends on the score, or cannot be said.
        claim: the verdict as a sentence that names the methods.
        sentences: the figures that it rests on, and its limits.
    """

    question: Question
    verdict: str
    claim: str
    sentences: tuple[str, ...]


def answers(study: Study, measures: Measures, comparisons: pd.DataFrame) -> list[Answer]:
    """The answers to the questions of whose methods there are runs, in order; none on the decoy, which is not what they
    ask about.

    Args:
        study: for its maps, methods and titles.
        measures: of the study; "better" means a higher :attr:`~Measures.measure`.
        comparisons: :func:`~saliency_entropy.study.comparisons.comparison_table` of these measures, by both scores.
    """
    found: dict[str, Answer] = {}
    for question in () if contrasts.is_positive_control(study) else contrasts.QUESTIONS:
        if {question.method, *question.against} <= {*study.methods}:
            found[question.name] = _answer(question, study, measures, comparisons, found.get(question.presumes))
    return list(found.values())


def unanswered(study: Study, answered: Iterable[Answer]) -> str:
    """A sentence on the questions that have no answer; "" if all have one."""
    if contrasts.is_positive_control(study):
        return "The paper’s four questions are about generators, not about a shortcut: the decoy does not answer them."
    given = {answer.question.name for answer in answered}
    left = [question for question in contrasts.QUESTIONS if question.name not in given]
    missing = {name for question in left for name in (question.method, *question.against)} - {*study.methods}
    names = [_inside(title) for name, title in contrasts.NAMES.items() if name in missing]
    what = wording.listed([question.name for question in left])
    return f"Not answered: {what}, for want of finished runs of {wording.listed(names)}." if left else ""


def against_baseline(comparisons: pd.DataFrame) -> list[pd.DataFrame]:
    """The :func:`comparison` of each method with cross-entropy; in a positive control, of those that must be better."""
    if comparisons.empty:
        return []
    rows = comparisons[comparisons["against"] == BASELINE]
    named = rows["family"] == contrasts.POSITIVE_CONTROL
    return [own for _, own in (rows[named] if named.any() else rows).groupby("method", sort=False)]


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


def comparison(comparisons: pd.DataFrame, method: str, against: str) -> pd.DataFrame:
    """The rows of :func:`~saliency_entropy.study.comparisons.comparison_table` on two methods, one by each score,
    ``against`` the one that comes first in the paper's order; empty if the study lacks one of them."""
    if comparisons.empty:
        return comparisons
    return comparisons[(comparisons["method"] == method) & (comparisons["against"] == against)]


def _inside(title: str) -> str:
    """A method's title inside a sentence, where cross-entropy is a word and the others are names."""
    return "cross-entropy" if title == contrasts.NAMES[BASELINE] else title


def in_words(rows: pd.DataFrame) -> str:
    """A sentence or two on a :func:`comparison`: by each score the difference, its interval and p, and the verdict."""
    row = rows.iloc[0]
    names = f"{row['title']} against {_inside(row['against_title'])}"
    if row["pairs"] == 0:
        return f"{names}: no seed in common."
    seeds = wording.count(row["pairs"], "seed")
    if row["pairs"] < max(row["seeds"], row["seeds_against"]):
        seeds = f"the {seeds} in common of {row['seeds']} and {row['seeds_against']}"
    if rows["difference"].isna().all():
        return f"{names}: no AUROC."
    exploratory = " (exploratory)" if row["family"] == EXPLORATORY else ""
    end = ""
    if 1 < row["pairs"] < contrasts.MIN_SEEDS:
        end = f" With fewer than {contrasts.MIN_SEEDS} seeds in common, nothing can be said."
    elif contrasts.over_scores(list(rows["verdict"])) == DEPENDS:
        end = " The verdict depends on the score."
    by_score = "; ".join(_by_score(row) for row in rows.to_dict("records"))
    return f"{names}{exploratory}, over {seeds}: {by_score}.{end}"


def caveats(rows: pd.DataFrame) -> list[str]:
    """Sentences on a :func:`comparison` that shows a difference, where it is not shown over other images."""
    shown = rows[rows["verdict"].isin([BETTER, WORSE])]
    only_here = shown[(shown["both_low"] <= 0) & (shown["both_high"] >= 0)]
    if only_here.empty:
        return []
    intervals = [
        f"{wording.interval(row['both_low'], row['both_high'], sign='+')} by {RANKINGS[row['score']]}"
        for row in only_here.to_dict("records")
    ]
    row = only_here.iloc[0]
    return [
        f"That holds for these test images; over other images, too, {row['title']} is not shown to be "
        f"{row['verdict']} than {_inside(row['against_title'])} (95 % interval over seeds and images "
        f"{' and '.join(intervals)})."
    ]


def weight_alone(comparisons: pd.DataFrame) -> list[str]:
    """A sentence on what half the weight of cross-entropy does by itself, if the study has this control: the methods
    of the paper give it the weight 0.5, where cross-entropy alone has 1."""
    rows = comparison(comparisons, "cross_entropy_half", BASELINE)
    if rows.empty:
        return []
    return [f"What the weight alone does: cross-entropy at 0.5, as in the other methods. {in_words(rows)}"]


def markdown(answered: list[Answer], further: Iterable[str] = ()) -> str:
    """The questions, the answers as lists, and further sentences; the words of a study's files cannot be markup."""
    paragraphs = []
    for answer in answered:
        paragraphs += [
            f"**{answer.question.name}.** *{wording.escape_markdown(answer.question.quote)}*\n",
            f"**{wording.escape_markdown(answer.claim)}**\n",
            *(f"- {wording.escape_markdown(sentence)}" for sentence in answer.sentences),
            "",
        ]
    return "\n".join([*paragraphs, *(f"{wording.escape_markdown(sentence)}\n" for sentence in further)])


def _by_score(row: Mapping[str, Any]) -> str:
    """The figures and the verdict of one row of a :func:`comparison`."""
    words = f"by {RANKINGS[row['score']]} {wording.number(row['difference'], sign='+')}"
    if row["pairs"] == 1:
        return f"{words} (one seed says nothing about another, so there is no interval)"
    if pd.isna(row["p_holm"]):
        return f"{words} (equal in each, which allows no test)"
    interval = wording.interval(row["low"], row["high"], sign="+")
    words += f" (95 % interval {interval}; {wording.p_equals(row['p_holm'])} after Holm’s correction)"
    if row["verdict"] == UNKNOWN:
        return words
    if row["verdict"] != INCONCLUSIVE:
        return f"{words}: {row['verdict']}"
    reason = "" if row["low"] <= 0 <= row["high"] else "the interval excludes 0, but not after the correction; "
    least = f"power of {100 * contrasts.POWER:g} % from a difference of {wording.number(row['detectable'])} on"
    return f"{words}: {INCONCLUSIVE} ({reason}{least})"


def _answer(
    question: Question, study: Study, measures: Measures, comparisons: pd.DataFrame, presumed: Answer | None
) -> Answer:
    asked = [comparison(comparisons, question.method, other) for other in question.against]
    unknown = ""
    if measures.measure != "auroc_unseen":
        unknown = (
            "The question is about generators that are not in training, and the test set holds no image that is known "
            "to be of one; these are differences in AUROC on all test images."
        )
    elif too_few := too_few_images(measures):
        unknown = f"Nothing can be said: {too_few}."
    names = [study.titles[question.method], *(_inside(study.titles[name]) for name in question.against)]
    by_score = {} if unknown else dict(list(pd.concat(asked).groupby("score", sort=False)))
    # Score -> the verdict by it, and the claim.
    found = {score: _claim(names, rows) for score, rows in by_score.items()}
    verdict, claim = next(iter(found.values()), (UNKNOWN, _unknown(names)))
    if len({*found.values()}) > 1:
        verdict = DEPENDS
        claims = "; ".join(f"by {RANKINGS[score]}, {own}" for score, (_, own) in found.items())
        claim = f"It depends on the score: {claims}"
    elif verdict != UNKNOWN:
        claim = f"By both scores, {claim}"
    sentences = [in_words(rows) for rows in asked]
    if unknown:
        sentences.append(unknown)
    else:
        sentences += [sentence for rows in asked for sentence in caveats(rows)]
    sentences += [_entropies(question, study, measures), *_limits(question, study, presumed)]
    return Answer(question, verdict, f"{claim}.", tuple(sentences))


def _claim(names: list[str], rows: pd.DataFrame) -> tuple[str, str]:
    """The verdict by one score on a method (the first of ``names``) that is asked to be better than several, with which
    ``rows`` compare it, and a clause that says it."""
    method = names[0]
    by_verdict = {verdict: list(map(_inside, own["against_title"])) for verdict, own in rows.groupby("verdict")}
    if UNKNOWN in by_verdict:
        return UNKNOWN, _unknown(names)
    parts = [f"{v} than {wording.listed(by_verdict[v])}" for v in (BETTER, WORSE) if v in by_verdict]
    claims = [f"{method} is {wording.listed(parts)}"] if parts else []
    if INCONCLUSIVE in by_verdict:
        claims.append(f"whether {method} differs from {wording.listed(by_verdict[INCONCLUSIVE])} is inconclusive")
    verdict = WORSE if WORSE in by_verdict else BETTER if {*by_verdict} == {BETTER} else INCONCLUSIVE
    return verdict, "; ".join(claims)


def _unknown(names: list[str]) -> str:
    return f"It cannot be said whether {names[0]} is better than {wording.listed(names[1:])}"


def _entropies(question: Question, study: Study, measures: Measures) -> str:
    means = measures.runs.groupby("method")["cam_entropy"].mean()
    parts = [
        f"{_inside(study.titles[method])} {wording.number(means[method], 2)}"
        for method in (question.method, *question.against)
    ]
    maps = human_entropy(study) if question.human_maps else None
    known = f" (training images’ {training_map_kind(study)} maps {wording.number(maps, 2)})" if maps is not None else ""
    return (
        f"Mean CAM entropy of the test images in nats: {wording.listed(parts)}{known}; the paper’s own are of training "
        "images."
    )


def _limits(question: Question, study: Study, presumed: Answer | None) -> list[str]:
    sentences = []
    if question.human_maps and human_entropy(study) is None:
        sentences.append("No run notes the entropy of human maps, so whether the model’s matches it cannot be said.")
    elif question.human_maps and (kind := training_map_kind(study)) != "human":
        sentences.append(f"The maps were {kind} maps, not human ones: about human saliency this says nothing.")
    if presumed is not None and presumed.verdict != BETTER:
        sentences.append(f"The question presumes a yes to {presumed.question.name}, which these runs do not give.")
    return sentences
