"""What makes best.ckpt complete: threshold and temperature by hand, and files that are damaged, old, new or hostile."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from saliency_entropy.detector import Detector
from saliency_entropy.errors import UserError
from saliency_entropy.run.checkpoint import best_checkpoint, file_digest
from saliency_entropy.run.model_file import FORMAT, KEY, ModelCard, complete_best, model_card
from saliency_entropy.training import train


def scores(real: list[float], synthetic: list[float]) -> pd.DataFrame:
    """A score table by the differences of its logits."""
    differences = np.array([*real, *synthetic])
    labels = ["real"] * len(real) + ["synthetic"] * len(synthetic)
    return pd.DataFrame({"label": labels, "logit_real": 1.0, "logit_synthetic": differences + 1.0})


REAL, SYNTHETIC = [-2.0, -1.0, 0.5], [-0.5, 1.0, 2.0]


def test_threshold_and_temperature_by_hand() -> None:
    card = model_card({"method": "droid", "wall_seconds": 3.0, "checkpoint": "a"}, scores(REAL, SYNTHETIC))
    assert card.threshold == 0.5  # one of three real images is called synthetic, one of three synthetic ones real
    margins = np.array([2.0, 1.0, -0.5, -0.5, 1.0, 2.0])
    grid = np.arange(0.1, 10, 0.001)
    best = grid[np.argmin([np.log1p(np.exp(-margins / temperature)).mean() for temperature in grid])]
    assert card.temperature == pytest.approx(best, abs=0.002)
    assert (card.problem, card.validation_images, card.run) == ("", 6, {"method": "droid"})
    assert card.decision(0.5) == "synthetic"
    assert card.decision(0.4999) == "real"
    assert card.decision(float("nan")) is None
    assert card.calibrated(1.3) == pytest.approx(1 / (1 + np.exp(-1.3 / best)), abs=1e-3)
    assert card.calibrated(-1e6) == 0.0
    assert card.probability_threshold(True) == card.calibrated(0.5)
    assert card.probability_threshold(False) == pytest.approx(1 / (1 + np.exp(-0.5)))


def test_what_validation_cannot_fix_is_missing_and_said() -> None:
    separated = model_card({}, scores([-2.0, -1.0], [1.0, 2.0]))
    assert (separated.threshold, separated.temperature) == (1.0, None)
    assert separated.problem == "no temperature fits its validation scores best"
    for table, why in (
        (scores([-1.0, 2.0], []), "no image is synthetic"),
        (scores([1.0], [1.0]), "all scores are equal"),
        (scores([1.0, float("nan")], [2.0]), "1 of 3 scores are not finite"),
    ):
        card = model_card({}, table)
        assert (card.threshold, card.temperature) == (None, None)
        assert card.problem == f"of its validation images, {why}"
        assert card.decision(1.0) is card.calibrated(1.0) is card.probability_threshold(False) is None


@pytest.fixture(scope="module")
def trained(train_small, tmp_path_factory) -> Path:
    return train_small(tmp_path_factory.mktemp("complete") / "method" / "seed0", "method=cross_entropy")


def test_a_run_leaves_a_complete_model_file(trained: Path) -> None:
    best = best_checkpoint(trained)
    result = json.loads((trained / "result.json").read_text())
    assert result["checkpoint"] == file_digest(best)
    card = Detector.from_checkpoint(best).card
    assert card == model_card(result, pd.read_parquet(trained / "scores" / "val.parquet"))
    assert card.validation_images == 10
    assert card.threshold is not None
    assert card.run["versions"] == result["versions"]
    assert card.run["test"] == result["test"]
    assert {"checkpoint", "wall_seconds", "finished"} & set(card.run) == set()


def test_the_weights_stay_and_the_same_run_leaves_the_same_file(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "seed0"))
    best, before = best_checkpoint(folder), torch.load(best_checkpoint(folder), weights_only=True)
    content = best.read_bytes()
    result = json.loads((folder / "result.json").read_text())
    complete_best(folder, result, pd.read_parquet(folder / "scores" / "val.parquet"))
    assert best.read_bytes() == content  # a run that was killed just before result.json does this again
    resumed = torch.load(folder / "checkpoints" / "resume.ckpt", weights_only=True)
    assert before["detector"] == resumed["detector"]
    if result["best_epoch"] == result["epochs"] - 1:
        assert all(torch.equal(value, before["state_dict"][name]) for name, value in resumed["state_dict"].items())


def test_a_run_that_is_killed_before_its_result_leaves_the_same_file(trained, configure, tmp_path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "seed0"))
    content = best_checkpoint(folder).read_bytes()
    (folder / "result.json").unlink()
    train(configure("method=cross_entropy"), folder)
    assert best_checkpoint(folder).read_bytes() == content
    assert json.loads((folder / "result.json").read_text())["checkpoint"] == file_digest(best_checkpoint(folder))


# Files of other versions.


def without_card(folder: Path) -> Path:
    """The run as an earlier version left it; returns its checkpoint."""
    best = best_checkpoint(folder)
    content = torch.load(best, weights_only=True)
    del content[KEY]
    torch.save(content, best)
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"checkpoint": file_digest(best)}))
    return best


def test_an_older_checkpoint_gets_it_from_its_run(trained: Path, tmp_path: Path) -> None:
    best = without_card(Path(shutil.copytree(trained, tmp_path / "seed0")))
    complete = Detector.from_checkpoint(best_checkpoint(trained)).card
    content = best.read_bytes()
    assert Detector.from_checkpoint(best).card == complete
    assert best.read_bytes() == content  # its digest is in score files
    elsewhere = tmp_path / "best.ckpt"
    elsewhere.write_bytes(content)
    assert Detector.from_checkpoint(elsewhere).card == ModelCard()
    # Other weights, put in its place.
    torch.save(torch.load(best, weights_only=True) | {"other": 1}, best)
    assert Detector.from_checkpoint(best).card == ModelCard()


@pytest.mark.parametrize("name", ["result.json", "scores/val.parquet"])
def test_a_damaged_run_does_not_keep_its_detector_from_use(trained: Path, tmp_path: Path, name: str) -> None:
    best = without_card(Path(shutil.copytree(trained, tmp_path / "seed0")))
    (tmp_path / "seed0" / name).write_bytes(b"no")
    card = Detector.from_checkpoint(best).card
    assert card.threshold is None
    assert "the files of its run cannot be read" in card.problem


ENDLESS: list = []
for _ in range(40):
    ENDLESS = [ENDLESS, ENDLESS]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": FORMAT + 1}, "is of a newer version of saliency-entropy than this one; install that version"),
        ({"format": None}, "is of a newer version"),
        ({"threshold": "high"}, "describes its run in a way that cannot be used ("),
        ({"threshold": float("inf")}, "threshold Input should be a finite number"),
        ({"temperature": 0.0}, "temperature Input should be greater than 0"),
        ({"temperature": True}, "temperature Input should be a valid number"),
        ({"run": [1]}, "run Input should be a valid dictionary"),
        ({"run": {"a": ENDLESS}}, "describes its run with more values than one has"),
        ({"further": 1}, "cannot be used"),
    ],
)
def test_a_card_that_cannot_be_used_is_refused(trained, tmp_path, changes, sentence) -> None:
    content = torch.load(best_checkpoint(trained), weights_only=True)
    torch.save(content | {KEY: content[KEY] | changes}, tmp_path / "best.ckpt")
    with pytest.raises(UserError) as caught:
        Detector.from_checkpoint(tmp_path / "best.ckpt")
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}/best.ckpt ")
    assert "\n" not in str(caught.value)


def test_a_card_of_another_kind_is_refused(trained, tmp_path) -> None:
    content = torch.load(best_checkpoint(trained), weights_only=True)
    torch.save(content | {KEY: 3}, tmp_path / "best.ckpt")
    with pytest.raises(UserError, match="cannot be used"):
        Detector.from_checkpoint(tmp_path / "best.ckpt")
