"""Our figures beside the paper's: only where they may stand there, and judged by Welch's interval."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from benchmarks.made_up_study import write_study
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from scipy import stats

from saliency_entropy.run.folder import register_resolvers
from saliency_entropy.run.study_folders import METHODS
from saliency_entropy.study.reproduction import AUROC, departures, not_comparable, notes, reproduction_table, shown
from saliency_entropy.study.runs import read_study
from saliency_entropy.study.tables import measure

CONF = Path(__file__).parents[2] / "conf"


def paper_config(method, *overrides):
    """That of experiment=paper, but for ``overrides``."""
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", ["experiment=paper", f"method={method}", "data.root=faces", *overrides])
    return OmegaConf.to_container(config, resolve=True)


def paper_study(folder, methods):
    """A study of experiment=paper, and measures as of 700,000 test images."""
    configs = {method: OmegaConf.create(paper_config(method)) for method in methods}
    for run in write_study(folder, methods).glob("*/*"):
        config = configs[run.parent.name]
        config.seed = int(run.name.removeprefix("seed"))
        OmegaConf.save(config, run / "config.yaml")
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


@pytest.fixture(scope="module")
def departing(tmp_path_factory):
    """How the study of one run of experiment=paper departs from the paper that is changed by overrides."""
    study, measures = paper_study(tmp_path_factory.mktemp("runs") / "all", dict.fromkeys(METHODS, 1))

    def found(method, *overrides):
        (run,) = study.of_method(method)
        changed = replace(run, config=paper_config(method, *overrides))
        return departures(replace(study, runs=[changed]), measures)

    return found


@pytest.mark.parametrize("method", METHODS)
def test_experiment_paper_does_not_depart_from_it(departing, method):
    assert departing(method, "seed=3", "data.human_maps.seed=3") == []


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
    assert table["verdict"][:3].to_list() == ["unclear", "below", "above"]
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


@pytest.mark.parametrize(
    ("aurocs", "verdict"),
    [
        ([0.568, 0.571, 0.574], "within"),  # 0.010 above the paper's, with an interval of ± 0.04
        ([0.40, 0.57, 0.74], "within"),
        ([0.572, 0.575, 0.578], "unclear"),
        ([0.547, 0.550, 0.553], "unclear"),
        ([0.640, 0.643, 0.646], "above"),
        ([0.480, 0.483, 0.486], "below"),
    ],
)
def test_a_difference_beyond_the_tolerance_is_never_within(reproduced, aurocs, verdict):
    study, measures = reproduced
    assert reproduction_table(study, set_auroc(measures, cross_entropy=aurocs))["verdict"][0] == verdict


def test_methods_that_are_not_the_papers_have_nothing_beside_them(reproduced):
    study, measures = reproduced
    runs = [replace(run, result=run.result | {"method": "mine"}) for run in study.of_method("droid")]
    assert departures(replace(study, runs=runs), measures) == ["no method is one of the paper’s"]


def test_one_seed_has_no_verdict(tmp_path):
    study, measures = paper_study(tmp_path / "paper", {"droid": 1})
    table = reproduction_table(study, measures)
    assert table["verdict"].to_list() == ["", "within"]
    assert shown(table).loc[0, ["95 % interval", "Verdict"]].to_list() == ["–", "–"]
    assert "One seed allows no interval and no verdict: “–”." in notes(table)


@pytest.mark.parametrize(
    ("differing", "words"),
    [
        ("data.name=faces", "data.name is not und_cyborg"),
        ("data.template_maps=true", "data.template_maps is not false"),
        ("data.train_batches=2", "data.train_batches is not null"),
        ("data.image_size=112", "data.image_size is not 224"),
        ("data.interpolation=bicubic", "data.interpolation is not bilinear"),
        ("data.batch_size=40", "data.batch_size is not 20"),
        ("data.human_maps.fraction=0.25", "data.human_maps.fraction is not 1.0"),
        ("data.human_maps.blur=0.1", "data.human_maps.blur is not 0.0"),
        ("data.human_maps.binarise=0.5", "data.human_maps.binarise is not null"),
        ("backbone.name=resnet50", "backbone.name is not densenet121"),
        ("backbone.timm_name=resnet50.tv_in1k", "backbone.timm_name is not densenet121.tv_in1k"),
        ("backbone.pretrained=false", "backbone.pretrained is not true"),
        ("backbone.checkpoint=mine.pt", "backbone.checkpoint is not null"),
        ("backbone.mean=[0.5,0.5,0.5]", "backbone.mean is not [0.485, 0.456, 0.406]"),
        ("+backbone.output_stride=16", "backbone.output_stride is not null"),
        ("protocol.name=author", "protocol.name is not paper"),
        ("protocol.class_index=true", "protocol.class_index is not predicted"),
        ("protocol.optimizer.lr=0.01", "protocol.optimizer.lr is not 0.002"),
        ("protocol.optimizer.momentum=0", "protocol.optimizer.momentum is not 0.9"),
        ("protocol.optimizer._target_=torch.optim.Adam", "protocol.optimizer._target_ is not torch.optim.SGD"),
        ("+protocol.optimizer.nesterov=true", "protocol.optimizer.nesterov is not null"),
        ("protocol.scheduler={_target_:StepLR,_partial_:true}", "protocol.scheduler is not null"),
        ("trainer.max_epochs=1", "trainer.max_epochs is not 150"),
        ("loss.terms.cross_entropy.weight=0.9", "the terms of the loss of Cross-entropy are not the paper’s"),
    ],
)
def test_another_study_is_not_compared(departing, differing, words):
    found = departing("cross_entropy", differing)
    assert found == [words]
    assert not_comparable(found) == f"These figures are not comparable with the paper’s: {words}."


@pytest.mark.parametrize(
    ("method", "title", "differing"),
    [
        ("hseb", "HSEB", "loss.terms.entropy_match.target=3.0"),
        ("droid", "DROID", "loss.terms.log_entropy.offset=1"),
        ("fmmmse", "FMMMSE", "loss.terms.entropy._target_=mine.Entropy"),
        ("cyborg", "CYBORG", "+loss.terms.entropy={_target_:saliency_entropy.losses.Entropy,weight:0.1}"),
    ],
)
def test_another_loss_is_not_compared(departing, method, title, differing):
    assert departing(method, differing) == [f"the terms of the loss of {title} are not the paper’s"]


def test_the_authors_script_is_not_the_paper(departing):
    found = departing("droid", "protocol=author")
    assert {"protocol.features is not pooled", "protocol.scheduler is not null"} < {*found}
    assert len(found) == len({*found})


def test_of_another_network_its_name_is_enough(departing):
    assert departing("droid", "backbone=efficientnet_lite0") == [
        "data.image_size is not 224", "data.interpolation is not bilinear", "backbone.name is not densenet121",
    ]  # fmt: skip
    assert "backbone.pretrained is not true" in departing("droid", "backbone=tiny")


@pytest.mark.parametrize("images", [0, 300_001])
def test_other_test_images_are_not_compared(reproduced, images):
    study, measures = reproduced
    generators = measures.generators.copy()
    generators.loc[0, "synthetic"] = images
    assert departures(study, replace(measures, generators=generators)) == ["the test images are not 700,000"]


def test_the_papers_figures_are_those_of_its_methods():
    assert tuple(AUROC) == METHODS
