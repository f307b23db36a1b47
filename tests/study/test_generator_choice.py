"""The AUROC of the runs for each choice of test images."""

from dataclasses import replace

import pandas as pd
import pytest
from benchmarks.made_up_study import write_study

from saliency_entropy.study import tables
from saliency_entropy.study.generator_choice import generator_choice
from saliency_entropy.study.runs import read_study

TITLES = {"cross_entropy": "Cross-entropy", "droid": "DROID"}


@pytest.fixture(scope="module")
def measures(tmp_path_factory):
    return tables.measure(read_study(write_study(tmp_path_factory.mktemp("study"), dict.fromkeys(TITLES, 2))))


def test_the_choices_are_the_figures_of_the_runs(measures):
    found = generator_choice(measures, TITLES)
    assert [choice["name"] for choice in found["choices"]] == [
        f"{name}, by {score}"
        for score in ("logit 1", "margin")
        for name in ("all generators", "unseen generators", "progan, unseen", "stylegan2, in training",
                     "stylegan3, unseen")
    ]  # fmt: skip
    generators = measures.generators
    for choice, rows, column in (
        (found["choices"][0], measures.runs, "auroc"),
        (found["choices"][1], measures.runs, "auroc_unseen"),
        (found["choices"][3], generators[generators["generator"] == "stylegan2"], "auroc"),
        (found["choices"][6], measures.runs, "auroc_unseen_margin"),
        (found["choices"][8], generators[generators["generator"] == "stylegan2"], "auroc_margin"),
    ):
        for method, figures, box in zip(TITLES, choice["auroc"], choice["boxes"], strict=True):
            own = rows[rows["method"] == method]
            assert figures == list(zip(own["seed"], own[column].round(4), strict=True))
            assert box["mean"] == pytest.approx(own[column].mean(), abs=1e-4)
            assert box["std"] == pytest.approx(own[column].std(), abs=1e-4)
    assert found["choices"][3]["images"] == "60 synthetic and 80 real test images."


def test_thousands_of_generators_are_no_thousands_of_tables(measures, monkeypatch):
    rows = measures.generators[measures.generators["generator"] == "progan"]
    none = {"auroc": float("nan"), "auroc_margin": float("nan")}
    many = pd.concat([rows.assign(generator=f"g{i}", **none) for i in range(300)], ignore_index=True)
    taken = []
    original = pd.DataFrame.__getitem__
    monkeypatch.setattr(pd.DataFrame, "__getitem__", lambda table, key: taken.append(key) or original(table, key))
    choices = generator_choice(replace(measures, generators=many), TITLES)["choices"]
    assert len(taken) < 50
    assert [choice["name"] for choice in choices[2:302]] == [f"g{i}, unseen, by logit 1" for i in range(300)]
    assert choices[-1]["auroc"] == [[], []]
    assert choices[-1]["boxes"] == [None, None]
