"""The dashboard's panels, as W&B would get them, and what is said without a key."""

import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
import wandb
from json_answers import JsonAnswers
from omegaconf import OmegaConf

pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is not installed: extra wandb")

import wandb_workspaces.workspaces as ws

from saliency_entropy.tracking.dashboard import save_dashboard, scored_generators, workspace
from saliency_entropy.tracking.wandb_run import ROC_KEYS, summary

ROOT = Path(__file__).parents[2]

AREAS = ("test_auroc", "test_auroc_margin", "test_auroc_unseen", "test_auroc_unseen_margin")


@dataclass
class Saved:
    """What W&B would get."""

    panels: dict[str, list[dict]]
    runs: dict

    @classmethod
    def of(cls, view: ws.Workspace) -> "Saved":
        section = json.loads(view._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))["section"]
        panels = {part["name"]: part["panels"] for part in section["panelBankConfig"]["sections"]}
        return cls(panels, section["runSets"][0])

    @property
    def filters(self) -> list[tuple[str, str, str, str]]:
        rows = self.runs["filters"]["filters"]
        return [(row["key"]["section"], row["key"]["name"], row["op"], row["value"]) for row in rows]


def test_the_methods_are_compared() -> None:
    saved = Saved.of(workspace("p", "e", "demo", []))
    assert list(saved.panels) == ["Methods", "Where the detectors look"]
    lines, boxes, dots = (
        [panel["config"] for panel in saved.panels["Methods"] if panel["viewType"] == kind]
        for kind in ("Run History Line Plot", "Bar Chart", "Scatter Plot")
    )
    assert [(line["xAxis"], *line["metrics"], line["groupBy"], line["groupArea"]) for line in lines] == [
        ("epoch", "train/cam_entropy", "method.value.name", "stddev"),
        ("epoch", "val/auroc", "method.value.name", "stddev"),
        ("epoch", "val/auroc_margin", "method.value.name", "stddev"),
        *((ROC_KEYS[0], key, "method.value.name", "stddev") for key in ROC_KEYS[1:]),
    ]
    assert [(*box["metrics"], box["groupBy"], box["aggregate"], box["plotStyle"]) for box in boxes] == [
        (f"best/{name}", "method.value.name", True, "boxplot") for name in AREAS
    ]
    assert [(dot["xAxis"], dot["yAxis"]) for dot in dots] == [
        ("summary:best/test_cam_entropy", f"summary:best/{name}") for name in AREAS
    ]
    (cams,) = saved.panels["Where the detectors look"]
    assert cams["config"]["mediaKeys"] == ["val/cam"]
    assert saved.filters == [("config", "study", "=", "demo")]


def test_each_generator_has_boxes_and_a_column() -> None:
    saved = Saved.of(workspace("p", "e", None, ["gan.v2", "sdxl"], ["sdxl", "gan.v2"]))
    keys = [f"best/test_auroc{score}/{name}" for name in ("gan_v2", "sdxl") for score in ("", "_margin")]
    boxes = saved.panels["AUROC by generator"]
    assert [box["config"]["chartTitle"] for box in boxes] == [
        "gan.v2 by logit 1", "gan.v2 by margin", "sdxl by logit 1", "sdxl by margin",
    ]  # fmt: skip
    assert [(*box["config"]["metrics"], box["config"]["plotStyle"]) for box in boxes] == [
        (key, "boxplot") for key in keys
    ]
    assert {f"summary:{key}" for key in keys} <= saved.runs["runFeed"]["columnPinned"].keys()
    assert saved.filters == [("summary", "train_generators", "=", "gan.v2, sdxl")]


def test_the_keys_are_those_that_a_run_logs() -> None:
    """A panel of a key that no run has would be empty."""
    saved = Saved.of(workspace("p", "e", None, ["gan.v2"], ["a"]))
    result = {
        "best_epoch": 1, "wall_seconds": 2.0, "human_entropy": None, "train_generators": ["a"], "val": {},
        "test": dict.fromkeys(("auroc", "auroc_unseen", "cam_entropy"), 0.5),
    }  # fmt: skip
    scores = pd.DataFrame(
        {
            "logit_synthetic": range(60), "logit_real": 0, "cam_entropy": 1.0,
            "label": ["real"] * 30 + ["synthetic"] * 30,
            "generator": [""] * 30 + ["gan.v2"] * 30,
        }
    )  # fmt: skip
    logged = summary(result, scores).keys()
    shown = set(re.findall(r"best/[\w/]+", json.dumps(saved.panels)))
    assert len(shown) == 7
    assert shown <= logged
    assert "train_generators" in logged


def test_the_generators_are_those_that_were_scored(tmp_path: Path) -> None:
    scores = tmp_path / "demo" / "droid" / "seed0" / "scores"
    scores.mkdir(parents=True)
    pd.DataFrame({"generator": ["sdxl", "", "gan", "gan"]}).to_parquet(scores / "test.parquet")
    assert scored_generators(tmp_path, "demo") == ["gan", "sdxl"]
    assert scored_generators(tmp_path, "other") == []


class Answers(JsonAnswers):
    """As much of a W&B server as saving a workspace needs."""

    def do_POST(self) -> None:
        body = json.loads(self.body())
        data: dict[str, object] = {"viewer": {"id": "1", "username": "u", "entity": "e"}}
        if "upsertView" in body["query"]:
            self.server.saved.append(body["variables"])
            data = {"upsertView": {"view": {"id": "1", "name": "nw-a-v"}, "inserted": True}}
        self.say({"data": data})


def test_the_workspace_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    wandb.teardown()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.saved = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        cfg = {
            "project": "p", "entity": "e", "study": "demo", "runs_dir": str(tmp_path), "generators": ["sdxl"],
            "train_generators": None,
        }  # fmt: skip
        try:
            with caplog.at_level("INFO"):
                save_dashboard(OmegaConf.create(cfg))
        finally:
            wandb.teardown()
            server.shutdown()
            thread.join()
    (view,) = server.saved
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("e", "p", "methods of demo")
    assert "best/test_auroc/sdxl" in view["spec"]
    assert "boxplot" in view["spec"]
    assert "dashboard: " in caplog.text


@pytest.mark.slow
def test_without_a_key_one_sentence(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    ended = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "dashboard.py"), "entity=e"],
        env=environment | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "there is no key: wandb login, or set WANDB_API_KEY" in ended.stderr
    assert "Traceback" not in ended.stderr
