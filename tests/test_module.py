"""The module against NumPy: whose CAM, which figures, one forward a step."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from scipy.special import log_softmax
from scipy.stats import entropy, pearsonr

from saliency_entropy.cam import CAM_CLASSES, detector_cam
from saliency_entropy.data import FaceBatch, FaceDataModule
from saliency_entropy.errors import UserError
from saliency_entropy.module import DetectorModule
from saliency_entropy.training import build

METHODS = ("cross_entropy", "cyborg", "hseb", "fmmmse", "droid", "droid_cyborg")
Built = tuple[DetectorModule, FaceDataModule]


@pytest.fixture
def built(configure: Callable[..., DictConfig]) -> Callable[..., Built]:
    def make(*overrides: str) -> Built:
        torch.manual_seed(3)
        cfg = configure(*overrides)
        return build(cfg, OmegaConf.to_container(cfg, resolve=True))

    return make


def first_batch(data: FaceDataModule) -> FaceBatch:
    return next(iter(data.train_dataloader()))


@torch.no_grad()
def balance(module: DetectorModule, batch: FaceBatch) -> None:
    """Set the bias so that half of the images are predicted to be real."""
    logits = module.backbone(batch.image).logits
    module.backbone.net.get_classifier().bias[0] += (logits[:, 1] - logits[:, 0]).median() + 1e-3
    assert 0 < module.backbone(batch.image).logits.argmax(dim=1).sum() < len(logits)


def numpy_maps(module: DetectorModule, batch: FaceBatch, class_index: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and maps scaled to [0, 1], by the equations."""
    with torch.no_grad():
        logits, features, weight = (part.double().numpy() for part in module.backbone(batch.image))
    by_class = {
        "predicted": weight[logits.argmax(axis=1)],
        "true": weight[batch.label.numpy()],
        "synthetic": np.stack([weight[1]] * len(logits)),
        "difference": np.stack([weight[1] - weight[0]] * len(logits)),
    }
    cams = np.einsum("bc,bchw->bhw", by_class[class_index], features)
    low, high = cams.min(axis=(1, 2), keepdims=True), cams.max(axis=(1, 2), keepdims=True)
    return logits, (cams - low) / (high - low)


def entropies(maps: np.ndarray) -> np.ndarray:
    return entropy(maps.reshape(len(maps), -1), axis=1)


def numpy_terms(logits: np.ndarray, maps: np.ndarray, batch: FaceBatch) -> dict[str, float]:
    """The terms of METHODS' table, without their weights."""
    human, has_map = batch.human_map.double().numpy(), batch.has_map.numpy()
    labels = batch.label.numpy()
    return {
        "cross_entropy": -log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean(),
        "human_saliency": ((maps - human)[has_map] ** 2).mean(),
        "entropy_match": (entropies(maps[has_map]).mean() - entropies(human[has_map]).mean()) ** 2,
        "entropy": entropies(maps).mean(),
        "log_entropy": np.log(entropies(maps)).mean(),
    }


TOTALS: dict[str, Callable[[dict[str, float]], float]] = {
    "cross_entropy": lambda t: t["cross_entropy"],
    "cyborg": lambda t: 0.5 * t["cross_entropy"] + 0.5 * t["human_saliency"],
    "hseb": lambda t: 0.5 * t["cross_entropy"] + 0.5 * t["entropy_match"],
    "fmmmse": lambda t: 0.5 * t["cross_entropy"] + 0.5 * t["entropy"],
    "droid": lambda t: 0.5 * t["cross_entropy"] + 0.5 * t["log_entropy"],
    "droid_cyborg": lambda t: 0.5 * t["cross_entropy"] + 0.5 * t["human_saliency"] + 0.3 * t["log_entropy"],
}


@pytest.mark.parametrize("class_index", CAM_CLASSES)
def test_whose_map_is_taken(built: Callable[..., Built], class_index: str) -> None:
    module, data = built(f"protocol.class_index={class_index}")
    batch = first_batch(data)
    balance(module.eval(), batch)
    _, expected = numpy_maps(module, batch, class_index)
    np.testing.assert_allclose(module(batch).maps.detach().numpy(), expected, atol=1e-5)


def test_the_four_choices_differ(built: Callable[..., Built]) -> None:
    """Else the test above could pass with one map for all."""
    module, data = built()
    batch = first_batch(data)
    balance(module.eval(), batch)
    maps = [numpy_maps(module, batch, class_index)[1] for class_index in CAM_CLASSES]
    assert len({one.round(6).tobytes() for one in maps}) == len(CAM_CLASSES)


def test_another_class_index_is_refused(built: Callable[..., Built]) -> None:
    module, data = built()
    module.class_index = "real"
    with pytest.raises(UserError, match="'real'; choose one of predicted, true, synthetic, difference"):
        module(first_batch(data))


def test_the_mean_of_the_map_and_the_bias_make_the_logit(built: Callable[..., Built]) -> None:
    module, data = built()
    batch = first_batch(data)
    for training in (True, False):
        module.train(training)
        output = module.backbone(batch.image)
        bias = module.backbone.net.get_classifier().bias
        chosen = output.logits.argmax(dim=1)
        means = detector_cam(output, "predicted").mean(dim=(1, 2)) + bias[chosen]
        torch.testing.assert_close(means, output.logits[torch.arange(len(chosen)), chosen], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("protocol", "forwards"), [("paper", 1), ("author", 2)])
def test_forwards_a_step(
    built: Callable[..., Built], monkeypatch: pytest.MonkeyPatch, protocol: str, forwards: int
) -> None:
    module, data = built(f"protocol={protocol}")
    batch = first_batch(data)
    original, calls = module.backbone.net.forward_features, []
    monkeypatch.setattr(module.backbone.net, "forward_features", lambda x: calls.append(1) or original(x))
    module.training_step(batch, 0).backward()
    assert len(calls) == forwards
    assert all(parameter.grad is not None for parameter in module.backbone.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_a_step_is_the_equation_of_the_method(built: Callable[..., Built], method: str) -> None:
    module, data = built(f"method={method}")
    batch = first_batch(data)
    assert not batch.has_map.all()  # the mean over images with a map is not the mean over all
    logits, maps = numpy_maps(module.train(), batch, "predicted")
    terms = numpy_terms(logits, maps, batch)
    total = module.training_step(batch, 0)
    assert total.item() == pytest.approx(TOTALS[method](terms), rel=1e-4)
    logged = {name: value.item() for name, value in module.train_metrics.compute().items()}
    for name in module.loss.terms:
        assert logged[name] == pytest.approx(terms[name], rel=1e-3, abs=1e-6), name
    assert logged["loss"] == pytest.approx(TOTALS[method](terms), rel=1e-4)
    assert logged["cam_entropy"] == pytest.approx(entropies(maps).mean(), rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_the_table_of_epochs(train_small: Callable[..., Path], built, tmp_path: Path, method: str) -> None:
    """The last row's validation figures are those of the last weights; of cross-entropy the CAM entropy too."""
    overrides = (f"method={method}", "data.eval_batch_size=10")
    folder = train_small(tmp_path, *overrides)
    table = pd.read_csv(folder / "metrics.csv")
    assert table["epoch"].tolist() == [0, 1]
    module, data = built(*overrides)
    figures = {
        "loss",
        "accuracy",
        "auroc",
        "auroc_margin",
        "cam_entropy",
        "human_entropy",
        "human_map_share",
        *module.loss.terms,
    }
    assert set(table) == {"epoch"} | {f"{split}/{name}" for split in ("train", "val") for name in figures}
    assert np.isfinite(table).all(axis=None)

    module.load_state_dict(torch.load(folder / "checkpoints" / "resume.ckpt", weights_only=True)["state_dict"])
    batch = next(iter(data.val_dataloader()))
    logits, maps = numpy_maps(module.eval(), batch, "predicted")
    terms = numpy_terms(logits, maps, batch)
    expected = {name: terms[name] for name in module.loss.terms} | {
        "loss": TOTALS[method](terms),
        "accuracy": (logits.argmax(axis=1) == batch.label.numpy()).mean(),
        "cam_entropy": entropies(maps).mean(),
        "human_entropy": entropies(batch.human_map.numpy()[batch.has_map.numpy()]).mean(),
        "human_map_share": 0.7,
    }
    last = table.iloc[-1]
    assert {name: last[f"val/{name}"] for name in expected} == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_the_rows_of_the_score_table(built: Callable[..., Built]) -> None:
    module, data = built()
    batch = first_batch(data)
    logits, maps = numpy_maps(module.eval(), batch, "predicted")
    with torch.no_grad():
        columns = {name: column.numpy() for name, column in module.predict_step(batch, 0).items()}
    human, has_map = batch.human_map.numpy(), batch.has_map.numpy()
    assert 0 < has_map.sum() < len(has_map)
    np.testing.assert_array_equal(columns["row"], batch.row.numpy())
    np.testing.assert_allclose(columns["logit_real"], logits[:, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(columns["logit_synthetic"], logits[:, 1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(columns["cam_entropy"], entropies(maps), rtol=1e-4)
    mse = np.where(has_map, ((maps - human) ** 2).mean(axis=(1, 2)), np.nan)
    np.testing.assert_allclose(columns["cam_human_mse"], mse, rtol=1e-4)
    correlation = [
        pearsonr(cam.ravel(), map_.ravel()).statistic if has else np.nan
        for cam, map_, has in zip(maps, human, has_map, strict=True)
    ]
    np.testing.assert_allclose(columns["cam_human_correlation"], correlation, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_mixed_precision_keeps_maps_and_losses_in_float32(built: Callable[..., Built], method: str) -> None:
    module, data = built(f"method={method}")
    batch = first_batch(data)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = module(batch)
        total, terms = module.loss(prediction)
        scored = module.predict_step(batch, 0)
        assert module.backbone(batch.image).features.dtype == torch.bfloat16
    assert prediction.logits.dtype == prediction.maps.dtype == torch.float32
    assert {value.dtype for value in (total, *terms.values())} == {torch.float32}
    assert {column.dtype for name, column in scored.items() if name not in ("row", "digest")} == {torch.float32}
    total.backward()
    gradients = torch.cat([parameter.grad.flatten() for parameter in module.backbone.parameters()])
    assert total.isfinite()
    assert gradients.isfinite().all()
    assert gradients.abs().max() > 0


def test_a_run_in_mixed_precision(train_small: Callable[..., Path], tmp_path: Path) -> None:
    folder = train_small(tmp_path, "trainer.precision=bf16-mixed", "trainer.max_epochs=1")
    assert np.isfinite(pd.read_csv(folder / "metrics.csv")).all(axis=None)
    scores = pd.read_parquet(folder / "scores" / "test.parquet")
    assert scores[["logit_real", "logit_synthetic", "cam_entropy"]].dtypes.eq(np.float32).all()


def parameters_after_a_step(module: DetectorModule, batch: FaceBatch) -> Iterator[torch.Tensor]:
    optimizer = module.configure_optimizers()["optimizer"]
    module.training_step(batch, 0).backward()
    optimizer.step()
    yield from (parameter.detach().clone() for parameter in module.backbone.parameters())


def test_the_terms_move_the_weights(built: Callable[..., Built]) -> None:
    """The maps are not detached: with the classification term at weight 0, DROID still learns."""
    module, data = built("method=droid", "loss.terms.cross_entropy.weight=0.0")
    before = [parameter.detach().clone() for parameter in module.backbone.parameters()]
    after = list(parameters_after_a_step(module, first_batch(data)))
    changed = [not torch.equal(one, other) for one, other in zip(before, after, strict=True)]
    assert sum(changed) > len(changed) / 2
