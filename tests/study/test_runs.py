"""Which folders are runs, which of them are averaged, and what is refused."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from benchmarks.made_up_study import TITLES, scored_images, write_run, write_study
from omegaconf import OmegaConf

from saliency_entropy.errors import UserError
from saliency_entropy.run.result import IMAGES
from saliency_entropy.study.runs import read_study


def change_result(folder, **changes):
    path = folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_runs_by_method_in_the_papers_order_then_by_seed(tmp_path):
    write_study(tmp_path, {"zebra": 1, "droid": 2, "another": 1, "cross_entropy": 1, "hseb": 1})
    write_run(tmp_path, "droid", 10)
    study = read_study(tmp_path)
    assert [run.name for run in study.runs] == [
        "cross_entropy/seed0",
        "hseb/seed0",
        "droid/seed0",
        "droid/seed1",
        "droid/seed10",
        "another/seed0",
        "zebra/seed0",
    ]
    assert study.warnings == []
    assert study.left_out == []


def test_a_title_that_two_methods_share_gets_their_names(tmp_path):
    write_run(tmp_path, "droid", 0)
    write_run(tmp_path, "droid_strong", 0, title="DROID")
    write_run(tmp_path, "cyborg", 0)
    assert read_study(tmp_path).titles == {
        "cyborg": "CYBORG",
        "droid": "DROID (droid)",
        "droid_strong": "DROID (droid_strong)",
    }


def test_unfinished_runs_are_named_with_how_far_they_came(tmp_path):
    write_study(tmp_path, {"droid": 3})
    for seed in (1, 2):
        (tmp_path / "droid" / f"seed{seed}" / "result.json").unlink()
    (tmp_path / "droid" / "seed2" / "metrics.csv").write_text("")
    study = read_study(tmp_path)
    assert [run.name for run in study.runs] == ["droid/seed0"]
    assert [(run.name, run.reason) for run in study.left_out] == [
        ("droid/seed1", "no result, 4 of 4 epochs done"),
        ("droid/seed2", "no result, no epoch done"),
    ]


def sweep(study, methods, seeds):
    """The note that Hydra leaves of a sweep."""
    sweeper = {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper", "params": None}
    given = [f"method={methods}", f"seed={seeds}"]
    OmegaConf.save({"hydra": {"sweeper": sweeper, "overrides": {"task": given}}}, study / "multirun.yaml")


def test_runs_of_the_last_sweep_that_were_never_begun_are_named(tmp_path):
    write_study(tmp_path, {"cross_entropy": 2, "droid": 1})
    sweep(tmp_path, "droid,cross_entropy,hseb", "range(0,2)")
    study = read_study(tmp_path)
    assert len(study.runs) == 3
    assert [(run.name, run.reason) for run in study.left_out] == [
        (name, "not begun, though the last sweep was to train it")
        for name in ("hseb/seed0", "hseb/seed1", "droid/seed1")
    ]


def test_a_method_that_the_study_may_have_under_another_name_is_not_said_to_be_missing(tmp_path):
    write_study(tmp_path, {"droid": 1, "droid_strong": 1})
    sweep(tmp_path, "droid,my_file", "0,1")
    assert [run.name for run in read_study(tmp_path).left_out] == ["droid/seed1"]


def test_a_method_that_was_never_begun_is_named_beside_those_of_an_earlier_sweep(tmp_path):
    write_study(tmp_path, {"cross_entropy": 1, "droid": 1})
    sweep(tmp_path, "droid,hseb", "0")
    assert [run.name for run in read_study(tmp_path).left_out] == ["hseb/seed0"]


@pytest.mark.parametrize("seeds", ["range(0,1000000000000)", "[", "a,b", "choice()"])
def test_a_note_of_a_sweep_that_hydra_never_wrote_says_nothing(tmp_path, seeds):
    write_study(tmp_path, {"droid": 1})
    sweep(tmp_path, "droid", seeds)
    assert read_study(tmp_path).left_out == []


def test_a_diverged_run_is_left_out(tmp_path):
    write_study(tmp_path, {"droid": 2})
    path = tmp_path / "droid" / "seed1" / "scores" / "test.parquet"
    scores = pd.read_parquet(path)
    scores.loc[:4, "logit_real"] = np.nan
    scores.to_parquet(path)
    study = read_study(tmp_path)
    assert [run.name for run in study.runs] == ["droid/seed0"]
    assert study.left_out[0].reason == "diverged: 5 of 260 test scores are not finite"


def test_diverged_runs_are_no_copies_of_each_other(tmp_path):
    write_study(tmp_path, {"droid": 3})
    for seed in (1, 2):
        path = tmp_path / "droid" / f"seed{seed}" / "scores" / "test.parquet"
        pd.read_parquet(path).assign(logit_real=np.nan, logit_synthetic=np.nan).to_parquet(path)
    assert [(run.name, run.reason) for run in read_study(tmp_path).left_out] == [
        (f"droid/seed{seed}", "diverged: 260 of 260 test scores are not finite") for seed in (1, 2)
    ]


def test_runs_of_a_method_with_another_loss_are_named(tmp_path):
    write_study(tmp_path, {"droid": 2, "hseb": 1})
    write_run(tmp_path, "droid", 2, config={"loss": {"terms": {"droid": {"weight": 0.3}}}})
    assert read_study(tmp_path).warnings == [
        "The runs of droid differ in loss.terms.droid.weight: droid/seed2 from the other 2; their mean is that of no "
        "method."
    ]


def test_a_run_that_diverged_after_its_best_epoch_is_named(tmp_path):
    write_study(tmp_path, {"droid": 2})
    path = tmp_path / "droid" / "seed1" / "metrics.csv"
    epochs = pd.read_csv(path)
    epochs.loc[2:, ["train/cam_entropy", "val/cam_entropy"]] = np.nan
    epochs.to_csv(path, index=False)
    study = read_study(tmp_path)
    assert len(study.runs) == 2
    assert len(study.warnings) == 1
    assert study.warnings[0].startswith("In some epochs of droid/seed1 the CAM entropy is not a number")


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_label_that_is_neither_does_not_count_as_real(tmp_path, split):
    write_study(tmp_path, {"droid": 2})
    path = tmp_path / "droid" / "seed1" / "scores" / f"{split}.parquet"
    scores = pd.read_parquet(path)
    scores.loc[3, "label"] = "fake"
    scores.to_parquet(path)
    study = read_study(tmp_path)
    assert [run.name for run in study.runs] == ["droid/seed0"]
    assert "damaged (it has a label that is neither real nor synthetic: fake)" in study.left_out[0].reason


def test_other_folders_do_not_confuse_it(tmp_path):
    write_study(tmp_path, {"droid": 1})
    write_study(tmp_path / "further", {"cyborg": 1})
    write_study(tmp_path / ".builtin_faces", {"hseb": 1})
    (tmp_path / ".sweep" / "seed0").mkdir(parents=True)
    (tmp_path / "report" / "figures").mkdir(parents=True)
    (tmp_path / "droid" / "seed0-copy").mkdir()
    (tmp_path / "droid" / "notes").mkdir()
    (tmp_path / "seed3").touch()
    assert [run.name for run in read_study(tmp_path).runs] == ["droid/seed0"]
    assert [run.name for run in read_study(tmp_path / "further").runs] == ["cyborg/seed0"]


def test_a_folder_without_a_finished_run_is_refused(tmp_path, monkeypatch):
    with pytest.raises(
        UserError, match=r"nowhere is not a folder; give the folder of a study, such as study=runs/demo$"
    ):
        read_study(tmp_path / "nowhere")
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^study=mine is not a folder; .*, such as study=runs/mine$"):
        read_study(Path("mine"))
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(UserError, match=r"holds no runs; train some first: python experiments/train\.py study="):
        read_study(tmp_path)
    run = write_run(tmp_path / "weights" / "0.3", "droid", 0)
    with pytest.raises(UserError, match=r"is one method of a study; give the folder .*, study=.*weights/0\.3$"):
        read_study(run.parent)
    with pytest.raises(UserError, match=r"holds no runs but further studies: give one of them, study=.*weights/0\.3"):
        read_study(tmp_path / "weights")
    with pytest.raises(UserError, match=r"is a single run; give the folder of its study, study=.*weights/0\.3$"):
        read_study(run)
    (run / "result.json").unlink()
    with pytest.raises(
        UserError, match=r"none of the 1 runs in .* is finished; give the command that trains them again"
    ):
        read_study(tmp_path / "weights" / "0.3")


def test_as_many_runs_on_different_test_images_are_refused(tmp_path):
    first = write_run(tmp_path, "cross_entropy", 0)
    other = write_run(tmp_path, "droid", 0, images=scored_images().iloc[1:])
    with pytest.raises(UserError, match=r"different test images \(259 and 260") as error:
        read_study(tmp_path)
    assert str(first) in str(error.value)
    assert str(other) in str(error.value)


def test_a_run_on_other_test_images_than_most_is_left_out(tmp_path):
    write_run(tmp_path, "cross_entropy", 0, images=scored_images().iloc[1:])  # the first by name
    shuffled = scored_images().sample(frac=1, random_state=0)
    write_run(tmp_path, "cyborg", 0, images=shuffled)
    write_run(tmp_path, "droid", 0)
    write_run(tmp_path, "hseb", 0, images=scored_images().iloc[2:])
    study = read_study(tmp_path)
    assert [run.name for run in study.runs] == ["cyborg/seed0", "droid/seed0"]
    assert [(run.name, run.reason) for run in study.left_out] == [
        (
            f"{method}/seed0",
            f"this run and cyborg/seed0 were scored on different test images ({images} and 260, compared by path, "
            "label and generator), so that they cannot be compared",
        )
        for method, images in (("cross_entropy", 259), ("hseb", 258))
    ]


def test_the_same_files_under_other_labels_are_different_test_images(tmp_path):
    write_run(tmp_path, "cross_entropy", 0)
    images = scored_images()
    images.loc[0, "label"] = "real"
    write_run(tmp_path, "droid", 0, images=images)
    with pytest.raises(UserError, match="different test images"):
        read_study(tmp_path)


def test_other_training_generators_are_refused(tmp_path):
    write_run(tmp_path, "cross_entropy", 0)
    write_run(tmp_path, "droid", 0, result={"train_generators": ["progan"]})
    with pytest.raises(UserError, match="trained with different generators"):
        read_study(tmp_path)
    write_run(tmp_path, "hseb", 0)
    study = read_study(tmp_path)
    assert [run.name for run in study.runs] == ["cross_entropy/seed0", "hseb/seed0"]
    assert study.left_out[0].reason == (
        "this run and cross_entropy/seed0 were trained with different generators, so that other test images are unseen"
    )


def test_runs_with_and_without_a_control_of_the_maps_are_not_mixed(tmp_path):
    control = {"data": {"human_maps": {"control": "shuffled"}}}
    write_run(tmp_path, "cyborg", 0)
    write_run(tmp_path, "cyborg", 1, config={"data": {"human_maps": {"control": "none"}}})
    write_run(tmp_path, "droid", 0, config=control)
    study = read_study(tmp_path)
    assert [run.name for run in study.runs] == ["cyborg/seed0", "cyborg/seed1"]
    assert [(run.name, run.reason) for run in study.left_out] == [
        (
            "droid/seed0",
            "this run and cyborg/seed0 were trained with and without a control of the human maps "
            "(data.human_maps.control), or with another one",
        )
    ]
    write_run(tmp_path, "droid", 1, config=control)
    with pytest.raises(UserError, match=r"with and without a control of the human maps \(data\.human_maps\.control\)"):
        read_study(tmp_path)


def test_runs_with_other_relatives_have_other_unseen_images(tmp_path):
    for seed in range(2):
        write_run(tmp_path, "droid", seed, result={"relatives": ["stylegan3"]})
    write_run(tmp_path, "droid", 2)
    study = read_study(tmp_path)
    assert study.relatives == ["stylegan3"]
    assert [run.name for run in study.left_out] == ["droid/seed2"]
    assert "so that other test images are unseen" in study.left_out[0].reason


def test_runs_whose_best_epoch_is_the_last_are_named_by_method(tmp_path):
    for seed, best in enumerate((3, 3, 1)):
        write_run(tmp_path, "droid", seed, result={"best_epoch": best})
    write_run(tmp_path, "hseb", 0, result={"best_epoch": 0})
    assert read_study(tmp_path).warnings == [
        "The last epoch is the one of the highest validation accuracy, which is scored, in 2 of 3 runs of droid: "
        "longer training might change these, so methods may be compared at unequal fit. See the table of epochs."
    ]
    write_run(tmp_path / "one", "droid", 0, epochs=1, result={"best_epoch": 0})
    assert read_study(tmp_path / "one").warnings == []
    write_run(tmp_path / "all", "droid", 0, result={"best_epoch": 3})
    assert "which is scored, in every run: longer" in read_study(tmp_path / "all").warnings[0]


def test_a_differing_configuration_is_a_warning_that_names_the_key_but_no_value(tmp_path):
    write_study(tmp_path, {"cross_entropy": 2, "droid": 2})
    write_run(
        tmp_path,
        "hseb",
        0,
        epochs=9,
        config={"trainer": {"max_epochs": 9}, "data": {"root": "/home/me", "num_workers": 3}},
    )
    warnings = read_study(tmp_path).warnings
    assert warnings == [
        f"The runs differ in {key}: hseb/seed0 from the other 4; a difference between methods may come from that."
        for key in ("data.root", "trainer.max_epochs")
    ]


def test_a_manifest_that_was_changed_between_runs_is_a_warning(tmp_path):
    write_run(tmp_path, "cross_entropy", 0, result={"data_hash": "a"})
    write_run(tmp_path, "droid", 0, result={"data_hash": "a"})
    assert read_study(tmp_path).warnings == []
    write_run(tmp_path, "hseb", 0, result={"data_hash": "b"})
    assert "manifest was changed between runs" in read_study(tmp_path).warnings[0]


def test_maps_that_were_read_in_another_way_are_a_warning(tmp_path):
    write_run(tmp_path, "cyborg", 0, result={"map_range": "own"})
    write_run(tmp_path, "cyborg", 1, result={"map_range": "own"})
    assert read_study(tmp_path).warnings == []
    write_run(tmp_path, "cyborg", 2)
    assert "did not scale each human map to its own range" in read_study(tmp_path).warnings[0]


def test_a_copied_run_is_refused(tmp_path):
    folder = write_run(tmp_path, "droid", 0)
    folder.rename(tmp_path / "droid" / "seed5")
    with pytest.raises(UserError, match="seed5 holds the result of droid, seed 0, so it is a copy or was renamed"):
        read_study(tmp_path)
    write_run(tmp_path, "droid", 0)
    study = read_study(tmp_path)
    assert [run.name for run in study.runs] == ["droid/seed0"]
    assert [(run.name, run.reason) for run in study.left_out] == [
        (
            "droid/seed5",
            "droid/seed5 holds the result of droid, seed 0, so it is a copy or was renamed; move it out of the study",
        )
    ]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("result.json", '{"seed": 0', r"result\.json is not JSON .*; delete it"),
        ("result.json", "[1]", r"result\.json is damaged \(it is not a table of names and values\); delete it"),
        ("metrics.csv", "", r"metrics\.csv is damaged .*; delete .*seed0 and train the run again"),
        ("scores/val.parquet", "PAR1", r"val\.parquet is damaged .*; delete .*result\.json and train again"),
        ("result.json", "{}", r"result\.json is damaged \(it has no key method and title .*\); delete it"),
        ("config.yaml", "a: [", r"config\.yaml is damaged .*; delete .*seed0 and train the run again"),
        ("config.yaml", "- 1", r"config\.yaml is damaged \(it is not a configuration\); delete"),
        ("config.yaml", None, r"config\.yaml does not exist, though the run is finished; delete"),
        ("scores/test.parquet", "PAR1", r"test\.parquet is damaged .*; delete .*result\.json and train again"),
        ("scores/test.parquet", None, r"test\.parquet does not exist, though the run is finished; delete"),
    ],
)
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, file, content, message):
    path = write_run(tmp_path, "droid", 0) / file
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_study(tmp_path)
    write_run(tmp_path, "droid", 1)
    study = read_study(tmp_path)
    assert [run.name for run in study.runs] == ["droid/seed1"]
    assert study.left_out[0].name == "droid/seed0"
    assert re.search(message.replace("delete .*seed0", "delete droid/seed0"), study.left_out[0].reason)
    assert str(tmp_path) not in study.left_out[0].reason


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "row 1 has no end"),
        ("epoch", "row 1 has no end"),
        ("epoch\n0\n", "it has no column train/cam_entropy and val/cam_entropy"),
    ],
)
def test_a_damaged_table_of_epochs_is_named_too(tmp_path, content, message):
    (write_run(tmp_path, "droid", 0) / "metrics.csv").write_text(content)
    with pytest.raises(UserError, match=rf"metrics\.csv is damaged \({message}.*\); delete .* and train the run again"):
        _ = read_study(tmp_path).runs[0].epochs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": "0"}, "its seed is '0'"),
        ({"seed": True}, "its seed is True"),
        ({"cam_cells": "49"}, "its cam_cells is '49'"),
        ({"test": {"auroc": "0.9"}}, r"its test\.auroc is '0\.9'"),
        ({"versions": []}, r"its versions is \[\]"),
        ({"train_generators": None}, "its train_generators is None"),
        ({"train_generators": [1]}, r"its train_generators\.0 is 1"),
        ({"git_commit": 5}, "its git_commit is 5"),
        ({"left_out": None}, "its left_out is None"),
        ({"left_out": {"train": {"images": "2"}}}, r"its left_out\.train\.images is '2'"),
        ({"unread": {".webp": []}}, r"its unread\.\.webp is \[\]"),
        ({"wall_seconds": "long"}, "its wall_seconds is 'long'"),
        ({"wall_seconds": float("inf")}, "its wall_seconds is inf"),
        ({"wall_seconds": -1e308}, "its wall_seconds is -1e"),
        ({"human_entropy": float("nan")}, "its human_entropy is nan"),
        ({"cam_cells": 0}, "its cam_cells is 0"),
        ({"cam_cells": 10**30}, r"its cam_cells is 10{10}"),
        ({"versions": {"torch": {"a": [1]}}}, r"its versions\.torch is \{'a': \[1\]\}"),
        ({"title": ""}, "its title is ''"),
        ({"left_out": {"test": 5}}, r"its left_out\.test is 5"),
        ({"epochs": 3}, None),  # though metrics.csv has four
    ],
)
def test_values_of_another_kind_in_a_result(tmp_path, changes, message):
    write_study(tmp_path, {"droid": 2})
    change_result(tmp_path / "droid" / "seed0", **changes)
    study = read_study(tmp_path)
    assert [run.name for run in study.runs] == ["droid/seed1"]
    if message is None:
        assert "metrics.csv is damaged (it has 4 epochs, and result.json says 3)" in study.left_out[0].reason
        return
    assert re.search(rf"droid/seed0/result\.json is damaged \({message}.*\); delete it", study.left_out[0].reason)


def test_a_folder_in_a_files_place_and_endless_nesting_are_named(tmp_path):
    write_study(tmp_path, {"droid": 5})
    first, second, third, fourth = (tmp_path / "droid" / f"seed{seed}" for seed in range(4))
    (first / "result.json").unlink()
    (first / "result.json").mkdir()
    (second / "result.json").write_text("[" * 100_000 + "]" * 100_000)
    (third / "config.yaml").write_text("a: " + "[" * 3000 + "]" * 3000)
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    (fourth / "config.yaml").write_text((fourth / "config.yaml").read_text() + bomb)
    study = read_study(tmp_path)
    assert [run.name for run in study.runs] == ["droid/seed4"]
    parts = ("cannot be read (Is a directory)", "is not JSON", "nested more than 50 levels", "it has YAML aliases")
    for run, part in zip(study.left_out, parts, strict=True):
        assert part in run.reason


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\n1,", "\nxx,", "could not convert string to float: 'xx'"),
        ("\n1,", "\n7,", "its column epoch is not 0, 1, 2 and so on"),
        ("train/loss", "train/l\0ss", "row 1 is damaged"),
        ("\n2,", "\n2\0,", "row 4 is damaged"),
        (",0.9\n3,", "\n3,", "row 4 is damaged"),
        (",0.9\n3,", ",=cmd()\n3,", "could not convert string to float: '=cmd\\(\\)'"),
        ("\n3,", "\n3,9,-5.0,", "row 5 is damaged"),
    ],
)
def test_edited_epochs_are_named(tmp_path, old, new, message):
    write_study(tmp_path, {"droid": 2})
    path = tmp_path / "droid" / "seed0" / "metrics.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    study = read_study(tmp_path)
    assert [run.name for run in study.runs] == ["droid/seed1"]
    assert re.search(message, study.left_out[0].reason)


@pytest.mark.parametrize("end", [-1, -30])
def test_a_table_of_epochs_that_is_cut_is_named(tmp_path, end):
    write_study(tmp_path, {"droid": 2})
    path = tmp_path / "droid" / "seed0" / "metrics.csv"
    path.write_text(path.read_text()[:end])
    assert "metrics.csv is damaged (row 5 has no end)" in read_study(tmp_path).left_out[0].reason


def test_a_cam_entropy_that_is_none_is_named(tmp_path):
    write_study(tmp_path, {"droid": 2})
    path = tmp_path / "droid" / "seed0" / "metrics.csv"
    pd.read_csv(path).assign(**{"val/cam_entropy": np.inf}).to_csv(path, index=False)
    assert "metrics.csv is damaged (it has a CAM entropy that is none)" in read_study(tmp_path).left_out[0].reason


@pytest.mark.parametrize(
    ("split", "column", "value", "kind"),
    [("test", "logit_real", "0.5", "string"), ("val", "logit_real", "x", "string"), ("test", "generator", 5, "int64")],
)
def test_scores_of_another_type_are_named(tmp_path, split, column, value, kind):
    write_study(tmp_path, {"droid": 2})
    path = tmp_path / "droid" / "seed0" / "scores" / f"{split}.parquet"
    pd.read_parquet(path).assign(**{column: value}).to_parquet(path)
    study = read_study(tmp_path)
    assert [run.name for run in study.runs] == ["droid/seed1"]
    assert re.search(rf"damaged \(its column {column} is of (large_)?{kind}\)", study.left_out[0].reason)


def test_a_copy_under_another_seed_is_left_out(tmp_path):
    write_study(tmp_path, {"droid": 2, "hseb": 1})
    shutil.copytree(tmp_path / "droid" / "seed0", tmp_path / "droid" / "seed7")
    change_result(tmp_path / "droid" / "seed7", seed=7)
    study = read_study(tmp_path)
    assert [run.name for run in study.runs] == ["hseb/seed0", "droid/seed0", "droid/seed1"]
    assert study.left_out[0].reason == (
        "droid/seed7 has the configuration of droid, seed 0, but the result of droid, seed 7; move it out of the study"
    )
    config = tmp_path / "droid" / "seed7" / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0", "seed: 7"))
    study = read_study(tmp_path)
    assert [run.name for run in study.runs] == ["hseb/seed0", "droid/seed0", "droid/seed1"]
    assert study.left_out[0].reason == ("its test scores are those of droid/seed0 to the last digit, so it is a copy")


@pytest.mark.parametrize("name", ["seed0_copy", "seed0 (copy)", "seed-1"])
def test_a_copy_under_another_name_is_left_out(tmp_path, name):
    write_study(tmp_path, {"droid": 1})
    shutil.copytree(tmp_path / "droid" / "seed0", tmp_path / "droid" / name)
    study = read_study(tmp_path)
    assert [run.name for run in study.runs] == ["droid/seed0"]
    assert [(run.name, run.reason) for run in study.left_out] == [
        (f"droid/{name}", "not the name of a run’s folder, seed<number>")
    ]


def test_scores_without_a_column_are_refused(tmp_path):
    path = write_run(tmp_path, "droid", 0) / "scores" / "test.parquet"
    pd.read_parquet(path).drop(columns="logit_real").to_parquet(path)
    with pytest.raises(UserError, match=r"test\.parquet is damaged \(it has no column logit_real\)"):
        read_study(tmp_path)


def test_the_columns_that_came_from_the_manifest(tmp_path):
    images = scored_images().assign(
        compare_with="ffhq", pose="frontal", cam_human_mse=0.1, boxes=[[1, 2]] * len(scored_images())
    )
    write_run(tmp_path, "droid", 0, images=images)
    run = read_study(tmp_path).runs[0]
    assert run.manifest_columns() == ["source", "pose"]
    assert list(run.test_scores(("label",), optional=["pose", "absent", "source"])) == [
        "label", "source", "compare_with", "pose",
    ]  # fmt: skip


def test_validation_scores(tmp_path):
    folder = write_run(tmp_path, "droid", 0)
    run = read_study(tmp_path).runs[0]
    path = folder / "scores" / "val.parquet"
    expected = pd.read_parquet(path)[["label", "logit_real", "logit_synthetic"]]
    pd.testing.assert_frame_equal(run.val_scores(), expected)
    expected.drop(columns="logit_real").to_parquet(path)
    with pytest.raises(UserError, match=r"val\.parquet is damaged \(it has no column logit_real\); delete .*result"):
        run.val_scores()
    path.write_text("PAR1")
    with pytest.raises(UserError, match=r"val\.parquet is damaged"):
        run.val_scores()
    path.unlink()
    assert run.val_scores() is None


def test_the_made_up_study_is_whole(tmp_path):
    assert len(read_study(write_study(tmp_path)).runs) == 3 * len(TITLES)


def name_images(folder, digest):
    path = folder / "scores" / "test.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata((table.schema.metadata or {}) | {IMAGES: digest.encode()}), path)


def test_a_run_that_was_scored_on_other_bytes_is_left_out(tmp_path):
    """One whose scores do not say what they are of, as those of earlier versions, is not."""
    for seed, digest in enumerate(("a", "a", "b", "")):
        write_run(tmp_path, "droid", seed)
        if digest:
            name_images(tmp_path / "droid" / f"seed{seed}", digest)
    study = read_study(tmp_path)
    assert [run.seed for run in study.runs] == [0, 1, 3]
    assert [(run.name, run.reason) for run in study.left_out] == [
        (
            "droid/seed2",
            "scored on test images whose files have other bytes than those of most runs, under the same names; "
            "python experiments/evaluate.py with overwrite=true scores all on those that are there now",
        )
    ]


def test_images_that_were_changed_between_runs_are_a_warning_and_moved_ones_are_none(tmp_path):
    write_run(tmp_path, "cross_entropy", 0, result={"images_hash": "a"})
    write_run(tmp_path, "droid", 0, result={"images_hash": "a"}, config={"data": {"root": "/moved"}})
    assert read_study(tmp_path).warnings == []
    write_run(tmp_path, "cyborg", 0)  # of an earlier version
    write_run(tmp_path, "hseb", 0, result={"images_hash": "b"})
    first, second = read_study(tmp_path).warnings
    assert first.startswith("Files of training or validation images, or of their human maps, were changed between")
    assert second.startswith("The runs differ in data.root: droid/seed0")
