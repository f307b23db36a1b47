"""The examples of the losses outside of this package's training."""

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch

from saliency_entropy.losses import CrossEntropy, LogEntropy, LossSum, Prediction

EXAMPLES = Path(__file__).parents[1] / "experiments" / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_droid_in_a_plain_loop_of_fifteen_lines() -> None:
    import inspect

    train = example("plain_loop").train
    assert len(inspect.getsource(train).splitlines()) <= 15
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=2)
    images, labels = torch.randn(6, 3, 64, 64), torch.arange(6) % 2
    before = model.state_dict()["fc.weight"].clone()
    # The same step by the terms of the package, on NumPy's formula of the CAM.
    features = model.train().forward_features(images)
    logits = model.forward_head(features)
    weight = model.get_classifier().weight[logits.argmax(1)]
    cam = (weight[:, :, None, None] * features).sum(1)
    low, high = cam.amin((1, 2), keepdim=True), cam.amax((1, 2), keepdim=True)
    prediction = Prediction(logits, labels, (cam - low) / (high - low), torch.zeros_like(cam), torch.zeros(6) > 1)
    expected, _ = LossSum({"ce": CrossEntropy(0.5), "droid": LogEntropy(0.5)})(prediction)
    losses = train(model, [(images, labels)] * 3)
    assert losses[0] == pytest.approx(expected.item(), abs=1e-5)
    assert all(map(math.isfinite, losses))
    assert not torch.equal(model.state_dict()["fc.weight"], before)


def test_droid_cyborg_in_a_hugging_face_trainer(tmp_path) -> None:
    transformers = pytest.importorskip("transformers", reason="the Hugging Face Trainer is not installed")
    pytest.importorskip("accelerate", reason="the Hugging Face Trainer needs accelerate")
    module = example("hugging_face_trainer")
    torch.manual_seed(0)
    model = module.FocusedClassifier("test_resnet")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=3, per_device_train_batch_size=8, report_to="none", logging_steps=1, use_cpu=True,
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = transformers.Trainer(model, arguments, train_dataset=module.Noise())
    trained = trainer.train()
    assert trained.global_step == 3
    assert all(math.isfinite(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry)
    assert all(not torch.equal(value, before[name]) for name, value in model.state_dict().items() if "weight" in name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain_loop", "hugging_face_trainer"])
def test_an_example_runs_as_it_says(name: str) -> None:
    import subprocess

    if name == "hugging_face_trainer":
        pytest.importorskip("accelerate", reason="the Hugging Face Trainer is not installed")
    done = subprocess.run([sys.executable, EXAMPLES / f"{name}.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
