"""A detector rebuilt from a checkpoint says what the trained module says, without Hydra or a Trainer."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch.utils.data import DataLoader

from saliency_entropy.backbone import Backbone
from saliency_entropy.data import FaceBatch
from saliency_entropy.data.images import load_image
from saliency_entropy.detector import Detection, Detector
from saliency_entropy.errors import UserError
from saliency_entropy.functional import spatial_entropy
from saliency_entropy.losses import CrossEntropy, LogEntropy, LossSum
from saliency_entropy.module import DetectorModule

SIZE = 32
TINY = {
    "name": "tiny",
    "timm_name": "test_resnet",
    "image_size": SIZE,
    "output_stride": 16,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.5, 0.6, 0.7],
    "interpolation": "bicubic",
    "pretrained": False,
    "last_activation": "layer4.0.act2",
}


def faces(count: int = 4) -> FaceBatch:
    generator = torch.Generator().manual_seed(0)
    return FaceBatch(
        torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator),
        torch.arange(count) % 2,
        torch.zeros(count, 2, 2),
        torch.zeros(count, dtype=torch.bool),
        torch.arange(count),
        torch.ones(count, dtype=torch.int64),
    )


def trained(path: Path, class_index: str = "predicted", **changes: object) -> DetectorModule:
    """A tiny network after one epoch of two steps, in evaluation mode; its checkpoint is at ``path``."""
    torch.manual_seed(0)
    config = TINY | changes
    module = DetectorModule(
        Backbone(**config),
        LossSum({"cross_entropy": CrossEntropy(weight=0.5), "log_entropy": LogEntropy(weight=0.5)}),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        class_index=class_index,
        detector_config={"backbone": config, "class_index": class_index},
    )
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader([faces(), faces()], batch_size=None))
    trainer.save_checkpoint(path)
    return module.eval()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    return SimpleNamespace(module=trained(path), path=path)


def changed(run: SimpleNamespace, path: Path, **changes: object) -> Path:
    """The checkpoint with other entries."""
    torch.save(torch.load(run.path, weights_only=True) | changes, path)
    return path


@torch.no_grad()
def assert_agrees(detections: list[Detection], module: DetectorModule, batch: FaceBatch) -> None:
    prediction = module(batch)
    for index, detection in enumerate(detections):
        logits = prediction.logits[index]
        assert (detection.logit_real, detection.logit_synthetic) == tuple(logits.tolist())
        assert detection.probability_synthetic == pytest.approx(logits.softmax(0)[1].item(), abs=1e-7)
        np.testing.assert_array_equal(detection.cam, prediction.maps[index].numpy())
        assert detection.cam_entropy == spatial_entropy(prediction.maps)[index].item()
        assert detection.focus_area == pytest.approx(np.exp(detection.cam_entropy))


def test_it_says_what_the_trained_module_says(run):
    batch = faces()
    detections = Detector.from_checkpoint(run.path)(batch.image)
    assert len(detections) == 4
    assert detections[0].cam.shape == (2, 2)
    assert_agrees(detections, run.module, batch)


def test_the_training_moved_what_the_checkpoint_carries(run):
    # Otherwise a detector with the weights, or the BatchNorm statistics, of the beginning would pass the test above.
    torch.manual_seed(0)
    fresh = Backbone(**TINY).state_dict()
    loaded = Detector.from_checkpoint(run.path).backbone.state_dict()
    same = [name for name in fresh if torch.equal(fresh[name], loaded[name])]
    assert same == []


@pytest.mark.parametrize("class_index", ["synthetic", "difference"])
def test_the_class_of_its_cam_is_that_of_the_training(tmp_path, class_index):
    module = trained(tmp_path / "best.ckpt", class_index)
    assert_agrees(Detector.from_checkpoint(tmp_path / "best.ckpt")(faces().image), module, faces())


def test_the_true_class_of_an_image_that_is_judged_is_not_known(run, tmp_path):
    described = {"backbone": TINY, "class_index": "true"}
    detector = Detector.from_checkpoint(changed(run, tmp_path / "true.ckpt", detector=described))
    assert detector.class_index == "predicted"
    assert_agrees(detector(faces().image), run.module, faces())


def test_maps_before_the_last_activation_and_other_options_are_rebuilt(tmp_path):
    changes = {"features": "pre_activation", "double_forward": True, "output_stride": 32}
    module = trained(tmp_path / "best.ckpt", **changes)
    detector = Detector.from_checkpoint(tmp_path / "best.ckpt")
    assert detector.backbone.cam_size == (1, 1)
    assert_agrees(detector(faces().image), module, faces())


def test_bytes_and_floats_are_the_same_image(run):
    detector = Detector.from_checkpoint(run.path)
    image = faces().image
    for ours, theirs in zip(detector(image), detector(image / 255), strict=True):
        assert ours.logit_synthetic == theirs.logit_synthetic
        np.testing.assert_array_equal(ours.cam, theirs.cam)


def test_judging_leaves_no_trace(run):
    detector = Detector.from_checkpoint(run.path)
    state = torch.get_rng_state()
    first = detector(faces().image)[0]
    assert torch.equal(torch.get_rng_state(), state)
    assert not detector.backbone.training
    assert all(not parameter.requires_grad for parameter in detector.backbone.parameters())
    assert detector(faces().image)[0].logit_real == first.logit_real


def test_neither_hydra_nor_lightning_is_imported(run):
    script = (
        "import sys, torch\n"
        "from saliency_entropy.detector import Detector\n"
        f"print(Detector.from_checkpoint({str(run.path)!r})(torch.zeros(1, 3, {SIZE}, {SIZE}))[0].logit_real)\n"
        "print(sorted({'hydra', 'omegaconf', 'pytorch_lightning', 'torchmetrics'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    logit, imported = done.stdout.splitlines()
    expected = Detector.from_checkpoint(run.path)(torch.zeros(1, 3, SIZE, SIZE))[0].logit_real
    assert float(logit) == pytest.approx(expected, abs=1e-6)
    assert imported == "[]"


# Files.


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Five files in no alphabetical order, the second and the fourth of them broken."""
    rng = np.random.default_rng(0)
    for name in "eabdc":
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "a.png").write_text("no image")
    (tmp_path / "d.png").unlink()
    return [tmp_path / f"{name}.png" for name in "eabdc"]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 100])
def test_judge_keeps_the_order_and_says_why_a_file_has_no_score(run, paths, batch_size):
    detector = Detector.from_checkpoint(run.path)
    judged = list(detector.judge(iter(paths), batch_size))
    assert [path for path, _, _ in judged] == paths
    for index in (0, 2, 4):
        path, pixels, detection = judged[index]
        np.testing.assert_array_equal(pixels, load_image(path, SIZE, "bicubic"))
        alone = detector(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0]
        assert detection.logit_synthetic == pytest.approx(alone.logit_synthetic, abs=1e-5)
        np.testing.assert_allclose(detection.cam, alone.cam, atol=1e-4)
    assert judged[1][1] is None
    assert "a.png is not an image in a known format" in judged[1][2]
    assert judged[3][1] is None
    assert "d.png does not exist" in judged[3][2]


def test_judge_of_nothing(run):
    assert list(Detector.from_checkpoint(run.path).judge([])) == []


# What is refused, in one sentence.


def refusal(path: Path | str, device: str = "cpu") -> str:
    with pytest.raises(UserError) as caught:
        Detector.from_checkpoint(path, device)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path):
    assert refusal(tmp_path / "no.ckpt") == f"checkpoint {tmp_path}/no.ckpt does not exist; give the best.ckpt of a run"
    assert refusal(tmp_path).startswith(f"{tmp_path} is a folder, but not that of a run or of a method's runs; give")


@pytest.mark.timeout(20)
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "best.ckpt")
    assert "best.ckpt is not a file, but a pipe, a socket or a device; name a file" in refusal(tmp_path / "best.ckpt")


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_a_truncated_checkpoint(run, tmp_path, share):
    content = run.path.read_bytes()
    (tmp_path / "best.ckpt").write_bytes(content[: int(len(content) * share)])
    assert f"{tmp_path}/best.ckpt cannot be loaded as plain weights" in refusal(tmp_path / "best.ckpt")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_flipped_bit_among_the_weights(run, tmp_path, share):
    content = bytearray(run.path.read_bytes())
    content[int(len(content) * share)] ^= 1
    (tmp_path / "best.ckpt").write_bytes(content)
    assert re.search(r"best\.ckpt cannot be loaded .*checksum", refusal(tmp_path / "best.ckpt"))


@pytest.mark.parametrize(
    "content",
    [{}, [], 3, {"state_dict": {}}, {"state_dict": [], "detector": {}}, {"state_dict": {}, "detector": None}],
)
def test_plain_files_of_other_kinds(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    said = refusal(tmp_path / "other.pt")
    assert (
        "is not a detector of this package: give the best.ckpt of a run" in said or "is not a checkpoint but a" in said
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mean": "grey"}, "mean|must be|str"),
        ({"mean": [0.5] * 4}, "shape"),
        ({"std": None}, "None|infer"),
        ({"image_size": 7}, "image_size is 7"),
        ({"image_size": 10**9}, "image_size is 1000000000"),
        ({"image_size": "32"}, "image_size is '32'"),
        ({"features": "best"}, "features is 'best'"),
        ({"features": "pre_activation", "last_activation": 3}, "int"),
        ({"features": "pre_activation", "last_activation": ""}, "."),
        ({"output_stride": "wide"}, "."),
        ({"timm_name": None}, "no network named None"),
        ({"colour": "red"}, "colour"),
        ({5: 6}, "keywords must be strings"),
    ],
)
def test_descriptions_of_no_network(run, tmp_path, changes, reason):
    described = {"backbone": TINY | changes, "class_index": "predicted"}
    message = refusal(changed(run, tmp_path / "odd.ckpt", detector=described))
    start = f"{tmp_path}/odd.ckpt does not describe a network of this package ("
    assert message.startswith(start)

    assert re.search(reason, message.removeprefix(start))


@pytest.mark.parametrize("class_index", [None, "best", 1, ["predicted"]])
def test_a_class_index_of_another_kind(run, tmp_path, class_index):
    path = changed(run, tmp_path / "odd.ckpt", detector={"backbone": TINY, "class_index": class_index})
    assert "does not describe its network" in refusal(path)


@pytest.mark.parametrize("broken", ["missing", "shape", "name", "kind"])
def test_weights_that_do_not_fit(run, tmp_path, broken):
    weights = dict(torch.load(run.path, weights_only=True)["state_dict"])
    key = "backbone.net.fc.weight"
    if broken == "missing":
        del weights[key]
    elif broken == "shape":
        weights[key] = weights[key][:1]
    elif broken == "name":
        weights[7] = weights.pop(key)
    else:
        weights[key] = "weight"
    path = changed(run, tmp_path / "odd.ckpt", state_dict=weights)
    assert f"the weights in {tmp_path}/odd.ckpt do not fit the network it describes" in refusal(path)


@pytest.mark.parametrize("device", ["banana", "meta:x", "cuda:999"])
def test_a_device_that_is_not_there(run, device):
    assert refusal(run.path, device).startswith(f"device={device} cannot be used (")
