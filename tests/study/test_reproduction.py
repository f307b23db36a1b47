"""Our figures beside the paper's: only where they may stand there, and judged by Welch's interval."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from scipy import stats

from saliency_entropy.benchmarks.made_up_study import write_study
from saliency_entropy.study.folders import METHODS
from saliency_entropy.study.reproduction import AUROC, departures, not_comparable, notes, reproduction_table, shown
from saliency_entropy.study.runs import read_study
from saliency_entropy.study.tables import measure

WEIGHTS = {
    "cross_entropy": {"cross_entropy": 1.0},
    "droid": {"cross_entropy": 0.5, "log_entropy": 0.5},
    "droid_cyborg": {"cross_entropy": 0.5, "human_saliency": 0.5, "log_entropy": 0.3},
}


def paper_study(folder, methods, **differing):
    """A study of the paper's settings, but for ``differing``, and measures as of 700,000 test images."""
    config = {
        "data": {"name": "und_cyborg", "template_maps": False, "train_batches": None},
        "backbone": {"name": "densenet121", "pretrained": True},
        "protocol": {"name": "paper", "batch_size": 20, "optimizer": {"lr": 0.002}},
        "trainer": {"max_epochs": 150},
    }
    for run in write_study(folder, methods).glob("*/*"):
        terms = {name: {"weight": weight} for name, weight in WEIGHTS[run.parent.name].items()}
        made = OmegaConf.load(run / "config.yaml")
        made.loss.terms = terms
        OmegaConf.save(OmegaConf.merge(made, config, differing), run / "config.yaml")
    study = read_study(folder)
    measures = measure(study)
    counts = {"against": "", "synthetic": 300_000, "real": 100_000}
    rows = [{"method": run.method, "seed": run.seed} | counts for run in study.runs for _ in range(2)]
    return study, replace(measures, generators=pd.DataFrame(rows))


def set_auroc(measures, **values):
    runs = measures.runs.copy()
    for method, own in values.items():
        runs.loc[runs["method"] == method, "auroc"] = own
    return replace(measures, runs=runs)


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    methods = {"cross_entropy": 3, "droid": 4, "droid_cyborg": 3}
    study, measures = paper_study(tmp_path_factory.mktemp("runs") / "paper", methods)
    return study, set_auroc(
        measures,
        cross_entropy=[0.60, 0.56, 0.58],
        droid=[0.60, 0.61, 0.62, 0.61],
        droid_cyborg=[0.80, 0.805, 0.81],
    )


def test_a_study_as_the_papers_does_not_depart_from_it(reproduced):
    assert departures(*reproduced) == []


def test_differences_and_verdicts(reproduced):
    table = reproduction_table(*reproduced)
    assert list(zip(table["quantity"], table["method"].fillna(""), strict=True)) == [
        ("auroc", "cross_entropy"),
        ("auroc", "droid"),
        ("auroc", "droid_cyborg"),
        ("cam_entropy", "cross_entropy"),
        ("human_entropy", ""),
    ]
    # 0.58 - 0.561; 0.61 - 0.731; 0.805 - 0.775.
    assert table["difference"][:3].to_list() == pytest.approx([0.019, -0.121, 0.030])
    assert table["verdict"][:3].to_list() == ["within", "below", "above"]
    errors = 0.02**2 / 3, 0.05**2 / 10
    freedom = sum(errors) ** 2 / (errors[0] ** 2 / 2 + errors[1] ** 2 / 9)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(sum(errors))
    assert (table.loc[0, "low"], table.loc[0, "high"]) == pytest.approx((0.019 - half, 0.019 + half))


def test_the_interval_is_that_of_welchs_test_on_the_papers_mean_and_deviation(reproduced):
    row = reproduction_table(*reproduced).iloc[2]
    paper = np.concatenate([np.full(5, -1.0), np.full(5, 1.0)])
    paper = 0.775 + 0.02 * paper / paper.std(ddof=1)
    interval = stats.ttest_ind([0.80, 0.805, 0.81], paper, equal_var=False).confidence_interval()
    assert (row["low"], row["high"]) == pytest.approx(tuple(interval))


def test_entropies_are_those_of_the_last_epoch(reproduced):
    study, measures = reproduced
    row = reproduction_table(study, measures).iloc[3]
    last = [pd.read_csv(run.folder / "metrics.csv")["train/cam_entropy"].iloc[-1] for run in study.runs[:3]]
    assert (row["mean"], row["difference"]) == pytest.approx((np.mean(last), np.mean(last) - 3.65))
    interval = stats.ttest_1samp(last, 3.65).confidence_interval()
    assert (row["low"], row["high"]) == pytest.approx(tuple(np.array(interval) - 3.65))


def test_what_readers_see(reproduced):
    cells = shown(reproduction_table(*reproduced))
    assert cells.loc[2].to_list() == [
        "AUROC: DROID + CYBORG", "3", "0.805 ± 0.005", "0.775 ± 0.02", "+0.030", "+0.015 to +0.045", "± 0.01", "above",
    ]  # fmt: skip
    assert cells.loc[4].to_list() == [
        "Entropy of the human maps", "–", "3.00", "3.00", "+0.00", "–", "± 0.05", "within",
    ]  # fmt: skip


def test_one_seed_has_no_verdict(tmp_path):
    study, measures = paper_study(tmp_path / "paper", {"droid": 1})
    table = reproduction_table(study, measures)
    assert table["verdict"].to_list() == ["", "within"]
    assert shown(table).loc[0, ["95 % interval", "Verdict"]].to_list() == ["–", "–"]
    assert "One seed allows no interval and no verdict: “–”." in notes(table)


@pytest.mark.parametrize(
    ("differing", "words"),
    [
        ({"data": {"name": "faces"}}, "data.name is not und_cyborg"),
        ({"data": {"template_maps": True}}, "data.template_maps is not false"),
        ({"data": {"train_batches": 2}}, "data.train_batches is not null"),
        ({"backbone": {"name": "resnet50"}}, "backbone.name is not densenet121"),
        ({"backbone": {"pretrained": False}}, "backbone.pretrained is not true"),
        ({"protocol": {"name": "author"}}, "protocol.name is not paper"),
        ({"protocol": {"optimizer": {"lr": 0.01}}}, "protocol.optimizer.lr is not 0.002"),
        ({"trainer": {"max_epochs": 1}}, "trainer.max_epochs is not 150"),
        (
            {"loss": {"terms": {"cross_entropy": {"weight": 0.9}}}},
            "the weights in the loss of Cross-entropy are not the paper’s",
        ),
    ],
)
def test_another_study_is_not_compared(tmp_path, differing, words):
    found = departures(*paper_study(tmp_path / "paper", {"cross_entropy": 1}, **differing))
    assert found == [words]
    assert not_comparable(found) == f"These figures are not comparable with the paper’s: {words}."


@pytest.mark.parametrize("images", [0, 300_001])
def test_other_test_images_are_not_compared(reproduced, images):
    study, measures = reproduced
    generators = measures.generators.copy()
    generators.loc[0, "synthetic"] = images
    assert departures(study, replace(measures, generators=generators)) == ["the test images are not 700,000"]


def test_the_papers_figures_are_those_of_its_methods():
    assert tuple(AUROC) == METHODS
