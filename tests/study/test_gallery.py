"""Which test images a report shows, and what it says that each method makes of them."""

import base64
import io

import numpy as np
import pandas as pd
import pytest
from benchmarks.made_up_study import scored_images, write_maps, write_run, write_study
from matplotlib import colormaps
from PIL import Image

from saliency_entropy.errors import UserError
from saliency_entropy.study.focus import read_study_maps
from saliency_entropy.study.gallery import evenly_chosen, read_gallery
from saliency_entropy.study.runs import read_study


def read(folder, count=48):
    return read_gallery(read_study_maps(read_study(folder)), count)


def decoded(uri, kind):
    head, _, content = uri.partition(",")
    assert head == f"data:image/{kind};base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content)), formats=[kind]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two methods, the second of two seeds; maps of every third image."""
    study = write_study(tmp_path_factory.mktemp("runs") / "demo", {"cross_entropy": 1, "droid": 2})
    write_maps(study, rows=range(0, len(scored_images()), 3))
    return study


def test_each_group_has_as_many_places_as_it_has_images_for():
    groups = ["b"] * 5 + ["a"] * 2 + ["c"]
    scores = np.array([0.5, 0.1, 0.4, 0.2, 0.3, 0.9, 0.8, 0.7])
    # a: both, by rising score; b: the middles of three parts of 1.67 images; c: its one.
    assert list(evenly_chosen(groups, scores, 6)) == [6, 5, 1, 4, 0, 7]
    assert list(evenly_chosen(groups, scores, 2)) == [5, 4]
    assert sorted(evenly_chosen(groups, scores, 100)) == list(range(8))


def test_what_a_method_makes_of_an_image(folder):
    gallery = read(folder)
    assert len(gallery.images) == 48
    assert set(gallery.groups) == {"progan", "stylegan2", "stylegan3", "real, celeba-hq", "real, ffhq"}
    assert gallery.methods == {"cross_entropy": "Cross-entropy", "droid": "DROID"}
    scores = [
        pd.read_parquet(folder / "droid" / f"seed{seed}" / "scores" / "test.parquet").set_index("path")
        for seed in (0, 1)
    ]
    cams = [np.load(folder / "droid" / f"seed{seed}" / "maps" / "test.npz")["cam"] for seed in (0, 1)]
    paths = list(np.load(folder / "maps" / "test.npz")["path"])
    for image in gallery.images:
        own = pd.DataFrame([table.loc[image.path] for table in scores])
        probability = 1 / (1 + np.exp(-(own["logit_synthetic"] - own["logit_real"]).astype(float)))
        synthetic = own["label"].iloc[0] == "synthetic"
        view = image.views[1]
        assert view.score == pytest.approx(probability.mean(), abs=1e-6)
        assert view.right == ((probability.mean() > 0.5) == synthetic)
        assert (view.runs_right, view.runs) == (((probability > 0.5) == synthetic).sum(), 2)
        assert image.seen == ({"stylegan2": "yes"}.get(image.group, "no") if synthetic else "real")
        mean = np.mean([cam[paths.index(image.path)] for cam in cams], axis=0)
        shown = decoded(view.cam, "png")
        assert shown.shape == (7, 7, 3)
        np.testing.assert_allclose(shown, colormaps["plasma"](mean)[..., :3] * 255, atol=2)


def test_photographs_and_human_maps(folder):
    kept = np.load(folder / "maps" / "test.npz")
    paths = list(kept["path"])
    for image in read(folder, 10).images:
        place = paths.index(image.path)
        photo = decoded(image.photo, "jpeg").astype(float)
        assert photo.shape == (112, 112, 3)
        # JPEG changes the pixels, not their mean.
        assert photo.mean() == pytest.approx(kept["image"][place].mean(), abs=2)
        assert bool(image.human_map) == kept["has_map"][place]
        if image.human_map:
            wanted = colormaps["plasma"](kept["human_map"][place])[..., :3] * 255
            np.testing.assert_allclose(decoded(image.human_map, "png"), wanted, atol=1)


def test_no_gallery(folder):
    assert read(folder, 0) is None


def test_without_maps_the_command_is_named(tmp_path):
    gallery = read(write_study(tmp_path / "demo", {"droid": 1}))
    assert gallery.images == []
    assert gallery.notes == [
        "No CAMs are kept of test images yet. python experiments/focus.py study=STUDY makes them; then write the "
        "report again."
    ]


def test_runs_without_maps_are_named(tmp_path):
    study = write_study(tmp_path / "demo", {"cross_entropy": 2, "droid": 1})
    write_maps(study, rows=range(30))
    write_run(study, "hseb", 0)
    gallery = read(study)
    assert list(gallery.methods) == ["cross_entropy", "droid"]
    assert gallery.notes[-1].startswith("No maps of hseb/seed0, ")


def test_images_that_were_not_scored(tmp_path):
    study = write_study(tmp_path / "demo", {"droid": 1}, images=scored_images().iloc[::-1])
    write_maps(study, rows=range(30), images=scored_images().assign(path=lambda table: "new/" + table["path"]))
    with pytest.raises(
        UserError, match=r"maps/test.npz holds 30 images that droid/seed0 was not scored on, new/progan"
    ):
        read(study)


def test_scores_are_found_by_path_in_any_order(tmp_path):
    """A row of the maps is not one of the scores."""
    study = write_study(tmp_path / "demo", {"droid": 1}, images=scored_images().iloc[::-1])
    write_maps(study, rows=range(30))
    (image,) = read(study, 1).images
    scores = pd.read_parquet(study / "droid" / "seed0" / "scores" / "test.parquet").set_index("path").loc[image.path]
    wanted = 1 / (1 + np.exp(scores["logit_real"] - scores["logit_synthetic"]))
    assert image.views[0].score == pytest.approx(wanted, abs=1e-6)


def test_a_pickle_is_not_opened(tmp_path):
    study = write_study(tmp_path / "demo", {"droid": 1})
    write_maps(study, rows=range(30))
    np.savez(study / "maps" / "test.npz", sample=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match=r"maps/test.npz cannot be read as plain arrays"):
        read(study)


def test_stand_ins_for_human_maps_are_named(tmp_path):
    study = write_study(tmp_path / "demo", {"droid": 1}, config={"data": {"template_maps": True}})
    write_maps(study, rows=range(30))
    notes = read(study).notes
    assert "The maps in the place of human ones are template maps." in notes
