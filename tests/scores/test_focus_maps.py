"""Every run's maps: against NumPy, of the right images, made once, and read back as nothing but arrays."""

import pickle
import re
import shutil
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from omegaconf import DictConfig
from PIL import Image
from study_commands import configuration
from torch import Tensor

from saliency_entropy.backbone import Backbone
from saliency_entropy.data import FaceBatch
from saliency_entropy.data.dataset import FaceDataset
from saliency_entropy.errors import UserError
from saliency_entropy.scores.map_files import KINDS, RunMaps, Sample, maps_file, read_maps, save_maps
from saliency_entropy.scores.maps import GradCam, focus, run_maps, stratified_sample

RUNS = ("cross_entropy/seed0", "droid/seed1")


# --- the maps


def backbone(timm_name: str = "test_resnet", **options: object) -> Backbone:
    """Its CAMs of :func:`images` have cells of either sign, and either class is predicted."""
    torch.manual_seed(0)
    net = Backbone("mine", timm_name, **{"image_size": 64} | options, mean=(0.5,) * 3, std=(0.5,) * 3,
                   interpolation="bilinear", pretrained=False).eval()  # fmt: skip
    classifier = net.net.get_classifier()
    torch.nn.init.normal_(classifier.weight)
    torch.nn.init.zeros_(classifier.bias)
    with torch.no_grad():
        mean = net.activation(net(images(7, net.image_size)).features).mean(dim=(0, 2, 3))
        classifier.weight -= torch.outer(classifier.weight @ mean, mean) / mean.square().sum()
    return net


def images(count: int, size: int = 64) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def batch(pixels: Tensor, labels: Tensor) -> FaceBatch:
    count = len(pixels)
    return FaceBatch(
        pixels,
        labels,
        torch.zeros(count, 4, 4),
        torch.zeros(count, dtype=torch.bool),
        torch.arange(count),
        torch.ones(count, dtype=torch.int64),
    )


def scaled(maps: np.ndarray) -> np.ndarray:
    low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    return np.where(high > low, (maps - low) / np.where(high > low, high - low, 1), 0)


@pytest.mark.parametrize("class_index", ["predicted", "synthetic"])
def test_the_maps_are_those_of_numpy(class_index: str) -> None:
    net = backbone()
    pixels, labels = images(7), torch.tensor([0, 1, 1, 0, 1, 0, 0])
    found = run_maps(net, class_index, [batch(pixels[:4], labels[:4]), batch(pixels[4:], labels[4:])])
    with torch.no_grad():
        logits, features, weight = (part.double().numpy() for part in net(pixels))
    by_class = np.einsum("ck,nkhw->nchw", weight, features)
    every, predicted = np.arange(7), logits.argmax(axis=1)
    assert set(predicted) == {0, 1}
    expected = {
        "cam": scaled(by_class[every, predicted if class_index == "predicted" else 1]),
        "cam_true": scaled(by_class[every, labels]),
        "cam_difference": scaled(by_class[:, 1] - by_class[:, 0]),
        "grad_cam": scaled(np.maximum(by_class[every, predicted], 0)),
    }
    assert found.keys() == expected.keys() == set(KINDS)
    for kind, maps in expected.items():
        assert found[kind].dtype == np.float32
        np.testing.assert_allclose(found[kind], maps, atol=1e-5)


@pytest.mark.parametrize(("timm_name", "options"), [
    ("test_resnet", {}),
    ("test_efficientnet", {}),
    ("test_resnet", {"features": "pre_activation", "last_activation": "layer4.0.act2"}),
    ("test_vit", {"image_size": 160, "timm_options": {"global_pool": "avg", "fc_norm": False}}),
])  # fmt: skip
def test_grad_cam_is_the_cam_of_the_averaged_maps_without_what_is_negative(timm_name: str, options: dict) -> None:
    """The gradient of a logit by each cell of map k is W[c, k] / (h w), whatever the network."""
    net = backbone(timm_name, **options)
    with torch.no_grad():
        output = net(images(3, net.image_size))
    pooled = torch.relu(output.features) if "features" in options else output.features
    for chosen in (0, 1):
        cam = np.einsum("k,nkhw->nhw", output.weight.detach().numpy()[chosen], pooled.numpy())
        found = GradCam(net)(output.features, torch.full((3,), chosen)).detach().numpy()
        height, width = net.cam_size
        assert (cam < 0).any()
        np.testing.assert_allclose(found, np.maximum(cam, 0) / (height * width), atol=1e-6)


def test_a_map_of_one_value_is_zeros() -> None:
    net = backbone()
    torch.nn.init.zeros_(net.net.get_classifier().weight)
    found = run_maps(net, "predicted", [batch(images(2), torch.tensor([0, 1]))])
    assert all(not maps.any() for maps in found.values())


# --- the images


def table(counts: dict[tuple[str, str], int]) -> pd.DataFrame:
    rows = [(label, generator) for (label, generator), count in counts.items() for _ in range(count)]
    return pd.DataFrame(rows, columns=["label", "generator"])


def test_every_label_and_generator_has_its_share_and_one_image_at_least() -> None:
    counts = {("real", ""): 500, ("synthetic", "a"): 300, ("synthetic", "b"): 199, ("synthetic", "rare"): 1}
    rows = table(counts)
    chosen = stratified_sample(rows, 100, seed=0)
    assert (np.diff(chosen) > 0).all()
    taken = Counter(zip(*(rows.iloc[chosen][name] for name in rows), strict=True))
    assert taken == {("real", ""): 50, ("synthetic", "a"): 30, ("synthetic", "b"): 19, ("synthetic", "rare"): 1}
    assert (chosen == stratified_sample(rows, 100, seed=0)).all()
    assert set(chosen) != set(stratified_sample(rows, 100, seed=1))
    assert (stratified_sample(rows, 1000, seed=0) == np.arange(1000)).all()
    assert len(stratified_sample(rows, 999, seed=0)) == 999


def test_fewer_images_than_kinds_are_refused() -> None:
    with pytest.raises(UserError, match=r"samples is 1, but the images are of 2 kinds .*; give 2 or more"):
        stratified_sample(table({("real", ""): 5, ("synthetic", "a"): 5}), 1, seed=0)


# --- the command


@pytest.fixture
def study(trained: Path, tmp_path: Path) -> Path:
    """A copy of two of the runs."""
    for run in RUNS:
        shutil.copytree(trained / run, tmp_path / "study" / run)
    return tmp_path / "study"


def configured(study: Path, *overrides: str) -> DictConfig:
    return configuration("focus", study, "samples=8", "batch_size=4", *overrides)


def test_the_maps_are_of_the_chosen_images_whose_scores_they_explain(study: Path, faces: Path) -> None:
    focus(configured(study))
    sample = read_maps(maps_file(study, "test"), Sample)
    manifest = pd.read_csv(faces / "manifest.csv", keep_default_na=False)
    rows = manifest.iloc[sample.row]
    assert len(rows) == 8
    assert (rows["split"] == "test").all()
    assert (sample.label == (rows["label"] == "synthetic")).all()
    assert (sample.generator == rows["generator"]).all()
    assert (sample.path == rows["path"]).all()
    assert set(sample.generator) == {"", "gan", "new"}
    assert not sample.has_map.any()
    first = Image.open(faces / rows["path"].iloc[0]).convert("RGB").resize((112, 112), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(sample.image[0], np.asarray(first))  # 48 px, as the network sees it
    for run in RUNS:
        maps = read_maps(maps_file(study / run, "test"), RunMaps)
        assert (maps.row == sample.row).all()
        assert maps.sample == sample.sample
        assert maps.cam.shape == (8, *sample.human_map.shape[1:])
        scores = pd.read_parquet(study / run / "scores" / "test.parquet").set_index("path")
        p = maps.cam / maps.cam.sum(axis=(1, 2), keepdims=True)
        entropy = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(axis=(1, 2))
        assert entropy == pytest.approx(scores["cam_entropy"][rows["path"]].to_numpy(), abs=1e-4)


def test_images_with_human_maps(study: Path, faces: Path) -> None:
    focus(configured(study, "split=val", "with_maps=true"))
    sample = read_maps(maps_file(study, "val"), Sample)
    assert sample.has_map.all()
    assert sample.human_map.min(axis=(1, 2)) == pytest.approx(0)
    assert sample.human_map.max(axis=(1, 2)) == pytest.approx(1)
    names = pd.read_csv(faces / "manifest.csv", keep_default_na=False)["human_map"][sample.row]
    assert (names != "").all()
    with pytest.raises(UserError, match=r"split test has no image with a human map; give another, split="):
        focus(configured(study, "with_maps=true"))


def test_what_is_there_is_left_and_an_interrupted_command_goes_on(study: Path, caplog, monkeypatch) -> None:
    caplog.set_level("INFO")
    focus(configured(study))
    assert "maps/test.npz: 2 runs made, 0 made before" in caplog.text
    paths = [
        maps_file(study, "test"),
        *(maps_file(study / run, "test") for run in RUNS),
    ]
    before = [path.read_bytes() for path in paths]
    paths[2].unlink()  # as if it had ended after the first run
    focus(configured(study))
    assert "maps/test.npz: 1 run made, 1 made before" in caplog.text
    assert [path.read_bytes() for path in paths] == before
    monkeypatch.setattr(FaceDataset, "__getitem__", None)  # nothing may be decoded
    focus(configured(study))
    assert "maps/test.npz: 0 runs made, 2 made before" in caplog.text


def test_each_image_is_decoded_once(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    item = FaceDataset.__getitem__
    monkeypatch.setattr(FaceDataset, "__getitem__", lambda its, i: decoded.append(int(its.rows[i])) or item(its, i))
    focus(configured(study))
    assert len(decoded) == len(set(decoded)) == 8


def test_maps_of_others_are_never_taken_for_these(study: Path, own_faces: Path) -> None:
    focus(configured(study))
    with pytest.raises(UserError, match=r"study/maps/test\.npz: made from other images; give another name, set="):
        focus(configured(study, "samples=6"))
    focus(configured(study, "samples=6", "set=six"))
    image = own_faces / "test" / "3.jpg"
    whole, data = image.read_bytes(), ("data=faces", f"data.root={own_faces}", "set=own", "samples=12")
    focus(configured(study, *data))
    image.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])  # of as many bytes
    with pytest.raises(UserError, match=r"study/maps/own\.npz: made from other images"):
        focus(configured(study, *data))
    image.write_bytes(whole)
    focus(configured(study, *data))
    checkpoint = study / "droid" / "seed1" / "checkpoints" / "best.ckpt"
    shutil.copy(study / "cross_entropy" / "seed0" / "checkpoints" / "best.ckpt", checkpoint)
    with pytest.raises(UserError, match=r"[^;]*droid/seed1/maps/test\.npz: made from another checkpoint; give"):
        focus(configured(study))
    focus(configured(study, "overwrite=true"))
    theirs, ours = (
        read_maps(maps_file(study / run, "test"), RunMaps) for run in ("droid/seed1", "cross_entropy/seed0")
    )
    np.testing.assert_array_equal(ours.cam, theirs.cam)
    assert ours.checkpoint == theirs.checkpoint


def test_an_interrupted_overwrite_goes_on(study: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is whole and of these images is not made again; what is damaged is."""
    caplog.set_level("INFO")
    focus(configured(study, "samples=6"))
    focus(configured(study, "overwrite=true"))
    assert "maps/test.npz: 2 runs made, 0 made before; 8 images" in caplog.text
    sample, first, second = (maps_file(folder, "test") for folder in (study, *(study / run for run in RUNS)))
    before = second.read_bytes()
    second.write_bytes(before[:-100])
    with pytest.raises(UserError, match="cannot be read as plain arrays"):
        focus(configured(study))
    made = [path.stat().st_mtime_ns for path in (sample, first)]
    focus(configured(study, "overwrite=true"))
    assert "maps/test.npz: 1 run made, 1 made before" in caplog.text
    assert second.read_bytes() == before
    assert [path.stat().st_mtime_ns for path in (sample, first)] == made


def test_unfinished_runs_are_named(study: Path, caplog: pytest.LogCaptureFixture) -> None:
    (study / "droid" / "seed1" / "result.json").unlink()
    focus(configured(study))
    assert "not finished, and so without maps: droid/seed1" in caplog.text
    assert not maps_file(study / "droid/seed1", "test").exists()


def test_another_process_makes_maps(study: Path) -> None:
    with (
        FileLock(study / ".focus.lock"),
        pytest.raises(UserError, match=r"focus\.py works on .*study in another process; wait"),
    ):
        focus(configured(study))


def test_a_run_that_diverged_has_no_maps_and_is_named(study: Path) -> None:
    path = study / "droid" / "seed1" / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    for value in checkpoint["state_dict"].values():
        if value.is_floating_point():
            value.fill_(float("nan"))
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match=r"^droid/seed1: its maps, which are not kept, are not finite, since training"):
        focus(configured(study))
    assert maps_file(study / "cross_entropy/seed0", "test").exists()
    assert not maps_file(study / "droid/seed1", "test").exists()


@pytest.mark.parametrize(("override", "message"), [
    ("samples=0", "samples is 0; give a whole number from 1 on"),
    ("batch_size=half", "batch_size is 'half'; give a whole number from 1 on"),
    ("seed=-1", "seed is -1; give a whole number from 0 on"),
    ("threads=0", "threads is 0; give a whole number from 1 on, or null"),
    ("num_workers=-1", "num_workers is -1; give a whole number from 0 on, or null"),
    ("num_workers=two", "num_workers is 'two'; give a whole number from 0 on, or null"),
    ("split=valid", "split is 'valid'; choose one of train, val, test"),
    ("set=../evil", "set='../evil' cannot name a folder: use up to 200 letters, digits"),
    ("set=val", "set=val is the name of the study's own val images"),
])  # fmt: skip
def test_mistakes(study: Path, override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        focus(configured(study, override))
    assert str(caught.value).startswith(message)


def test_without_a_finished_run_or_a_checkpoint(study: Path) -> None:
    checkpoint = study / "droid" / "seed1" / "checkpoints" / "best.ckpt"
    checkpoint.unlink()
    with pytest.raises(
        UserError, match=r"1 of 2 runs have no checkpoint .*/best\.ckpt \(.*; delete these .* and train"
    ):
        focus(configured(study))
    for path in study.rglob("result.json"):
        path.unlink()
    with pytest.raises(UserError, match=r"no run in .* is finished"):
        focus(configured(study))


def test_a_folder_that_cannot_be_written_to(study: Path) -> None:
    (study / "maps").write_text("in the way")
    with pytest.raises(UserError, match=r"maps cannot be read or written \(.*\); make room or give yourself access"):
        focus(configured(study))


def test_an_image_that_cannot_be_used_is_named(study: Path, own_faces: Path) -> None:
    broken = next(own_faces.glob("test/*.png"))
    broken.write_bytes(broken.read_bytes()[:2000])
    name = str(broken.relative_to(own_faces))
    with pytest.raises(UserError, match=rf"manifest\.csv: row \d+: .*{name}"):
        focus(configured(study, "samples=12", "data=faces", f"data.root={own_faces}"))
    assert not maps_file(study, "faces").exists()


def test_another_image_is_drawn_for_one_that_breaks(study: Path, own_faces: Path, caplog) -> None:
    options = ("samples=8", "data=faces", f"data.root={own_faces}", "skip_broken=true")
    focus(configured(study, *options, "set=whole"))
    drawn = read_maps(maps_file(study, "whole"), Sample).path
    broken = own_faces / str(drawn[0])
    broken.write_bytes(broken.read_bytes()[:2000])
    focus(configured(study, *options, "set=broken"))
    sample = read_maps(maps_file(study, "broken"), Sample)
    assert len(sample.path) == 8
    assert drawn[0] not in sample.path
    assert re.search(rf"left out \(skip_broken=true\): row \d+: .*{drawn[0]}", caplog.text)
    for run in RUNS:
        assert len(read_maps(maps_file(study / run, "broken"), RunMaps).cam) == 8


def test_no_image_without_a_human_map_for_one_whose_map_breaks(study: Path, own_faces: Path) -> None:
    options = ("split=val", "samples=4", "data=faces", f"data.root={own_faces}", "skip_broken=true", "with_maps=true")
    for path in own_faces.rglob("maps/*"):
        path.write_bytes(b"broken")
    with pytest.raises(UserError, match="split val has no image with a human map"):
        focus(configured(study, *options, "set=broken"))


# --- the files


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Path, RunMaps]:
    random = np.random.default_rng(0)
    maps = RunMaps("a", "b", np.arange(3), *(random.random((3, 2, 2)).astype(np.float32) for _ in KINDS))
    path = maps_file(tmp_path, "test")
    save_maps(path, maps)
    return path, maps


def arrays(maps: RunMaps) -> dict[str, object]:
    return {name: getattr(maps, name) for name in ("sample", "checkpoint", "row", *KINDS)}


def test_what_is_written_is_read_back(kept: tuple[Path, RunMaps]) -> None:
    path, maps = kept
    found = read_maps(path, RunMaps)
    for name, array in arrays(maps).items():
        np.testing.assert_array_equal(getattr(found, name), array)
    with pytest.raises(FileNotFoundError):
        read_maps(path.with_name("other.npz"), RunMaps)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_pickled_objects_are_refused_and_nothing_in_them_is_executed(kept, tmp_path: Path) -> None:
    path, maps = kept
    evil = tmp_path / "evil"
    objects = np.array([Evil(evil)] * 3, dtype=object)
    np.savez(path, **arrays(maps) | {"cam": objects})
    with pytest.raises(UserError, match=r"cannot be read as plain arrays .*nothing in it was executed; delete it and"):
        read_maps(path, RunMaps)
    path.write_bytes(pickle.dumps(Evil(evil)))
    with pytest.raises(UserError, match=r"cannot be read as plain arrays"):
        read_maps(path, RunMaps)
    assert not evil.exists()


def test_a_small_file_does_not_grow_in_memory(kept) -> None:
    path, maps = kept
    np.savez_compressed(path, **arrays(maps) | {"cam": np.zeros((3, 2000, 2000), dtype=np.float32)})
    assert path.stat().st_size < 1e6
    with pytest.raises(UserError, match="its arrays are compressed"):
        read_maps(path, RunMaps)


@pytest.mark.parametrize("cut", [0, 10, 300, -5])
def test_a_file_cut_short(kept, cut: int) -> None:
    path, _ = kept
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match="cannot be read as plain arrays"):
        read_maps(path, RunMaps)


def test_a_flipped_bit(kept) -> None:
    path, _ = kept
    with zipfile.ZipFile(path) as file:
        start = file.getinfo("cam.npy").header_offset
    content = bytearray(path.read_bytes())
    content[start + 30 + len("cam.npy") + 128 + 20] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"CRC-32"):
        read_maps(path, RunMaps)


@pytest.mark.parametrize(("name", "value", "message"), [
    ("cam", np.zeros((3, 2, 3), np.float32), r"cam_true has type float32 and shape \(3, 2, 2\)"),
    ("cam_true", np.zeros((2, 2, 2), np.float32), r"cam_true has type float32 and shape \(2, 2, 2\)"),
    ("grad_cam", np.zeros((3, 2, 2), np.int64), r"grad_cam has type int64"),
    ("grad_cam", np.full((3, 2, 2), 1.5, np.float32), r"grad_cam has values that are not from 0 to 1"),
    ("grad_cam", np.full((3, 2, 2), np.nan, np.float32), r"grad_cam has values that are not from 0 to 1"),
    ("row", np.zeros(3), r"row has type float64"),
    ("sample", np.array(["a", "b"]), r"sample has type"),
])  # fmt: skip
def test_arrays_of_something_else(kept, name: str, value: np.ndarray, message: str) -> None:
    path, maps = kept
    save_maps(path, replace(maps, **{name: value}))
    with pytest.raises(UserError, match=message):
        read_maps(path, RunMaps)


def test_one_kind_of_file_is_not_the_other(kept) -> None:
    path, _ = kept
    with pytest.raises(UserError, match="path is not a file in the archive"):
        read_maps(path, Sample)
