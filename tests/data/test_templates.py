"""Template maps: as focused as human maps, over the features, and the same in every run."""

import os
import subprocess
import sys

import numpy as np

from saliency_entropy.data.human_maps import templates
from saliency_entropy.data.human_maps.loading import on_grid
from saliency_entropy.data.human_maps.templates import SIZE, template_map


def grids(count: int) -> np.ndarray:
    return np.stack([on_grid(template_map(f"train/{index}.jpg"), (7, 7), "template") for index in range(count)])


def test_mean_entropy_is_that_of_human_maps() -> None:
    maps = grids(200).reshape(200, -1).astype(np.float64)
    p = maps / maps.sum(axis=1, keepdims=True)
    entropy = -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=1)
    assert 2.95 < entropy.mean() < 3.05
    assert entropy.min() > 2.7
    assert entropy.max() < 3.3


def test_the_focus_is_on_eyes_and_mouth() -> None:
    mean = np.mean([np.asarray(template_map(str(index)), dtype=float) for index in range(100)], axis=0)
    at = {name: mean[round(y * SIZE), round(x * SIZE)] for name, x, y in [
        ("left eye", 0.36, 0.47), ("right eye", 0.64, 0.47), ("mouth", 0.5, 0.75), ("forehead", 0.5, 0.15),
        ("chin", 0.5, 0.97), ("left edge", 0.03, 0.5), ("right edge", 0.97, 0.5),
    ]}  # fmt: skip
    assert min(at["left eye"], at["right eye"], at["mouth"]) > 60
    assert max(at["forehead"], at["chin"], at["left edge"], at["right edge"]) < 10


def test_jitter_differs_by_path_and_is_the_same_in_another_process() -> None:
    assert template_map("a.jpg").tobytes() != template_map("b.jpg").tobytes()
    # The file alone: importing the package takes seconds.
    code = f"import runpy; print(sum(runpy.run_path({templates.__file__!r})['template_map']('a.jpg').tobytes()))"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(run.stdout) == sum(template_map("a.jpg").tobytes())
