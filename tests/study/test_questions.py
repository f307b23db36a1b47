"""The answers to the research questions: better, worse, inconclusive, depending on the score, or not to be said."""

from dataclasses import replace

import pandas as pd
import pytest
from benchmarks.made_up_study import TITLES, write_study

from saliency_entropy.run.study_folders import METHODS
from saliency_entropy.study.contrasts import PAPERS, QUESTIONS, Family, family, verdict
from saliency_entropy.study.questions import against_baseline, answers, caveats, markdown, unanswered, weight_alone
from saliency_entropy.study.runs import read_study
from saliency_entropy.study.tables import measure, paired_table

NAN = float("nan")
# Difference, 95 % interval, p after Holm's correction, 95 % interval over seeds and images, detectable difference.
BETTER = (0.1, 0.05, 0.15, 0.004, 0.03, 0.17, 0.08)
BETTER_ON_THESE_IMAGES = (0.1, 0.05, 0.15, 0.004, -0.01, 0.21, 0.08)
WORSE = (-0.1, -0.15, -0.05, 0.0004, -0.17, -0.03, 0.08)
WORSE_ON_THESE_IMAGES = (-0.1, -0.15, -0.05, 0.0004, -0.25, 0.05, 0.08)
OPEN = (0.1, -0.05, 0.25, 0.3, -0.1, 0.3, 0.22)
OPEN_AFTER_HOLM = (0.1, 0.01, 0.19, 0.06, -0.1, 0.3, 0.12)


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    study = read_study(write_study(tmp_path_factory.mktemp("runs") / "demo", dict.fromkeys(METHODS, 2)))
    return study, measure(study)


def compared(figures=BETTER, seeds=(5, 5, 5), titles=TITLES, margin=None, **differing):
    """The comparisons that the questions ask for; ``differing`` by "method_against"; ``margin``: those by margin, if
    they differ from those by logit 1."""
    rows = []
    for question in QUESTIONS:
        for against in question.against:
            own = differing.get(f"{question.method}_{against}", figures)
            for score, values in (("logit", own), ("margin", own if margin is None else margin)):
                names = ("method", "title", "against", "against_title", "seeds", "seeds_against", "pairs")
                named = (question.method, titles[question.method], against, titles[against], *seeds)
                figure_names = ("difference", "low", "high", "p_holm", "both_low", "both_high", "detectable")
                row = dict(zip(names, named, strict=True)) | dict(zip(figure_names, values, strict=True))
                rows.append(row | {"score": score, "family": "RQ1–RQ4", "verdict": verdict(row)})
    return pd.DataFrame(rows)


def verdicts(studied, comparisons):
    return [answer.verdict for answer in answers(*studied, comparisons)]


def test_the_family_of_the_correction_is_what_the_questions_name():
    assert {
        ("hseb", "cross_entropy"), ("fmmmse", "cross_entropy"), ("fmmmse", "hseb"), ("droid", "hseb"),
        ("droid", "fmmmse"), ("droid_cyborg", "cyborg"), ("droid_cyborg", "droid"),
    } == PAPERS.pairs  # fmt: skip
    assert PAPERS.name == "RQ1–RQ4"


def decoy(tmp_path, methods, **data):
    """A study of the decoy, whose methods have the terms of these."""
    for method, seeds in methods.items():
        target = {"target": 2.0} if method == "dose" else {}
        kind = {"cyborg": "HumanSaliency", "hseb": "EntropyMatch", "dose": "EntropyMatch"}.get(method, "CrossEntropy")
        terms = {"term": {"_target_": f"saliency_entropy.losses.{kind}", "weight": 0.5} | target}
        config = {"data": {"name": "decoy", **data}, "loss": {"terms": terms}}
        write_study(tmp_path / "demo", {method: seeds}, config=config)
    return read_study(tmp_path / "demo")


def test_on_the_decoy_the_family_is_each_method_that_uses_human_maps_against_cross_entropy(tmp_path):
    """A number in the place of the entropy of human maps needs none."""
    study = decoy(tmp_path, {"cross_entropy": 5, "cyborg": 5, "hseb": 5, "droid": 5, "dose": 1})
    own = family(study)
    assert own == Family("positive control", {("cyborg", "cross_entropy"), ("hseb", "cross_entropy")})
    measures = measure(study)
    table = paired_table(measures).set_index(["method", "against"])
    assert {pair for pair, row in table.iterrows() if row["family"] == "positive control"} == own.pairs
    p = table.loc[sorted(own.pairs), "p"].to_numpy()
    expected = [max(2 * p.min(), p.max()) if value == p.max() else 2 * value for value in p]
    assert table.loc[sorted(own.pairs), "p_holm"].to_numpy() == pytest.approx(expected)
    assert [rows["method"].item() for rows in against_baseline(table.reset_index())] == ["cyborg", "hseb"]
    assert answers(study, measures, compared()) == []
    assert unanswered(study, []).endswith("not about a shortcut: the decoy does not answer them.")


@pytest.mark.parametrize("data", [{"human_maps": {"control": "shuffled"}}, {"template_maps": True}])
def test_the_decoy_with_other_maps_is_no_positive_control(tmp_path, data):
    assert family(decoy(tmp_path, {"cross_entropy": 2, "cyborg": 2}, **data)) is PAPERS


def test_what_is_shown_is_claimed(studied):
    found = answers(*studied, compared())
    assert [answer.question.name for answer in found] == ["RQ1", "RQ2", "RQ3", "RQ4"]
    assert [answer.verdict for answer in found] == ["better"] * 4
    assert found[1].claim == "By both scores, FMMMSE is better than cross-entropy and HSEB."
    figures = "+0.100 (95 % interval +0.050 to +0.150; p = 0.004 after Holm’s correction): better"
    assert found[0].sentences[0] == (
        f"HSEB against cross-entropy, over 5 seeds: by logit 1 {figures}; by margin {figures}."
    )
    assert [sentence.partition(",")[0] for sentence in found[3].sentences[:2]] == [
        "DROID + CYBORG against CYBORG",
        "DROID + CYBORG against DROID",
    ]


@pytest.mark.parametrize(
    ("figures", "found", "claim", "words"),
    [
        (OPEN, "inconclusive", "By both scores, whether HSEB differs from cross-entropy is inconclusive.",
         "p = 0.300 after Holm’s correction): inconclusive (power of 80 % from a difference of 0.220 on)."),
        (OPEN_AFTER_HOLM, "inconclusive", "By both scores, whether HSEB differs from cross-entropy is inconclusive.",
         ": inconclusive (the interval excludes 0, but not after the correction; power of 80 % from a difference of "
         "0.120 on)."),
        (WORSE, "worse", "By both scores, HSEB is worse than cross-entropy.",
         "by margin −0.100 (95 % interval −0.150 to −0.050; p < 0.001 after Holm’s correction): worse."),
    ],
)  # fmt: skip
def test_what_is_not_shown_is_not_claimed(studied, figures, found, claim, words):
    answered = answers(*studied, compared(hseb_cross_entropy=figures))
    assert [answer.verdict for answer in answered] == [found, "better", "better", "better"]
    assert answered[0].claim == claim
    assert answered[0].sentences[0].endswith(words)
    assert answered[1].sentences[-1] == "The question presumes a yes to RQ1, which these runs do not give."


def test_every_comparison_that_the_question_asks_for_counts(studied):
    assert verdicts(studied, compared(droid_fmmmse=OPEN)) == ["better", "better", "inconclusive", "better"]
    assert verdicts(studied, compared(droid_cyborg_droid=OPEN)) == ["better", "better", "better", "inconclusive"]
    found = answers(*studied, compared(fmmmse_hseb=WORSE, droid_fmmmse=OPEN))
    assert [answer.verdict for answer in found] == ["better", "worse", "inconclusive", "better"]
    assert found[1].claim == "By both scores, FMMMSE is better than cross-entropy and worse than HSEB."
    assert found[2].claim == (
        "By both scores, DROID is better than HSEB; whether DROID differs from FMMMSE is inconclusive."
    )


@pytest.mark.parametrize(
    ("margin", "claim"),
    [
        (OPEN, "It depends on the score: by logit 1, HSEB is worse than cross-entropy; by margin, whether HSEB differs "
               "from cross-entropy is inconclusive."),
        (BETTER, "It depends on the score: by logit 1, HSEB is worse than cross-entropy; by margin, HSEB is better "
                 "than cross-entropy."),
    ],
)  # fmt: skip
def test_an_answer_that_the_scores_do_not_share_depends_on_the_score(studied, margin, claim):
    found = answers(*studied, compared(WORSE, margin=margin))[0]
    assert found.verdict == "depends on the score"
    assert found.claim == claim
    assert found.sentences[0].endswith("The verdict depends on the score.")


def test_what_holds_for_these_images_only_is_said_of_better_and_of_worse(studied):
    found = answers(*studied, compared(hseb_cross_entropy=BETTER_ON_THESE_IMAGES))[0]
    assert found.verdict == "better"
    assert found.sentences[1] == (
        "That holds for these test images; over other images, too, HSEB is not shown to be better than cross-entropy "
        "(95 % interval over seeds and images −0.010 to +0.210 by logit 1 and −0.010 to +0.210 by margin)."
    )
    rows = compared(WORSE_ON_THESE_IMAGES, margin=WORSE)[:2]
    assert caveats(rows) == [
        "That holds for these test images; over other images, too, HSEB is not shown to be worse than cross-entropy "
        "(95 % interval over seeds and images −0.250 to +0.050 by logit 1)."
    ]
    assert caveats(compared(WORSE)[:2]) == caveats(compared(OPEN)[:2]) == []


@pytest.mark.parametrize(
    ("seeds", "figures", "words"),
    [
        ((1, 1, 1), (0.1, *[NAN] * 6), "over 1 seed: by logit 1 +0.100 (one seed says nothing about another, so there"),
        ((3, 1, 1), (0.1, *[NAN] * 6), "over the 1 seed in common of 3 and 1: by logit 1 +0.100 (one seed says"),
        ((5, 5, 5), (0.1, *[NAN] * 6), "by margin +0.100 (equal in each, which allows no test)."),
        ((3, 3, 0), [NAN] * 7, "HSEB against cross-entropy: no seed in common."),
        ((3, 3, 3), [NAN] * 7, "HSEB against cross-entropy: no AUROC."),
        ((4, 4, 4), BETTER, "after Holm’s correction). With fewer than 5 seeds in common, nothing can be said."),
    ],
)  # fmt: skip
def test_without_an_interval_or_with_fewer_than_five_seeds_nothing_can_be_said(studied, seeds, figures, words):
    found = answers(*studied, compared(figures, seeds))
    assert [answer.verdict for answer in found] == ["cannot be said"] * 4
    assert found[0].claim == "It cannot be said whether HSEB is better than cross-entropy."
    assert words in found[0].sentences[0]


def test_what_the_weight_alone_does_is_one_line(studied):
    assert weight_alone(compared()) == []
    rows = compared(WORSE)[:2].assign(
        method="cross_entropy_half", title="Half", against="cross_entropy", family="exploratory"
    )
    (line,) = weight_alone(rows)
    assert line.startswith(
        "What the weight alone does: cross-entropy at 0.5, as in the other methods. Half against cross-entropy "
        "(exploratory), over 5 seeds: by logit 1 −0.100 (95 % interval"
    )
    assert line in markdown([], [line]).replace("\\", "")


def test_unequal_seeds_are_named(studied):
    found = answers(*studied, compared(seeds=(7, 6, 5)))[0]
    assert "over the 5 seeds in common of 7 and 6: by logit 1 +0.100 (95 % interval" in found.sentences[0]


def test_missing_methods_are_named(tmp_path):
    study = read_study(write_study(tmp_path / "demo", {"cross_entropy": 2, "hseb": 2, "droid": 2}))
    found = answers(study, measure(study), compared())
    assert [(answer.question.name, answer.verdict) for answer in found] == [("RQ1", "better")]
    assert unanswered(study, found) == (
        "Not answered: RQ2, RQ3 and RQ4, for want of finished runs of CYBORG, FMMMSE and DROID + CYBORG."
    )


def test_cross_entropy_is_a_word_among_the_missing_methods(tmp_path):
    study = read_study(write_study(tmp_path / "demo", {"hseb": 2, "droid": 2, "fmmmse": 2, "droid_cyborg": 2}))
    assert unanswered(study, []).endswith("for want of finished runs of cross-entropy and CYBORG.")


def test_nothing_is_said_of_unanswered_questions_where_all_are_answered(studied):
    assert unanswered(studied[0], answers(*studied, compared())) == ""


def test_a_test_set_without_unseen_generators_does_not_answer(studied):
    study, measures = studied
    found = answers(study, replace(measures, measure="auroc"), compared())
    assert [answer.verdict for answer in found] == ["cannot be said"] * 4
    assert "The question is about generators that are not in training" in found[0].sentences[1]


def test_the_entropies_are_given(studied):
    study, measures = studied
    means = measures.runs.groupby("method")["cam_entropy"].mean().map("{:.2f}".format)
    found = answers(study, measures, compared())
    assert found[0].sentences[-1] == (
        f"Mean CAM entropy of the test images in nats: HSEB {means['hseb']} and cross-entropy "
        f"{means['cross_entropy']} (training images’ human maps 3.00); the paper’s own are of training images."
    )
    assert "maps" not in found[2].sentences[-1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"config": {"data": {"template_maps": True}}}, "The maps were template maps, not human ones: about human"),
        ({"config": {"data": {"name": "builtin"}}}, "The maps were simulated maps, not human ones: about human"),
        (
            {"config": {"data": {"human_maps": {"control": "shuffled"}}}},
            "The maps were shuffled control maps, not human ones: about human",
        ),
        ({"result": {"human_entropy": None}}, "No run notes the entropy of human maps, so whether the model’s"),
    ],
)
def test_maps_that_nobody_drew_say_nothing_about_human_saliency(tmp_path, options, words):
    study = read_study(write_study(tmp_path / "demo", dict.fromkeys(METHODS, 1), **options))
    found = answers(study, measure(study), compared())
    said = [any(words in sentence for sentence in answer.sentences) for answer in found]
    assert said == [True, False, False, True]


def test_titles_are_no_markup(tmp_path):
    titles = dict.fromkeys(TITLES, "*<b>x</b>*")
    study = read_study(write_study(tmp_path / "demo", dict.fromkeys(METHODS, 1), title="*<b>x</b>*"))
    text = markdown(answers(study, measure(study), compared(titles=titles)))
    assert "\\*\\<b\\>x\\</b\\>\\* against" in text
    assert text.count("**By both scores, \\*\\<b\\>x") == 4
    assert "<b>" not in text
