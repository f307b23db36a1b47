"""What Weights & Biases gets of a run, without a network or an account, and that it changes no number."""

import json
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import wandb
from hydra import compose, initialize_config_dir
from PIL import Image
from wandb.proto import wandb_internal_pb2

from saliency_entropy import training, wandb_logging
from saliency_entropy.data.images import load_image
from saliency_entropy.detector import Detector
from saliency_entropy.errors import UserError
from saliency_entropy.overlay import cam_overlay
from saliency_entropy.run_folder import register_resolvers
from saliency_entropy.wandb_logging import WandbRun, roc_plot

CONF = Path(__file__).parents[1] / "conf"
SIZE = 32
IMAGES = {"train": 8, "val": 10, "test": 6}  # half of them real
KEY = "0123456789abcdef" * 2 + "01234567"
CONFIG = {
    "method": {"name": "droid"},
    "seed": 3,
    "study": "s",
    "data": {"name": "d"},
    "backbone": {"name": "b"},
    "protocol": {"name": "p"},
}


def records(folder: Path) -> list[wandb_internal_pb2.Record]:
    """The log of the one W&B run in a run's folder, once another process has written its end."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    for _ in range(600):
        found = parsed(path.read_bytes())
        if any(record.HasField("exit") for record in found):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{path} has no end")


def parsed(content: bytes) -> list[wandb_internal_pb2.Record]:
    """A LevelDB log of protocol buffers, behind seven bytes of W&B's own."""
    position, record, found = 7, b"", []
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(wandb_internal_pb2.Record.FromString(record))
            record = b""
    return found


def items(entries: list) -> dict[str, object]:
    return {entry.key or "/".join(entry.nested_key): json.loads(entry.value_json) for entry in entries}


def begun(folder: Path) -> wandb_internal_pb2.RunRecord:
    (run,) = [record.run for record in records(folder) if record.HasField("run")]
    return run


def history(folder: Path) -> list[dict[str, object]]:
    return [items(record.history.item) for record in records(folder) if record.HasField("history")]


def exit_code(folder: Path) -> int:
    (code,) = [record.exit.exit_code for record in records(folder) if record.HasField("exit")]
    return code


def data_set(root: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = []
    for split, count in IMAGES.items():
        for index in range(count):
            name = f"{split}{index}.png"
            rows.append((name, ("real", "synthetic")[index % 2], split, "" if index % 2 == 0 else "gan"))
            Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(root / name)
    pd.DataFrame(rows, columns=["path", "label", "split", "generator"]).to_csv(root / "manifest.csv", index=False)
    return root


@pytest.fixture(scope="module", autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No account, no settings of the user, no run of other tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("NETRC", raising=False)
        wandb.teardown()
        yield
        wandb.teardown()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """Train one tiny detector; returns its folder."""
    data = data_set(tmp_path_factory.mktemp("data"))
    register_resolvers()

    def run(folder: Path, *overrides: str) -> Path:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose(
                "train",
                [
                    "backbone=tiny", f"backbone.image_size={SIZE}", "data=faces", f"data.root={data}", "method=droid",
                    "protocol.batch_size=4", "trainer.max_epochs=3", "trainer.accelerator=cpu", "threads=1",
                    *overrides,
                ],
            )  # fmt: skip
        training.train(cfg, folder)
        return folder

    run.data = data
    return run


OFFLINE = ("logger=wandb", "logger.mode=offline", "logger.overlay_every=2")


@pytest.fixture(scope="module")
def runs(trained, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The same run without and with W&B; in the second an API key stands in the environment."""
    folder = tmp_path_factory.mktemp("runs")
    without = trained(folder / "without")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_API_KEY", KEY)
        return SimpleNamespace(without=without, logged=trained(folder / "logged", *OFFLINE), data=trained.data)


def test_no_number_changes(runs):
    assert (runs.logged / "metrics.csv").read_text() == (runs.without / "metrics.csv").read_text()
    for name in ("best", "resume"):
        ours, theirs = (
            torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
            for folder in (runs.logged, runs.without)
        )
        assert ours.keys() == theirs.keys()
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    pd.testing.assert_frame_equal(*(pd.read_parquet(f / "scores/test.parquet") for f in (runs.logged, runs.without)))


def test_group_job_type_name_tags_and_configuration(runs):
    run = begun(runs.logged)
    assert (run.project, run.run_group, run.job_type) == ("saliency_entropy", "faces", "droid")
    assert run.display_name == "droid-seed0"
    assert sorted(run.tags) == ["faces", "paper", "tiny"]
    config = items(run.config.update)
    assert config["loss"]["terms"]["log_entropy"]["weight"] == 0.5
    assert config["backbone"]["features"] == "pooled"  # resolved, not ${protocol.features}
    assert config["seed"] == 0
    assert "${" not in json.dumps(config)


def test_every_figure_of_every_epoch(runs):
    table = pd.read_csv(runs.logged / "metrics.csv")
    rows = history(runs.logged)
    for column in table.columns.drop("epoch"):
        logged = [row[column] for row in rows if column in row]
        np.testing.assert_array_equal(np.array(logged, dtype=float), table[column].to_numpy(), err_msg=column)
    steps = [row["trainer/global_step"] for row in rows if "train/loss" in row]
    assert steps == [1, 3, 5]  # two steps an epoch, counted from 0


def test_the_final_figures_are_the_summary(runs):
    result = json.loads((runs.logged / "result.json").read_text())
    summary: dict[str, object] = {}
    for record in records(runs.logged):
        if record.HasField("summary"):
            summary |= items(record.summary.update)
    assert summary["best_epoch"] == result["best_epoch"]
    assert summary["wall_seconds"] == result["wall_seconds"]
    for split in ("val", "test"):
        for name, value in result[split].items():
            assert summary[f"best/{split}_{name}"] == value
    # The last epoch's figures stay what they are.
    assert summary["val/auroc"] == pd.read_csv(runs.logged / "metrics.csv")["val/auroc"].iloc[-1]


def test_cams_of_the_same_validation_images(runs):
    rows = [row for row in history(runs.logged) if "val/cam/filenames" in row]
    assert [row["trainer/global_step"] for row in rows] == [3, 5]  # after the second epoch, and after the last
    assert all(len(row["val/cam/filenames"]) == 8 for row in rows)  # four of each label
    # After the last epoch the network is that of resume.ckpt.
    detector = Detector.from_checkpoint(runs.logged / "checkpoints" / "resume.ckpt")
    names = [f"val{index}.png" for index in (0, 2, 4, 6, 1, 3, 5, 7)]
    captions = rows[-1]["val/cam/captions"]
    (files,) = runs.logged.glob("wandb/offline-run-*/files")
    for name, logged, caption in zip(names, rows[-1]["val/cam/filenames"], captions, strict=True):
        pixels = load_image(runs.data / name, SIZE)
        detection = detector(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0]
        expected = np.asarray(cam_overlay(pixels, detection.cam)).astype(int)
        assert np.abs(np.asarray(Image.open(files / logged)) - expected).max() <= 3
        truth = "real" if names.index(name) < 4 else "synthetic"
        assert caption.startswith(f"{truth}, p(synthetic) = ")
        assert float(caption.split("= ")[1]) == pytest.approx(detection.probability_synthetic, abs=0.006)


def test_the_roc_of_the_test_images(runs):
    (path,) = runs.logged.glob("wandb/offline-run-*/files/media/table/test/roc_table_*.table.json")
    table = json.loads(path.read_text())
    assert table["columns"] == ["false positive rate", "true positive rate"]
    assert table["data"] == expected_roc(pd.read_parquet(runs.logged / "scores" / "test.parquet"))


def expected_roc(scores: pd.DataFrame) -> list[list[float]]:
    """Every threshold by itself, the highest first."""
    synthetic = (scores["label"] == "synthetic").to_numpy()
    logits = scores["logit_synthetic"].to_numpy()
    points = [[0.0, 0.0]]
    for threshold in sorted(set(logits), reverse=True):
        called = logits >= threshold
        points.append([float(called[~synthetic].mean()), float(called[synthetic].mean())])
    return [[pytest.approx(value) for value in point] for point in points]


def test_an_api_key_in_the_environment_stays_there(runs):
    files = [path for path in runs.logged.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_the_process_is_left_as_it_was(runs):
    assert wandb.run is None
    assert "WANDB_MODE" not in os.environ  # an online run may follow
    assert exit_code(runs.logged) == 0


def test_after_a_failure_the_next_run_is_a_new_one(runs, trained, tmp_path, monkeypatch):
    def fails(*_: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", fails)
        with pytest.raises(RuntimeError, match="out of memory"):
            trained(tmp_path / "first", *OFFLINE)
    assert wandb.run is None
    assert exit_code(tmp_path / "first") == 1
    trained(tmp_path / "second", *OFFLINE, "seed=1", "trainer.max_epochs=1")
    assert exit_code(tmp_path / "second") == 0
    assert begun(tmp_path / "second").run_id != begun(tmp_path / "first").run_id
    assert begun(tmp_path / "second").display_name == "droid-seed1"
    assert len(history(tmp_path / "second")) == 4  # train, val, CAMs and ROC of its own


# The W&B run alone.


def no_prompt(*_: object) -> str:
    raise AssertionError("asked for input")


def test_online_without_a_key_is_offline_and_says_so(tmp_path, monkeypatch, caplog):
    wandb.teardown()  # it remembers the key of an earlier run
    monkeypatch.setattr("builtins.input", no_prompt)
    monkeypatch.setattr("getpass.getpass", no_prompt)
    run = WandbRun(tmp_path, CONFIG, mode="online")
    try:
        assert run.logger.experiment.offline
    finally:
        run.finish(0)
    assert "no W&B key (wandb login, or WANDB_API_KEY): logging offline" in caplog.text
    assert begun(tmp_path).run_group == "s"


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """A key, and no server that would take it; the modes that were tried."""
    monkeypatch.setattr(wandb, "login", lambda **_: True)
    init, modes = wandb.init, []

    def timed_out(**arguments: object) -> object:
        modes.append(arguments.get("mode"))
        if arguments.get("mode") != "offline":
            raise wandb.errors.CommError("Timed out while retrying:\nno such host")
        return init(**arguments)

    monkeypatch.setattr(wandb, "init", timed_out)
    return modes


def test_without_an_answer_of_the_server_it_is_offline_and_says_so(unreachable, tmp_path, caplog):
    run = WandbRun(tmp_path, CONFIG, mode="online")
    run.finish(0)
    assert unreachable == [None, "offline"]  # None: as the user's WANDB_MODE says, or online
    assert "W&B cannot be used (Timed out while retrying: no such host): logging offline" in caplog.text
    assert begun(tmp_path).display_name == "droid-seed3"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "on"}, r"logger\.mode is 'on'; choose online or offline"),
        ({"mode": False}, r"logger\.mode is False; choose"),
        ({"mode": "offline", "overlay_every": 0}, r"logger\.overlay_every is 0; give a whole number of epochs"),
    ],
)
def test_arguments_that_cannot_be_used(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        WandbRun(tmp_path, CONFIG, **arguments)
    assert wandb.run is None


# The ROC alone.


def roc_points(scores: pd.DataFrame) -> list[tuple[float, float]]:
    return [tuple(row) for row in roc_plot(scores).table.data]


def scores(real: list[float], synthetic: list[float]) -> pd.DataFrame:
    labels = ["real"] * len(real) + ["synthetic"] * len(synthetic)
    return pd.DataFrame({"logit_synthetic": [*real, *synthetic], "label": labels})


def test_roc_by_hand():
    # Highest first: synthetic 900 | real and synthetic 800 together | real 1: (0, 1/2), (1/2, 1), (1, 1). A sigmoid
    # would make all three thresholds 1.
    points = roc_points(scores([1.0, 800.0], [800.0, 900.0]))
    assert points == [(0.0, 0.0), (0.0, 0.5), (0.5, 1.0), (1.0, 1.0)]


def test_a_long_roc_is_thinned_but_keeps_its_ends_and_its_place():
    rng = np.random.default_rng(0)
    table = scores(list(rng.normal(0, 1, 3000)), list(rng.normal(1, 1, 3000)))
    points = roc_points(table)
    assert len(points) == 200
    assert (points[0], points[-1]) == ((0.0, 0.0), (1.0, 1.0))
    whole = {tuple(round(value.expected, 6) for value in point) for point in expected_roc(table)}
    assert all((round(x, 6), round(y, 6)) in whole for x, y in points)


def test_what_goes_on_after_an_interruption_is_the_same_run(tmp_path):
    ids = []
    for folder in ("a", "a", "b"):
        (tmp_path / folder).mkdir(exist_ok=True)
        run = WandbRun(tmp_path / folder, CONFIG, mode="offline")
        ids.append(run.logger.experiment.id)
        run.finish(1)
    assert ids[0] == ids[1] != ids[2]


def test_a_run_is_not_lost_for_its_final_figures(tmp_path, monkeypatch, caplog):
    def fails(*_: object) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(wandb_logging, "roc_plot", fails)
    run = WandbRun(tmp_path, CONFIG, mode="offline")
    try:
        result = {"best_epoch": 1, "wall_seconds": 2.0, "human_entropy": None, "val": {}, "test": {}}
        run.log_result(result, scores([0.0], [1.0]))
    finally:
        run.finish(0)
    assert "W&B has not got the final figures (no route to host); they are in result.json" in caplog.text
