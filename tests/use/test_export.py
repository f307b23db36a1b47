"""The exported files say what the detector says, and run without this package."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from saliency_entropy.backbone import Backbone
from saliency_entropy.data.images import load_image
from saliency_entropy.detector import Detector
from saliency_entropy.errors import UserError
from saliency_entropy.run.checkpoint import best_checkpoint
from saliency_entropy.run.model_file import ModelCard as DetectorCard
from saliency_entropy.use import export as exporting
from saliency_entropy.use.export import OUTPUTS, export
from saliency_entropy.use.hub_card import hub_card

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra export is not installed")
ROOT = Path(__file__).parents[2]
FACES = ROOT.parent / "shared" / "data" / "faces" / "test"
BACKBONES = sorted(path.stem for path in (ROOT / "conf" / "backbone").glob("*.yaml"))


def configured(checkpoint: Path, output: Path, **changes: object) -> DictConfig:
    config = OmegaConf.load(ROOT / "conf" / "export.yaml")
    del config["hydra"]
    return OmegaConf.merge(config, {"checkpoint": str(checkpoint), "output": str(output)}, changes)


@pytest.fixture(scope="module")
def run(train_small, tmp_path_factory) -> Path:
    return train_small(tmp_path_factory.mktemp("exported") / "method" / "seed0", "method=droid")


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("out") / "files"
    export(configured(run, output, license="cc-by-nc-4.0"))
    return output


@pytest.fixture(scope="module")
def photographs(faces: Path) -> list[Path]:
    """Real faces where there are any, otherwise images of noise."""
    return sorted((FACES if FACES.is_dir() else faces / "test").rglob("*.[jp][pn]g"))[:5]


def said(detector: Detector, pixels: np.ndarray) -> list[np.ndarray]:
    detections = detector(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    difference = np.array([one.logit_synthetic - one.logit_real for one in detections])
    return [
        np.array([(one.logit_real, one.logit_synthetic) for one in detections]),
        1 / (1 + np.exp(-difference / (detector.card.temperature or 1))),
        np.stack([one.cam for one in detections]),
        np.array([one.cam_entropy for one in detections]),
    ]


def test_every_file_says_what_the_detector_says(run, exported, photographs) -> None:
    detector = Detector.from_checkpoint(best_checkpoint(run))
    pixels = np.stack([load_image(path, 48) for path in photographs])
    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("image", "tensor(uint8)", ["batch", 48, 48, 3])
    assert tuple(output.name for output in session.get_outputs()) == OUTPUTS
    program = torch.export.load(exported / "model.pt2").module()
    for images in (pixels, pixels[:1], pixels[:3]):
        for one, other, third in zip(
            said(detector, images),
            session.run(list(OUTPUTS), {"image": images}),
            program(torch.from_numpy(images)),
            strict=True,
        ):
            np.testing.assert_allclose(other, one, atol=1e-4)
            np.testing.assert_allclose(third.numpy(), one, atol=1e-4)


def test_a_uniform_image_has_a_finite_entropy_in_onnx(exported) -> None:
    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    _, _, cam, entropy = session.run(list(OUTPUTS), {"image": np.zeros((2, 48, 48, 3), np.uint8)})
    assert np.isfinite(cam).all()
    assert np.isfinite(entropy).all()


def test_safetensors_and_its_card_make_the_network_again(run, exported) -> None:
    from safetensors.torch import load_file

    card = json.loads((exported / "model.json").read_text())
    backbone = Backbone(**card["backbone"])
    backbone.load_state_dict(load_file(exported / "model.safetensors"))
    trained = Detector.from_checkpoint(best_checkpoint(run)).backbone.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in backbone.state_dict().items())


def test_the_metadata_say_what_an_application_needs(run, exported) -> None:
    card = Detector.from_checkpoint(best_checkpoint(run)).card
    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["labels"]) == ["real", "synthetic"]
    assert json.loads(about["threshold"]) == card.threshold
    assert json.loads(about["temperature"]) == card.temperature
    assert about["license"] == "cc-by-nc-4.0"
    assert json.loads(about["image_size"]) == 48
    assert json.loads(about["run"])["train_generators"] == ["gan", "vae"]
    assert {name: about[name] for name in about} == {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in json.loads((exported / "model.json").read_text()).items()
    }


def test_the_model_card_has_the_figures_of_the_run(run, exported) -> None:
    text = (exported / "README.md").read_text()
    _, head, body = text.split("---", 2)
    data, result = yaml.safe_load(head), json.loads((run / "result.json").read_text())
    assert data["license"] == "cc-by-nc-4.0"
    (test, val) = data["model-index"][0]["results"]
    assert (test["dataset"]["split"], val["dataset"]["split"]) == ("test", "val")
    figures = {metric["name"]: metric["value"] for metric in test["metrics"]}
    assert figures == {
        "AUROC, by logit 1": result["test"]["auroc"],
        "AUROC, by margin": result["test"]["auroc_margin"],
        "AUROC, generators not seen in training, by logit 1": result["test"]["auroc_unseen"],
        "AUROC, generators not seen in training, by margin": result["test"]["auroc_unseen_margin"],
        "accuracy": result["test"]["accuracy"],
    }
    assert f"| test (12) | AUROC, by margin | {result['test']['auroc_margin']:.4f} |" in body
    for words in ("must not be used for", "model.onnx", "model.pt2", "model.safetensors", "gan, vae", "10 validation"):
        assert words in body
    assert "control" not in body
    assert "drawn" not in body
    about = json.loads((exported / "model.json").read_text())
    for kind in ("template", "shuffled control"):
        about["run"]["map_kind"] = kind
        replaced = " ".join(hub_card(about, []).split())
        assert f"never on test images. Where human maps are needed, training had {kind} maps, not the human" in replaced
    about["caveat"] = DetectorCard(run={"data": "decoy"}).caveat
    assert "test images. It was **trained on faces drawn by a program: what it says of" in " ".join(
        hub_card(about, []).split()
    )
    from huggingface_hub import ModelCard

    assert ModelCard(text).data.model_name.startswith("DROID")


WITHOUT_TORCH = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "saliency_entropy", "timm", "pandas"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_without_torch(model: Path, paths: list[Path]) -> list[list[str]]:
    script = ROOT / "experiments" / "examples" / "run_onnx.py"
    assert len(script.read_text().splitlines()) <= 30
    arguments = [sys.executable, "-c", WITHOUT_TORCH, script, model, *paths]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_the_example_says_how_it_is_called() -> None:
    script = ROOT / "experiments" / "examples" / "run_onnx.py"
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "run_onnx.py exported/model.onnx face.jpg" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_onnx_file_runs_without_torch(run, exported, photographs) -> None:
    detector = Detector.from_checkpoint(best_checkpoint(run))
    lines = run_without_torch(exported / "model.onnx", photographs)
    for line, (path, _, detection) in zip(lines, detector.judge(photographs), strict=True):
        difference = detection.logit_synthetic - detection.logit_real
        expected = 1 / (1 + np.exp(-difference / (detector.card.temperature or 1)))
        assert line[0] == str(path)
        assert float(line[1]) == pytest.approx(expected, abs=1e-4)
        if abs(difference - detector.card.threshold) > 1e-4:
            assert line[2] == detection.decision
        assert float(line[3].split()[2]) == pytest.approx(detection.cam_entropy, abs=2e-4)


def random_checkpoint(path: Path, name: str) -> Path:
    """A detector of this backbone with random weights, after BatchNorm has seen one batch."""
    config = OmegaConf.load(ROOT / "conf" / "backbone" / f"{name}.yaml")
    config = OmegaConf.merge(config, {"pretrained": False, "weights_package": None, "features": "pooled"})
    config = OmegaConf.to_container(OmegaConf.merge(config, {"double_forward": False}))
    torch.manual_seed(0)
    backbone = Backbone(**config).train()
    size = config["image_size"]
    with torch.no_grad():
        for module in backbone.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        backbone(torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8))
    weights = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
    torch.save({"detector": {"backbone": config, "class_index": "predicted"}, "state_dict": weights}, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_is_exported_and_runs_without_torch(tmp_path, photographs, name, caplog) -> None:
    caplog.set_level("INFO")
    checkpoint = random_checkpoint(tmp_path / "best.ckpt", name)
    export(configured(checkpoint, tmp_path / "out", images=str(photographs[0].parent)))
    assert [record.message.split(":")[0] for record in caplog.records if "within" in record.message] == [
        "onnx", "torch_export", "safetensors",
    ]  # fmt: skip
    detector = Detector.from_checkpoint(checkpoint)
    for line, (_, _, detection) in zip(
        run_without_torch(tmp_path / "out" / "model.onnx", photographs[:2]),
        detector.judge(photographs[:2]),
        strict=True,
    ):
        assert float(line[1]) == pytest.approx(detection.probability_synthetic, abs=1e-4)
        assert line[2] == "no threshold"
    assert "do not use it before you have measured it" in (tmp_path / "out" / "README.md").read_text()


# What is refused, in one sentence, with nothing written.


def refusal(config: DictConfig) -> str:
    with pytest.raises(UserError) as caught:
        export(config)
    assert "\n" not in str(caught.value)
    output = Path(config.output)
    assert not output.is_dir() or list(output.iterdir()) == []
    return str(caught.value)


@pytest.mark.parametrize("name", ["onnx", "torch_export", "safetensors"])
def test_a_file_that_disagrees_is_not_written(run, tmp_path, monkeypatch, name) -> None:
    class Other(exporting.ExportedDetector):
        def forward(self, image):
            logits, probability, cam, entropy = super().forward(image)
            return logits, probability, cam * 0.999, entropy

    monkeypatch.setattr(exporting, "ExportedDetector", Other)
    said = refusal(configured(run, tmp_path / "out", formats=[name]))
    assert said.startswith(f"{name}: cam differs from the checkpoint's by 1.0e-03, more than 1e-04, and nothing was")


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_library_is_named_with_what_installs_it(run, tmp_path, monkeypatch, missing) -> None:
    find = importlib.import_module

    def without(name: str) -> object:
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return find(name)

    monkeypatch.setattr(exporting.importlib, "import_module", without)
    said = refusal(configured(run, tmp_path / "out"))
    assert said == (
        f"formats=[onnx] needs {missing}, which is not installed: pip install 'saliency-entropy[export]', or leave "
        "onnx out of formats"
    )


def test_what_else_is_refused(run, tmp_path) -> None:
    assert refusal(configured(run, tmp_path / "out", formats=["tflite"])).startswith("formats is ['tflite']; give some")
    for seed in (0, 1):
        shutil.copytree(run / "checkpoints", tmp_path / "method" / f"seed{seed}" / "checkpoints")
    said = refusal(configured(tmp_path / "method", tmp_path / "out"))
    assert said == f"checkpoint={tmp_path}/method names 2 detectors; export one at a time"
    (tmp_path / "file").write_text("")
    assert refusal(configured(run, tmp_path / "file")).startswith(f"output={tmp_path}/file cannot be written to (")
    assert "does not exist" in refusal(configured(tmp_path / "none.ckpt", tmp_path / "out"))
    content = torch.load(best_checkpoint(run), weights_only=True)
    torch.save(content | {"model": content["model"] | {"run": {"test": 3}}}, tmp_path / "odd.ckpt")
    assert "describes no run of this package" in refusal(configured(tmp_path / "odd.ckpt", tmp_path / "out"))
    for value in content["state_dict"].values():
        if value.is_floating_point():
            value.fill_(float("nan"))
    torch.save(content, tmp_path / "nan.ckpt")
    assert "scores are not finite" in refusal(configured(tmp_path / "nan.ckpt", tmp_path / "out"))


def test_the_images_to_compare_on_may_be_given(run, tmp_path, faces, caplog) -> None:
    caplog.set_level("INFO")
    export(configured(run, tmp_path / "out", formats=["safetensors"], images=str(faces / "test")))
    assert f"of the checkpoint on 8 images of {faces}/test" in caplog.text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md", "model.json", "model.safetensors",
    ]  # fmt: skip
    assert "model.onnx" not in (tmp_path / "out" / "README.md").read_text()
    (tmp_path / "bad.png").write_text("no image")
    with pytest.raises(UserError, match=r"bad\.png is not an image"):
        export(configured(run, tmp_path / "again", images=str(tmp_path / "bad.png")))


def test_the_command_itself(run, tmp_path) -> None:
    command = [sys.executable, ROOT / "experiments" / "export.py", f"checkpoint={run}", "formats=[torch_export]"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "torch_export: within " in done.stdout
    assert "arning" not in done.stdout + done.stderr
    assert sorted(path.name for path in (tmp_path / "exported").iterdir()) == ["README.md", "model.pt2"]


def test_an_upright_image_is_what_the_example_sees(tmp_path, exported, run) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    ((_, probability, *_),) = run_without_torch(exported / "model.onnx", [tmp_path / "turned.png"])
    detector = Detector.from_checkpoint(best_checkpoint(run))
    upright = load_image(tmp_path / "turned.png", 48)[None]
    assert float(probability) == pytest.approx(said(detector, upright)[1][0], abs=1e-4)
