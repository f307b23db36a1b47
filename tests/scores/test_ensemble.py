"""Several detectors as one, and the detector beside the Trainer."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from saliency_entropy.data.images import load_image
from saliency_entropy.detector import Detection, Detector
from saliency_entropy.errors import UserError
from saliency_entropy.run.checkpoint import best_checkpoint
from saliency_entropy.run.model_file import ModelCard
from saliency_entropy.scores.ensemble import Ensemble, read_detector
from saliency_entropy.scores.named_files import listed_images, named_checkpoints


def test_a_detector_gives_the_scores_of_the_trainer_to_the_last_bit(trained: Path, faces: Path) -> None:
    folder = trained / "droid" / "seed0"
    table = pd.read_parquet(folder / "scores" / "test.parquet")
    detector = Detector.from_checkpoint(best_checkpoint(folder))
    judged = [detection for _, _, detection in detector.judge([faces / path for path in table["path"]], 8)]
    for name in ("logit_real", "logit_synthetic", "cam_entropy"):
        np.testing.assert_array_equal(np.float32([getattr(one, name) for one in judged]), table[name].to_numpy())
    # On the validation images the decisions err as often on real as on synthetic ones, as nearly as they can.
    val = pd.read_parquet(folder / "scores" / "val.parquet")
    decided = [one.decision for _, _, one in detector.judge([faces / path for path in val["path"]], 8)]
    wrong = np.array(decided) != val["label"].to_numpy()
    synthetic = (val["label"] == "synthetic").to_numpy()
    differences = (val["logit_synthetic"] - val["logit_real"]).to_numpy(dtype=float)
    gaps = [
        abs((differences[~synthetic] >= threshold).mean() - (differences[synthetic] < threshold).mean())
        for threshold in [*differences, np.inf]
    ]
    assert abs(wrong[~synthetic].mean() - wrong[synthetic].mean()) == pytest.approx(min(gaps))


class Fixed(Detector):
    """A detector that gives what it is told."""

    def __init__(self, difference: float, card: ModelCard, size: int = 32) -> None:
        self.card, self.difference, self.size = card, difference, size

    def __call__(self, images: torch.Tensor) -> list[Detection]:
        probability = float(1 / (1 + np.exp(-self.difference)))
        cam = np.full((2, 2), probability, np.float32)
        known = self.card.calibrated(self.difference), self.card.decision(self.difference)
        return [Detection(0.0, self.difference, probability, cam, probability, *known)] * len(images)


def ensemble(*members: Detector) -> Ensemble:
    together = Ensemble.__new__(Ensemble)
    together.members = list(members)
    return together


def sigmoid(value: float) -> float:
    return 1 / (1 + np.exp(-value))


def test_the_mean_of_an_ensemble_by_hand() -> None:
    first = Fixed(2.0, ModelCard(threshold=1.0, temperature=2.0, problem=""))
    second = Fixed(-1.0, ModelCard(threshold=-0.5, temperature=4.0, problem=""))
    (one,) = ensemble(first, second)(torch.zeros(1))
    softmax = [sigmoid(2.0), sigmoid(-1.0)]
    assert one.probability_synthetic == pytest.approx(np.mean(softmax))
    assert one.spread == pytest.approx(abs(softmax[0] - softmax[1]) / np.sqrt(2))
    assert one.calibrated_probability == pytest.approx((sigmoid(1.0) + sigmoid(-0.25)) / 2)
    assert (one.logit_synthetic, one.cam[0, 0]) == (0.5, pytest.approx(np.mean(softmax)))
    # 0.584 against thresholds of (0.622 + 0.469) / 2 = 0.546.
    assert one.decision == "synthetic"
    lower = Fixed(-3.0, second.card)
    assert ensemble(first, lower)(torch.zeros(1))[0].decision == "real"  # 0.526


def test_an_ensemble_is_calibrated_and_decides_only_if_all_members_do() -> None:
    whole = Fixed(2.0, ModelCard(threshold=1.0, temperature=2.0, problem=""))
    plain = Fixed(2.0, ModelCard(threshold=1.0))
    (one,) = ensemble(whole, plain)(torch.zeros(1))
    assert one.calibrated_probability is None
    assert one.decision == "synthetic"
    (one,) = ensemble(whole, Fixed(2.0, ModelCard()))(torch.zeros(1))
    assert one.decision is None


def test_the_runs_of_a_method_are_named_in_four_ways(study: Path, monkeypatch) -> None:
    paths = [best_checkpoint(study / "droid" / f"seed{seed}") for seed in (0, 1)]
    assert named_checkpoints(str(study / "droid")) == paths
    assert named_checkpoints([str(paths[0]), str(study / "droid" / "seed1"), str(paths[0])]) == paths
    assert named_checkpoints(f"{study}/droid/seed?") == paths
    assert named_checkpoints(f"{study}/*/seed0/checkpoints/best.ckpt") == [
        best_checkpoint(study / method / "seed0") for method in ("cross_entropy", "droid")
    ]
    assert isinstance(read_detector(str(study / "droid"), "cpu"), Ensemble)
    assert type(read_detector(str(study / "droid" / "seed1"), "cpu")) is Detector
    with pytest.raises(UserError, match=r"checkpoint no\*\.ckpt does not exist"):
        read_detector("no*.ckpt", "cpu")
    with pytest.raises(UserError, match="checkpoint names no file"):
        read_detector([], "cpu")


def test_detectors_that_see_images_in_other_ways_are_no_ensemble(study: Path, train_small, tmp_path) -> None:
    train_small(tmp_path / "seed0", "method=droid", "trainer.max_epochs=1", "backbone.image_size=64")
    with pytest.raises(UserError, match=r"see images of 48 px .* and 64 px .*, and judge no image together"):
        read_detector([str(study / "droid" / "seed0"), str(tmp_path / "seed0")], "cpu")


def test_an_ensemble_judges_files(study: Path, faces: Path) -> None:
    members = [Detector.from_checkpoint(best_checkpoint(study / "droid" / f"seed{seed}")) for seed in (0, 1)]
    paths = sorted((faces / "test").iterdir())
    together = list(read_detector(str(study / "droid"), "cpu").judge(paths, 5))
    apart = [list(member.judge(paths, 5)) for member in members]
    for (path, pixels, mean), first, second in zip(together, *apart, strict=True):
        np.testing.assert_array_equal(pixels, load_image(path, 48))
        assert mean.probability_synthetic == pytest.approx(
            (first[2].probability_synthetic + second[2].probability_synthetic) / 2
        )
        assert mean.focus_area == pytest.approx(np.sqrt(first[2].focus_area * second[2].focus_area))


def test_a_pattern_names_images_and_folders(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.jpg", "a/sub/3.png", "b/4.png", "a/notes.txt", "out/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nothing")

    def found(pattern: str) -> list[str]:
        return [str(path.relative_to(tmp_path)) for path in listed_images(tmp_path / pattern, tmp_path / "out")[0]]

    assert found("*/*.png") == ["a/1.png", "a/gone.png", "b/4.png"]
    assert found("[ab]") == ["a/1.png", "a/2.jpg", "a/gone.png", "a/sub/3.png", "b/4.png"]
    assert found("**/3.png") == ["a/sub/3.png"]
    (tmp_path / "[b].png").write_text("")
    assert found("[b].png") == ["[b].png"]
    with pytest.raises(UserError, match=r"x\*\.png does not exist; give an image, a folder, a pattern"):
        found("x*.png")


def test_an_older_study_is_still_complete(study: Path) -> None:
    """A checkpoint of a version that wrote no card, beside its scores."""
    best = best_checkpoint(study / "droid" / "seed0")
    card = Detector.from_checkpoint(best).card
    copy = Path(shutil.copytree(study / "droid" / "seed0", study / "droid" / "seed7"))
    content = torch.load(best_checkpoint(copy), weights_only=True)
    del content["model"]
    torch.save(content, best_checkpoint(copy))
    result = json.loads((copy / "result.json").read_text())
    del result["checkpoint"]  # versions before that did not keep the digest, either
    (copy / "result.json").write_text(json.dumps(result))
    assert Detector.from_checkpoint(best_checkpoint(copy)).card == card
