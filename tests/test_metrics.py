"""AUROC against the rank-sum statistic, and the figures of an epoch against one pass over all images."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import mannwhitneyu

from saliency_entropy.functional import spatial_entropy
from saliency_entropy.losses import Prediction
from saliency_entropy.metrics import AUROC, SplitMetrics, auroc, is_known, seen_in_training, unseen_images


def rank_sum_auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    positive, negative = scores[labels == 1], scores[labels == 0]
    return mannwhitneyu(positive, negative).statistic / (len(positive) * len(negative))


def test_auroc_by_hand():
    # Of 2 x 3 pairs, the synthetic one scores higher in 4 and equal in 1.
    scores = np.array([0.1, 0.5, 0.9, 0.5, 1.2])
    labels = np.array([0, 0, 0, 1, 1])
    assert auroc(scores, labels) == pytest.approx((1 + 0.5 + 3) / 6)


@pytest.mark.parametrize("spread", [1.0, 30.0, 1e4])
def test_auroc_is_the_rank_sum_statistic_for_logits_of_any_size(spread):
    """With a spread of 30 a float32 sigmoid saturates into ties at both ends."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 2000)
    scores = ((random.normal(size=2000) + labels) * spread).astype(np.float32)
    scores[:200] = np.round(scores[:200])
    assert auroc(scores, labels) == pytest.approx(rank_sum_auroc(scores, labels), abs=1e-6)
    metric = AUROC()
    for part in np.array_split(np.arange(2000), 7):
        metric.update(torch.from_numpy(scores[part]), torch.from_numpy(labels[part]))
    assert metric.compute().item() == pytest.approx(rank_sum_auroc(scores, labels), abs=1e-6)


def test_one_class_has_no_auroc():
    assert math.isnan(auroc(np.array([0.1, 0.2]), np.array([1, 1])))


@pytest.mark.parametrize(
    ("generator", "seen"),
    [("srefi", "yes"), ("progan", "no"), ("srefi+stylegan2", "yes"), ("srefi+progan", "not known"),
     ("progan+stargan", "no"), ("", "not known"), ("stylegan", "no"), ("nan", "not known"),
     ("None", "not known"), (" Unknown", "not known"), ("srefi+?", "not known"), ("progan+null", "not known")],
)  # fmt: skip
def test_whether_a_generator_was_in_training(generator, seen):
    assert seen_in_training(generator, ["srefi", "stylegan2"]) == seen


def test_unseen_images_are_the_synthetic_ones_of_generators_known_not_to_be_in_training():
    table = pd.DataFrame(
        {
            "label": ["real", "synthetic", "synthetic", "synthetic", "synthetic"],
            "generator": ["", "", "progan", "srefi+progan", "srefi"],
        }
    )
    assert unseen_images(table, ["srefi"]).tolist() == [False, False, True, False, False]


def test_a_score_that_is_not_a_number_has_no_auroc():
    assert math.isnan(auroc(np.array([0.1, float("nan"), 0.3]), np.array([0, 1, 1])))


@pytest.mark.parametrize(("images", "right"), [(19, 15), (13, 7), (100, 15), (20, 13)])
def test_epochs_with_equally_many_right_have_equal_accuracy_to_the_last_bit(images: int, right: int):
    """The best epoch is the last of equals; a mean of means would tell them apart by rounding."""

    def accuracy(sizes: list[int]) -> float:
        correct = torch.arange(images) < right
        metrics = SplitMetrics([], [])
        for part in torch.split(torch.arange(images), sizes):
            labels = torch.zeros(len(part), dtype=torch.long)
            logits = torch.stack([correct[part].float(), 1 - correct[part].float()], dim=1)
            maps = torch.rand(len(part), 2, 2)
            prediction = Prediction(logits, labels, maps, maps, torch.zeros(len(part), dtype=torch.bool))
            metrics.update(torch.tensor(0.0), {}, prediction)
        return metrics.compute()["accuracy"].item()

    assert accuracy([images]) == accuracy([images - 3, 3]) == accuracy([1] * images)
    assert accuracy([images]) == np.float32(right) / np.float32(images)


def test_figures_of_an_epoch_do_not_depend_on_how_it_is_cut_into_batches():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(10, 2, generator=generator)
    labels = torch.tensor([0, 1] * 5)
    maps, human_maps = torch.rand(2, 10, 7, 7, generator=generator)
    has_map = torch.tensor([True, False, True, True, False, False, False, True, False, False])
    human_maps[~has_map] = 0
    values = torch.arange(10.0)

    metrics = SplitMetrics(["term", "human"], ["human"])
    for part in (slice(0, 4), slice(4, 7), slice(7, 10)):
        kept = has_map[part]
        human = values[part][kept].mean() if kept.any() else torch.tensor(0.0)
        metrics.update(
            values[part].mean(),
            {"term": values[part].mean(), "human": human},
            Prediction(logits[part], labels[part], maps[part], human_maps[part], kept),
        )
    figures = {name: value.item() for name, value in metrics.compute().items()}
    assert figures == pytest.approx(
        {
            "loss": 4.5,
            "term": 4.5,
            "human": (0 + 2 + 3 + 7) / 4,
            "accuracy": (logits.argmax(1) == labels).float().mean().item(),
            "auroc": rank_sum_auroc(logits[:, 1].numpy(), labels.numpy()),
            "auroc_margin": rank_sum_auroc((logits[:, 1] - logits[:, 0]).numpy(), labels.numpy()),
            "cam_entropy": spatial_entropy(maps).mean().item(),
            "human_entropy": spatial_entropy(human_maps[has_map]).mean().item(),
            "human_map_share": 0.4,
        }
    )
    metrics.reset()
    assert all(metric.scores == [] for metric in metrics.aurocs.values())


@pytest.mark.parametrize(
    ("generator", "seen"),
    [
        ("ada", "relative"),
        ("ada+e4e", "relative"),
        ("ada+new", "not known"),
        ("ada+stylegan2", "not known"),
        ("new", "no"),
    ],
)
def test_a_relative_of_a_training_generator_is_neither_seen_nor_unseen(generator, seen):
    assert seen_in_training(generator, ["stylegan2"], ["ada", "e4e"]) == seen
    table = pd.DataFrame({"label": ["synthetic"], "generator": [generator]})
    assert unseen_images(table, ["stylegan2"], ["ada", "e4e"]).tolist() == [seen == "no"]


@pytest.mark.parametrize("name", ["", "nan", "None", "UNKNOWN", " unknown ", "?"])
def test_names_that_say_that_a_generator_is_not_known(name: str) -> None:
    assert not is_known(name)
    assert is_known("StyleGAN2")
    assert seen_in_training(f"StyleGAN2+{name}" if name else "", ["StyleGAN2"]) == "not known"
