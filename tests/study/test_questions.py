"""The answers to the research questions: claimed where shown, and otherwise said to be not shown or not known."""

from dataclasses import replace

import pandas as pd
import pytest
from benchmarks.made_up_study import TITLES, write_study

from saliency_entropy.run.study_folders import METHODS
from saliency_entropy.study.comparisons import COMPARISON_COLUMNS
from saliency_entropy.study.questions import QUESTIONS, answers, markdown
from saliency_entropy.study.runs import read_study
from saliency_entropy.study.tables import measure

NAN = float("nan")
# Difference, 95 % interval, p after Holm's correction, 95 % interval over seeds and images.
BETTER = (0.1, 0.05, 0.15, 0.004, 0.03, 0.17)
BETTER_ON_THESE_IMAGES = (0.1, 0.05, 0.15, 0.004, -0.01, 0.21)
WORSE = (-0.1, -0.15, -0.05, 0.0004, -0.17, -0.03)
OPEN = (0.1, -0.05, 0.25, 0.3, -0.1, 0.3)
OPEN_AFTER_HOLM = (0.1, 0.01, 0.19, 0.06, -0.1, 0.3)


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    study = read_study(write_study(tmp_path_factory.mktemp("runs") / "demo", dict.fromkeys(METHODS, 2)))
    return study, measure(study)


def compared(figures=BETTER, seeds=(5, 5, 5), titles=TITLES, **differing):
    """The comparisons that the questions ask for; ``differing`` by "method_against"."""
    rows = []
    for question in QUESTIONS:
        for against in question.against:
            values = differing.get(f"{question.method}_{against}", figures)
            names = (question.method, titles[question.method], against, titles[against], *seeds)
            figure_names = ("difference", "low", "high", "p_holm", "both_low", "both_high")
            rows.append(
                dict(zip(COMPARISON_COLUMNS, names, strict=True)) | dict(zip(figure_names, values, strict=True))
            )
    return pd.DataFrame(rows)


def verdicts(studied, comparisons):
    return [answer.verdict for answer in answers(*studied, comparisons)]


def test_what_is_shown_is_claimed(studied):
    found = answers(*studied, compared())
    assert [answer.question.name for answer in found] == ["RQ1", "RQ2", "RQ3", "RQ4"]
    assert [answer.verdict for answer in found] == ["Shown"] * 4
    assert found[1].claim == "Shown: FMMMSE is better than Cross-entropy and HSEB."
    assert found[0].sentences[0] == (
        "HSEB against Cross-entropy: +0.100 over 5 seeds (95 % interval +0.050 to +0.150; p = 0.004 after Holm’s "
        "correction): better."
    )
    assert [sentence.partition(":")[0] for sentence in found[3].sentences[:2]] == [
        "DROID + CYBORG against CYBORG",
        "DROID + CYBORG against DROID",
    ]


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        (OPEN, "p = 0.300 after Holm’s correction): no difference is shown."),
        (OPEN_AFTER_HOLM, "the interval excludes 0, but not after the correction: no difference is shown."),
        (WORSE, "−0.100 over 5 seeds (95 % interval −0.150 to −0.050; p < 0.001 after Holm’s correction): worse."),
    ],
)
def test_what_is_not_shown_is_not_claimed(studied, figures, words):
    found = answers(*studied, compared(hseb_cross_entropy=figures))
    assert [answer.verdict for answer in found] == ["Not shown", "Shown", "Shown", "Shown"]
    assert found[0].claim == "Not shown: that HSEB is better than Cross-entropy."
    assert found[0].sentences[0].endswith(words)
    assert found[1].sentences[-1] == "The question presumes a yes to RQ1, which these runs do not give."


def test_every_comparison_that_the_question_asks_for_must_be_shown(studied):
    assert verdicts(studied, compared(droid_fmmmse=OPEN)) == ["Shown", "Shown", "Not shown", "Shown"]
    assert verdicts(studied, compared(droid_cyborg_droid=OPEN)) == ["Shown", "Shown", "Shown", "Not shown"]
    assert verdicts(studied, compared(fmmmse_hseb=WORSE)) == ["Shown", "Not shown", "Shown", "Shown"]


def test_what_holds_for_these_images_only_is_said(studied):
    found = answers(*studied, compared(hseb_cross_entropy=BETTER_ON_THESE_IMAGES))[0]
    assert found.verdict == "Shown"
    assert found.sentences[1] == (
        "That holds for these test images; over other images, too, HSEB is not shown to be better than Cross-entropy "
        "(95 % interval over seeds and images −0.010 to +0.210)."
    )


@pytest.mark.parametrize(
    ("seeds", "figures", "words"),
    [
        ((1, 1, 1), (0.1, *[NAN] * 5), "+0.100 over 1 seed; one seed says nothing about another, so there is no"),
        ((3, 1, 1), (0.1, *[NAN] * 5), "+0.100 over the 1 seed in common of 3 and 1; one seed says nothing"),
        ((3, 3, 3), (0.1, *[NAN] * 5), "+0.100 over 3 seeds, equal in each, which allows no test."),
        ((3, 3, 0), [NAN] * 6, "HSEB against Cross-entropy: no seed in common."),
        ((3, 3, 3), [NAN] * 6, "HSEB against Cross-entropy: no AUROC."),
    ],
)
def test_without_an_interval_nothing_can_be_said(studied, seeds, figures, words):
    found = answers(*studied, compared(figures, seeds))
    assert [answer.verdict for answer in found] == ["Cannot be said"] * 4
    assert words in found[0].sentences[0]


def test_unequal_seeds_are_named(studied):
    found = answers(*studied, compared(seeds=(5, 3, 2)))[0]
    assert "+0.100 over the 2 seeds in common of 5 and 3 (95 % interval" in found.sentences[0]


def test_missing_methods_are_named(tmp_path):
    study = read_study(write_study(tmp_path / "demo", {"cross_entropy": 2, "hseb": 2, "droid": 2}))
    found = answers(study, measure(study), compared())
    assert [answer.verdict for answer in found] == ["Shown", *["Cannot be said"] * 3]
    assert found[3].claim == "It cannot be said whether DROID + CYBORG is better than CYBORG and DROID."
    assert [answer.sentences for answer in found[1:]] == [
        ("The study has no finished run of FMMMSE.",),
        ("The study has no finished run of FMMMSE.",),
        ("The study has no finished run of DROID + CYBORG and CYBORG.",),
    ]


def test_a_test_set_without_unseen_generators_does_not_answer(studied):
    study, measures = studied
    found = answers(study, replace(measures, measure="auroc"), compared())
    assert [answer.verdict for answer in found] == ["Cannot be said"] * 4
    assert "The question is about generators that are not in training" in found[0].sentences[1]


def test_the_entropies_are_given(studied):
    study, measures = studied
    means = measures.runs.groupby("method")["cam_entropy"].mean().map("{:.2f}".format)
    found = answers(study, measures, compared())
    assert found[0].sentences[-1] == (
        f"Mean CAM entropy of the test images in nats: HSEB {means['hseb']} and Cross-entropy "
        f"{means['cross_entropy']} (training images’ human maps 3.00)."
    )
    assert "maps" not in found[2].sentences[-1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"config": {"data": {"template_maps": True}}}, "The maps were template maps, not human ones: about human"),
        ({"config": {"data": {"name": "builtin"}}}, "The maps were simulated maps, not human ones: about human"),
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
    assert text.count("**Shown: \\*\\<b\\>x") == 4
    assert "<b>" not in text
