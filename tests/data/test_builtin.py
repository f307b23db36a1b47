"""The built-in data set: same arguments, same files; no shortcut between the classes; maps like human ones."""

import hashlib
import logging
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from saliency_entropy.data import Manifest, builtin
from saliency_entropy.data.builtin import SEEN, annotated, builtin_faces
from saliency_entropy.data.dataset import FaceDataset, Transform
from saliency_entropy.data.drawn.cameras import CAMERAS, FINGERPRINTS
from saliency_entropy.data.drawn.defects import DEFECTS
from saliency_entropy.data.drawn.drawing import draw_face
from saliency_entropy.data.drawn.face import Stroke
from saliency_entropy.data.human_maps.loading import load_human_map
from saliency_entropy.data.listed_files import check_files
from saliency_entropy.data.table import SPLITS
from saliency_entropy.errors import UserError
from saliency_entropy.functional import spatial_entropy
from saliency_entropy.run.folder import register_resolvers

CONF = Path(__file__).parents[2] / "conf"
SMALL = {"seed": 0, "image_size": 64, "train": 40, "val": 24, "test": 48}


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Large enough for statistics."""
    root = tmp_path_factory.mktemp("faces")
    return builtin_faces(root, seed=0, image_size=128, train=240, val=40, test=360)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return builtin_faces(tmp_path_factory.mktemp("small"), **SMALL)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# What is in it.


def test_files_and_columns(faces: Manifest) -> None:
    check_files(faces)
    transform = Transform(image_size=64, interpolation="bilinear", map_size=(7, 7))
    assert not any(FaceDataset(faces, split, transform).broken(decode=True) for split in SPLITS)
    table = faces.table
    assert table["path"].tolist() == [
        f"{split}/{index:06d}.jpg" for split, count in (("train", 240), ("val", 40), ("test", 360))
        for index in range(count)
    ]  # fmt: skip
    real = table["label"] == "real"
    assert set(table["source"][real]) == set(CAMERAS)
    assert set(table["generator"][real]) == set(table["source"][~real]) == {""}
    assert set(table["pose"]) == {"frontal", "turned"}


@pytest.mark.parametrize("data", ["faces", "small"])
def test_half_are_real_and_generators_are_even(data: str, request: pytest.FixtureRequest) -> None:
    manifest: Manifest = request.getfixturevalue(data)
    for split in ("train", "val", "test"):
        table = manifest.split(split)
        synthetic = table[table["label"] == "synthetic"]
        assert len(synthetic) * 2 == len(table)
        counts = synthetic["generator"].value_counts()
        assert set(counts.index) == set(FINGERPRINTS if split == "test" else SEEN)
        assert counts.nunique() == 1
        assert (table["source"].value_counts()[list(CAMERAS)] == len(table) // 4).all()


def test_place_in_the_table_does_not_tell_the_label(faces: Manifest) -> None:
    synthetic = (faces.split("test")["label"] == "synthetic").to_numpy()
    assert 0.35 < synthetic[::2].mean() < 0.65
    assert {tuple(pair) for pair in synthetic.reshape(-1, 2).tolist()} == {(False, True), (True, False)}


def test_synthetic_images_have_one_to_three_defects(faces: Manifest) -> None:
    table = faces.table
    real = table["label"] == "real"
    assert (table["defects"][real] == "").all()
    names = table["defects"][~real].str.split(";")
    assert set(names.map(len)) == {1, 2, 3}
    assert names.map(lambda each: len(set(each)) == len(each)).all()
    # Kinds of defects recur across generators: what one learns from two applies to the others.
    frequent = set(DEFECTS) - {"ear", "earring", "glasses"}
    for _, of_generator in names[table["split"] == "test"].groupby(table["generator"]):
        assert frequent <= set(of_generator.explode())
    assert set(names.explode()) == set(DEFECTS)


# No shortcut: nothing but the image's content may tell the classes apart, and no simple statistic of it either.


def test_all_files_are_of_one_kind(faces: Manifest) -> None:
    kinds = set()
    for path in faces.table["path"]:
        with Image.open(faces.root / path) as image:
            kinds.add(
                (image.format, image.size, image.mode, str(image.quantization), str(image.layer), str(image.info))
            )
    ((kind, size, mode, *_),) = kinds
    assert (kind, size, mode) == ("JPEG", (128, 128), "RGB")


def thumbnail(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((12, 12), Image.Resampling.BILINEAR), dtype=float).ravel()


@pytest.fixture(scope="module")
def images(faces: Manifest) -> list[Image.Image]:
    return [Image.open(faces.root / path).convert("RGB") for path in faces.table["path"]]


@pytest.mark.parametrize(("statistic", "strength"), [
    (lambda image: np.asarray(image, dtype=float).mean(axis=(0, 1)), 1.0),
    (lambda image: np.asarray(image, dtype=float).std(axis=(0, 1)), 1.0),
    (thumbnail, 0.01),
], ids=["mean colour", "contrast", "thumbnail"])  # fmt: skip
def test_simple_statistics_do_not_find_unseen_generators(
    faces: Manifest, images: list[Image.Image], statistic: Callable[[Image.Image], np.ndarray], strength: float
) -> None:
    probe_is_weak(faces.table, np.stack([statistic(image) for image in images]), strength)


def test_file_sizes_do_not_find_unseen_generators(faces: Manifest) -> None:
    sizes = np.array([[(faces.root / path).stat().st_size] for path in faces.table["path"]], dtype=float)
    probe_is_weak(faces.table, sizes, 1.0)


def probe_is_weak(table: pd.DataFrame, values: np.ndarray, strength: float) -> None:
    """A linear probe on (n, d) values, trained on the training images: AUROC of real against unseen test images."""
    synthetic = (table["label"] == "synthetic").to_numpy()
    train = (table["split"] == "train").to_numpy()
    unseen = (table["split"] == "test").to_numpy() & ~table["generator"].isin(SEEN).to_numpy()
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
    probe.fit(values[train], synthetic[train])
    assert roc_auc_score(synthetic[unseen], probe.decision_function(values[unseen])) < 0.65


# Human maps.


def test_maps_are_as_focused_as_human_ones(faces: Manifest) -> None:
    table = faces.table[faces.table["human_map"] != ""]
    maps = torch.stack([torch.from_numpy(load_human_map([faces.root / path], (7, 7))) for path in table["human_map"]])
    entropy = pd.Series(spatial_entropy(maps).numpy(), table["label"])
    assert abs(entropy.mean() - 3.0) < 0.1
    assert entropy.between(2.0, 3.6).all()
    # Annotators marked regions of both classes alike: a map must not be a label in disguise.
    assert entropy.groupby(level=0).mean().sub(3.0).abs().max() < 0.2


def test_which_images_have_maps(faces: Manifest) -> None:
    lacking = (faces.table["human_map"] == "").groupby(faces.table["split"]).mean()
    assert 0.01 < lacking["train"] < 0.1
    assert (lacking["val"], lacking["test"]) == (0.0, 1.0)


def test_annotators_stroke_what_they_see() -> None:
    eye, chin = Stroke((0.3, 0.3), (0.4, 0.3)), Stroke((0.5, 0.85), (0.6, 0.85))
    looked_at = {name: eye for name in ("a", "b", "c", "d")}

    def mean(defects: dict[str, tuple[float, Stroke]]) -> np.ndarray:
        rng = np.random.default_rng(0)
        maps = [np.asarray(annotated(looked_at, defects, 64, rng), dtype=float) for _ in range(20)]
        assert all(cells.max() == 255 for cells in maps)
        return np.mean(maps, axis=0)

    real, plain = mean({}), mean({"droplet": (1.0, chin)})
    at_eye, at_chin = (round(0.3 * 64), round(0.35 * 64)), (round(0.85 * 64), round(0.55 * 64))
    assert real[at_eye] > 200 > 20 > real[at_chin]
    assert plain[at_chin] > 200 > plain[at_eye] > 20


# The same files for the same arguments, drawn once.


def test_same_arguments_same_bytes(small: Manifest, tmp_path: Path) -> None:
    again = builtin_faces(tmp_path, **SMALL)
    assert again.root.name == small.root.name
    assert digests(again.root) == digests(small.root)
    other = builtin_faces(tmp_path, **{**SMALL, "seed": 1})
    assert other.root != again.root
    assert not set(digests(other.root).values()) & set(digests(again.root).values())


def test_more_images_do_not_change_the_first(small: Manifest, tmp_path: Path) -> None:
    more = builtin_faces(tmp_path, **{**SMALL, "train": 60, "test": 50})
    files = digests(more.root)
    for name, digest in digests(small.root).items():
        assert name == "manifest.csv" or files[name] == digest
    first = more.split("train").iloc[:40]
    assert first.to_numpy().tolist() == small.split("train").to_numpy().tolist()


def test_is_drawn_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        first = builtin_faces(tmp_path, **SMALL)
        builtin_faces(tmp_path, **SMALL)
    assert caplog.messages == [f"data builtin: drawing 112 images into {first.root}"]


def test_a_killed_drawing_is_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def killed(*arguments: object) -> np.ndarray:
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return draw_face(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(builtin, "draw_face", killed)
        with pytest.raises(KeyboardInterrupt):
            builtin_faces(tmp_path, **SMALL)
    assert [path.suffix for path in tmp_path.iterdir() if path.is_dir()] == [".partial"]
    manifest = builtin_faces(tmp_path, **SMALL)
    check_files(manifest)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [manifest.root]


def test_processes_that_start_at_once(small: Manifest, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=builtin_faces, args=(tmp_path,), kwargs=SMALL) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(250)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [small.root.name]
    assert digests(tmp_path / small.root.name) == digests(small.root)


# Wrong arguments.


@pytest.mark.parametrize(("arguments", "message"), [
    ({"train": 2}, r"data\.source\.train is 2; .* by 2 generators, so it must be even and 4 or greater"),
    ({"val": 25}, r"data\.source\.val is 25; .* it must be even and 4 or greater"),
    ({"test": 10}, r"data\.source\.test is 10; .* by 6 generators, so it must be even and 12 or greater"),
    ({"image_size": 16}, r"data\.source\.image_size is 16; a face needs 32 pixels at least"),
    ({"seed": -1}, r"data\.source\.seed is -1; it must be 0 or greater"),
])  # fmt: skip
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        builtin_faces(tmp_path, **{**SMALL, **arguments})
    assert not list(tmp_path.iterdir())


def test_a_root_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"data\.source\.folder=\S+/file: the built-in faces cannot be drawn there \(.+\); set"
    ):
        builtin_faces(tmp_path / "file", **SMALL)


# The config.


def test_config(tmp_path: Path) -> None:
    register_resolvers()
    GlobalHydra.instance().clear()
    overrides = [f"runs_dir={tmp_path}", "backbone.image_size=56", "seed=3"]
    overrides += [f"data.source.{split}={SMALL[split]}" for split in ("train", "val", "test")]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides)
    data = instantiate(cfg.data, map_size=(7, 7), _convert_="all")
    data.setup()
    assert data.manifest.root.parent == tmp_path / ".builtin_faces"
    assert data.train_generators == sorted(SEEN)
    data.require_human_maps("a method")
    batch = next(iter(data.val_dataloader()))
    assert batch.image.shape == (20, 3, 56, 56)
    assert batch.has_map.all()
