"""The dashboard's panels, as W&B would get them, and what is said without a key."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is not installed: extra wandb")

from saliency_entropy.wandb_dashboard import workspace

ROOT = Path(__file__).parents[1]


def test_panels_group_by_method_and_show_the_figures_that_runs_log() -> None:
    view = workspace("p", "e", "demo", ["gan.v2"])
    text = json.dumps(json.loads(view._to_model().model_dump_json(by_alias=True)))
    for key in ("train/cam_entropy", "best/test_auroc", "best/test_cam_entropy", "best/test_auroc/gan_v2", "val/cam"):
        assert key in text
    entropy = view.sections[0].panels[0]._to_model().config
    assert entropy.x_axis == "epoch"
    assert entropy.group_by == "method.value.name"
    assert [section.name for section in view.sections] == ["Methods", "AUROC by generator", "Where the detectors look"]
    assert "demo" in view.runset_settings.filters


def test_without_a_key_one_sentence(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    ended = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "dashboard.py"), "entity=e"],
        env=environment | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "there is no key: wandb login, or set WANDB_API_KEY" in ended.stderr
    assert "Traceback" not in ended.stderr
