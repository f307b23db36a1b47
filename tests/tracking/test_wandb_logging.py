"""What Weights & Biases gets of a run, without a network or an account, and that it changes no number."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import wandb
from json_answers import JsonAnswers
from PIL import Image
from sklearn.metrics import roc_auc_score
from wandb.proto import wandb_internal_pb2

from saliency_entropy import training
from saliency_entropy.data.images import load_image
from saliency_entropy.detector import Detector
from saliency_entropy.errors import UserError
from saliency_entropy.page.overlay import cam_overlay
from saliency_entropy.run.variants import write_variant
from saliency_entropy.tracking import wandb_files
from saliency_entropy.tracking import wandb_run as wandb_logging
from saliency_entropy.tracking.wandb_run import WandbRun, roc_points, summary

CONF = Path(__file__).parents[2] / "conf"
SIZE = 48  # pixels, of the images of a small run
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
    return ended(path)


def ended(path: Path) -> list[wandb_internal_pb2.Record]:
    for _ in range(600):
        found = list(wandb_files.records(path))
        if any(record.HasField("exit") for record in found):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{path} has no end")


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
def trained(train_small: Callable[..., Path]) -> Callable[..., Path]:
    """Train one tiny detector; returns its folder."""

    def run(folder: Path, *overrides: str) -> Path:
        return train_small(folder, "method=droid", "trainer.max_epochs=3", *overrides)

    return run


OFFLINE = ("logger=wandb", "logger.mode=offline", "logger.overlay_every=2")


@pytest.fixture(scope="module")
def runs(trained, faces: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The same run without and with W&B; in the second an API key stands in the environment."""
    folder = tmp_path_factory.mktemp("runs")
    without = trained(folder / "without")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_API_KEY", KEY)
        return SimpleNamespace(without=without, logged=trained(folder / "logged", *OFFLINE), data=faces)


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
    assert (run.project, run.run_group, run.job_type) == ("saliency_entropy", "faces/droid", "droid")
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
    assert [row["epoch"] for row in rows if "epoch" in row] == [0, 1, 2]
    assert all("epoch" in row for row in rows[:3])  # one row an epoch, and then the ROC


def final_summary(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for record in records(folder):
        if record.HasField("summary"):
            found |= items(record.summary.update)
    return found


def test_the_final_figures_are_the_summary(runs):
    result = json.loads((runs.logged / "result.json").read_text())
    figures = final_summary(runs.logged)
    assert figures["best_epoch"] == result["best_epoch"]
    assert figures["wall_seconds"] == result["wall_seconds"]
    for split in ("val", "test"):
        for name, value in result[split].items():
            assert figures[f"best/{split}_{name}"] == value
    # The last epoch's figures stay what they are, beside the best so far.
    table = pd.read_csv(runs.logged / "metrics.csv")
    assert figures["val/cam_entropy"] == table["val/cam_entropy"].iloc[-1]
    for name in ("val/accuracy", "val/auroc"):
        assert figures[name]["last"] == table[name].iloc[-1]
        assert figures[name]["max"] == table[name].max()


def test_curves_are_drawn_against_the_epoch(runs):
    metrics = {
        record.metric.glob_name or record.metric.name: record.metric
        for record in records(runs.logged)
        if record.HasField("metric")
    }
    assert metrics["*"].step_metric == "epoch"
    assert metrics["val/human_map_share"].options.hidden
    assert metrics["val/accuracy"].summary.max


def test_cams_of_the_same_validation_images(runs):
    rows = [row for row in history(runs.logged) if "val/cam/filenames" in row]
    assert [row["epoch"] for row in rows] == [1, 2]  # after the second epoch, and after the last
    assert all(len(row["val/cam/filenames"]) == 8 for row in rows)  # four of each label
    # After the last epoch the network is that of resume.ckpt.
    detector = Detector.from_checkpoint(runs.logged / "checkpoints" / "resume.ckpt")
    names = [f"val/{index}.{'jpg' if index % 3 == 0 else 'png'}" for index in (0, 2, 4, 6, 1, 3, 5, 7)]
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
    logged = [row for row in history(runs.logged) if "test/roc/false_positive_rate" in row]
    table = pd.read_parquet(runs.logged / "scores" / "test.parquet")
    synthetic = (table["label"] == "synthetic").to_numpy()
    margin = table["logit_synthetic"].astype(float) - table["logit_real"].astype(float)
    for suffix, scores in (("", table["logit_synthetic"]), ("_margin", margin)):
        points = [(row["test/roc/false_positive_rate"], row[f"test/roc/true_positive_rate{suffix}"]) for row in logged]
        # The area below is the AUROC, but for the grid of 200 points.
        area = np.trapezoid(*reversed(np.array(points).T))
        assert area == pytest.approx(roc_auc_score(synthetic, scores), abs=0.01)
    assert not list(runs.logged.glob("wandb/offline-run-*/files/media/table"))


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
    assert [row.get("epoch") for row in history(tmp_path / "second")][:2] == [0, None]  # its own epoch, and the ROC


# The W&B run alone.


def no_prompt(*_: object) -> str:
    raise AssertionError("asked for input")


def test_online_without_a_key_is_offline_and_says_so(tmp_path, monkeypatch, caplog):
    wandb.teardown()  # it remembers the key of an earlier run
    monkeypatch.setattr("builtins.input", no_prompt)
    monkeypatch.setattr("getpass.getpass", no_prompt)
    run = WandbRun(tmp_path, CONFIG, mode="online")
    run.begin()
    try:
        assert run.run.offline
    finally:
        run.finish(0)
    assert "no W&B key (wandb login, or WANDB_API_KEY): logging offline" in caplog.text
    assert begun(tmp_path).run_group == "s/droid"


def test_a_run_of_a_variant_has_its_values_as_tags_and_a_group_of_its_own(tmp_path):
    folder = tmp_path / "backbone=b,fraction=0.5" / "droid" / "seed3"
    write_variant(folder.parents[1], {"backbone": "b", "data.human_maps.fraction": 0.5})
    run = WandbRun(folder, CONFIG | {"study": "s/backbone=b,fraction=0.5"}, mode="offline")
    folder.mkdir(parents=True)
    run.begin()
    run.finish(0)
    logged = begun(folder)
    assert logged.run_group == "s/backbone=b,fraction=0.5/droid"
    assert sorted(logged.tags) == sorted(["s", "d", "b", "p", "backbone=b", "fraction=0.5"])


def test_w_and_b_that_the_environment_disables_is_left_out_and_the_log_says_so(
    tmp_path, train_small, monkeypatch, caplog
):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(wandb, "init", lambda **_: pytest.fail("a W&B run began"))
    for launch in (1, 2):  # the second finds the run done
        folder = train_small(tmp_path, *OFFLINE, "method=droid", "trainer.max_epochs=1")
        assert caplog.text.count("W&B is left out, since WANDB_MODE is disabled") == launch
    assert (folder / "result.json").exists()
    assert not (folder / "wandb").exists()
    assert not (folder / "wandb_id").exists()


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
    run.begin()
    run.finish(0)
    assert unreachable == [None, "offline"]  # None: as the user's WANDB_MODE says, or online
    assert "W&B cannot be used (Timed out while retrying: no such host): logging offline" in caplog.text
    assert begun(tmp_path).display_name == "droid-seed3"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "on"}, r"logger\.mode is 'on'; choose online or offline"),
        ({"mode": False}, r"logger\.mode is False; choose"),
        ({"mode": "offline", "overlay_every": 0}, r"logger\.overlay_every is 0; give a whole number from 1 on$"),
        ({"begin_seconds": 0}, r"logger\.begin_seconds is 0; give a number of seconds above 0"),
        ({"end_seconds": "long"}, r"logger\.end_seconds is 'long'; give a number of seconds"),
    ],
)
def test_arguments_that_cannot_be_used(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        WandbRun(tmp_path, CONFIG, **arguments)
    assert wandb.run is None


# The ROC alone.


def scores(real: list[float], synthetic: list[float]) -> pd.DataFrame:
    labels = ["real"] * len(real) + ["synthetic"] * len(synthetic)
    return pd.DataFrame({"logit_synthetic": [*real, *synthetic], "logit_real": 0.0, "label": labels})


def test_roc_by_hand():
    # Highest first: synthetic 900 | real and synthetic 800 together | real 1: (0, 1/2), (1/2, 1), (1, 1). A sigmoid
    # would make all three thresholds 1. By margin, the real image of 800 comes first: (1/2, 0), then as before.
    table = scores([1.0, 800.0], [800.0, 900.0]).assign(logit_real=[0.0, -200.0, 0.0, 0.0])
    points = roc_points(table)
    assert len(points) == 200
    assert list(points[0].values()) == pytest.approx([0.0, 0.5, 0.0])
    for false, true, by_margin in (point.values() for point in points[1:]):
        assert true == pytest.approx(min(0.5 + false, 1))
        assert by_margin == pytest.approx(0 if false < 0.5 else 1)
    assert list(points[-1].values()) == [1.0, 1.0, 1.0]


def test_scores_that_are_not_finite_have_no_roc():
    assert roc_points(scores([1.0, float("nan")], [2.0])) == []


def test_scores_that_are_not_finite_leave_the_other_figures_in_the_summary():
    images = {"generator": [""] * 30 + ["gan"] * 30, "cam_entropy": 1.0}
    table = scores([1.0] * 29 + [float("nan")], [2.0] * 30).assign(**images)
    result = {"best_epoch": 1, "wall_seconds": 2.0, "human_entropy": 3.0, "train_generators": ["gan"]}
    figures = summary(result | {"test": {"accuracy": 0.5}, "val": {"accuracy": 0.75}}, table)
    assert (figures["best/test_accuracy"], figures["best/val_accuracy"]) == (0.5, 0.75)
    assert "best/test_auroc/gan" not in figures


# Interruptions.


def attempt(folder: Path, rows: list[int], goes_on: bool = True, exit_code: int = 1) -> str:
    """An attempt of a run that logs some epochs; returns the W&B run's id."""
    if (folder / "wandb").exists():
        time.sleep(1)  # W&B's folders have names with the second
    folder.mkdir(exist_ok=True)
    if goes_on:
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / "resume.ckpt").touch()
    run = WandbRun(folder, CONFIG, mode="offline")
    run.begin()
    identity = run.run.id
    for epoch in rows:
        run.log_epoch({"epoch": epoch, "train/loss": epoch / 2})
    run.finish(exit_code)
    ended(max(folder.glob("wandb/offline-run-*/run-*.wandb")))
    return identity


def logged_epochs(folder: Path, identity: str) -> list[int]:
    return [
        row["epoch"]
        for part in wandb_files.read_wandb_attempts(folder, identity)
        for row in part.rows
        if "epoch" in row
    ]


def write_metrics(folder: Path, epochs: int) -> None:
    table = pd.DataFrame({"epoch": range(epochs), "train/loss": [epoch / 2 for epoch in range(epochs)]})
    table.to_csv(folder / "metrics.csv", index=False)


def test_what_goes_on_after_an_interruption_is_the_same_run(tmp_path):
    identities = [attempt(tmp_path / folder, [0]) for folder in ("a", "a", "b")]
    assert identities[0] == identities[1] != identities[2]


def test_no_epoch_twice_and_none_left_out(tmp_path):
    attempt(tmp_path, [0, 1])
    # Killed after epochs 2 and 3 were written, before they were logged; epoch 3 is done again.
    write_metrics(tmp_path, 4)
    identity = attempt(tmp_path, [3, 4])
    assert logged_epochs(tmp_path, identity) == [0, 1, 2, 3, 4]


def test_what_was_cut_off_is_logged_again(tmp_path):
    identity = attempt(tmp_path, list(range(40)))
    (part,) = wandb_files.read_wandb_attempts(tmp_path, identity)
    content = part.file.read_bytes()
    part.file.write_bytes(content[: len(content) // 2])
    kept = logged_epochs(tmp_path, identity)
    assert 0 < len(kept) < 40
    write_metrics(tmp_path, 40)
    attempt(tmp_path, [])
    assert logged_epochs(tmp_path, identity) == list(range(40))


def test_a_run_that_begins_anew_is_another_wandb_run(tmp_path):
    first = attempt(tmp_path, [0, 1], goes_on=False)
    write_metrics(tmp_path, 2)  # of the run whose checkpoints were deleted
    second = attempt(tmp_path, [0], goes_on=False)
    assert first != second
    assert logged_epochs(tmp_path, second) == [0]


def test_online_stays_offline_until_the_earlier_epochs_are_sent(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(wandb, "login", lambda **_: True)
    identity = attempt(tmp_path, [0])
    time.sleep(1)
    run = WandbRun(tmp_path, CONFIG, mode="online")
    run.begin()
    assert run.run.offline
    run.finish(1)
    (part, _) = wandb_files.read_wandb_attempts(tmp_path, identity)
    assert f"wandb sync {part.file.parent}" in caplog.text
    assert not part.sent
    Path(f"{part.file}.synced").touch()  # as wandb sync does it
    assert part.sent


@pytest.mark.parametrize("rows", [0, 2])
def test_the_server_says_which_epochs_it_has(tmp_path, monkeypatch, rows):
    attempt(tmp_path, [0, 1, 2])  # whatever was logged here: the process was killed before it was sent
    write_metrics(tmp_path, 4)
    logged = []
    online = SimpleNamespace(
        offline=False,
        starting_step=rows,
        define_metric=lambda *_, **__: None,
        log=lambda row: logged.append(row["epoch"]),
    )
    monkeypatch.setattr(WandbRun, "_begun", lambda *_: online)
    run = WandbRun(tmp_path, CONFIG)
    run.begin()
    run.log_epoch({"epoch": 3})
    run.log_epoch({"epoch": 4})
    assert logged == list(range(rows, 5))


def test_a_done_run_is_logged_from_its_files_once(runs, trained, tmp_path, caplog):
    folder = shutil.copytree(runs.without, tmp_path / "done")
    with caplog.at_level("INFO"):
        trained(folder, *OFFLINE)
        assert "to W&B from its files" in caplog.text
        caplog.clear()
        trained(folder, *OFFLINE)
        assert "to W&B from its files" not in caplog.text
    table = pd.read_csv(folder / "metrics.csv")
    assert [row["epoch"] for row in history(folder) if "epoch" in row] == table["epoch"].to_list()
    result = json.loads((folder / "result.json").read_text())
    assert final_summary(folder)["best/test_auroc"] == result["test"]["auroc"]
    assert exit_code(folder) == 0


# What fails.


def test_training_goes_on_where_wandb_fails_in_the_middle(tmp_path, monkeypatch, caplog):
    def fails(*_: object) -> None:
        raise BrokenPipeError("the service\nis gone")

    run = WandbRun(tmp_path, CONFIG, mode="offline")
    run.begin()
    with monkeypatch.context() as patch:
        patch.setattr(run.run, "log", fails)
        run.log_epoch({"epoch": 0})
    run.log_epoch({"epoch": 1})
    run.log_result({}, pd.DataFrame())
    run.finish(0)
    assert caplog.text.count("W&B is left out from here (the service is gone)") == 1


def test_training_goes_on_where_wandb_cannot_begin(tmp_path, monkeypatch, caplog):
    def fails(**_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(wandb, "init", fails)
    run = WandbRun(tmp_path, CONFIG, mode="offline")
    run.begin()
    run.log_epoch({"epoch": 0})
    run.finish(0)
    assert "W&B is left out from here (no space left)" in caplog.text


class Server(ThreadingHTTPServer):
    """As much of a W&B server as an online run needs, which can fall silent: it takes connections and answers none."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: list[str] = []
        self.rows: list[dict[str, object]] = []
        self.answering, self.ended = threading.Event(), threading.Event()

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path.endswith("/file_stream"):
            history = body.get("files", {}).get("wandb-history.jsonl", {"content": []})
            self.rows += map(json.loads, history["content"])
            return {}
        if "upsertBucket" in body["query"]:
            run = body["variables"]["name"]
            project = {"name": "p", "entity": {"name": "e"}}
            return {"data": {"upsertBucket": {"bucket": {"id": run, "name": run, "project": project}}}}
        if "createRunFiles" in body["query"]:
            return {"errors": [{"message": "no files are kept"}]}
        return {"data": {"model": None}}  # it knows no such run


class Answers(JsonAnswers):
    def do_POST(self) -> None:
        body = self.body()
        self.server.asked.append(self.path)
        while not self.server.answering.wait(0.1):
            if self.server.ended.is_set():
                return
        with suppress(ConnectionError):  # the client has waited for long enough
            self.say(self.server.answer(self.path, json.loads(body)))


@pytest.fixture
def silent_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    wandb.teardown()
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL", "1")  # seconds; 15 otherwise
        yield server
        server.ended.set()
        server.shutdown()
        thread.join()
    wandb.teardown()


def test_a_server_that_never_answers_is_waited_for_only_so_long(silent_server, tmp_path, caplog):
    run = WandbRun(tmp_path, CONFIG, begin_seconds=2)
    started = time.monotonic()
    run.begin()
    seconds = time.monotonic() - started
    assert run.run.offline
    run.finish(0)
    assert silent_server.asked
    assert "W&B cannot be used" in caplog.text
    assert seconds < 60  # of which two are the wait; without a limit it is 90


def test_a_server_that_falls_silent_in_the_middle_holds_nothing_up(silent_server, tmp_path, caplog):
    silent_server.answering.set()
    run = WandbRun(tmp_path, CONFIG, begin_seconds=120, end_seconds=1)
    run.begin()
    identity = run.run.id
    run.log_epoch({"epoch": 0})
    for _ in range(1200):
        if silent_server.rows:
            break
        time.sleep(0.1)
    silent_server.answering.clear()
    started = time.monotonic()
    table = scores([0.0], [1.0])
    table["generator"] = ["", "gan"]
    for epoch in range(1, 40):
        run.log_epoch({"epoch": epoch, "val/cam": [wandb.Image(np.zeros((8, 8, 3), np.uint8))]})
    result = {"best_epoch": 0, "wall_seconds": 1.0, "human_entropy": None, "train_generators": [], "epochs": 40}
    run.log_result(result | {"val": {}, "test": {}}, table)
    logged = time.monotonic()
    run.finish(0)
    assert logged - started < 60
    assert time.monotonic() - logged < 60  # of which one is the wait; without a limit it is for ever
    assert "the W&B server has not taken all of this run in 1 s" in caplog.text
    assert [row["epoch"] for row in silent_server.rows if "epoch" in row] == [0]
    # What it has not got is on disk, and is not taken for sent.
    for _ in range(600):  # by W&B's own process
        (attempt,) = wandb_files.read_wandb_attempts(tmp_path, identity)
        if len(attempt.epochs) == 40:
            break
        time.sleep(0.1)
    assert attempt.epochs == set(range(40))
    assert not attempt.sent


def test_what_only_the_server_knows_is_not_logged_offline(silent_server, tmp_path, caplog):
    silent_server.answering.set()
    run = WandbRun(tmp_path, CONFIG, begin_seconds=120, end_seconds=120)
    run.begin()
    identity = run.run.id
    run.log_epoch({"epoch": 0})
    run.finish(1)
    (attempt,) = wandb_files.read_wandb_attempts(tmp_path, identity)
    assert attempt.sent
    wandb_files.sent_mark(attempt.file).unlink()  # as if the process had been killed
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resume.ckpt").touch()
    silent_server.answering.clear()
    wandb.teardown()
    again = WandbRun(tmp_path, CONFIG, begin_seconds=1)
    again.begin()
    again.log_epoch({"epoch": 1})
    again.finish(0)
    assert "W&B is left out from here (an earlier attempt was logged online, and only the server knows" in caplog.text
    assert not list(tmp_path.glob("wandb/offline-run-*"))


def test_offline_opens_no_connection(silent_server, tmp_path):
    attempt(tmp_path, [0, 1], exit_code=0)
    assert not silent_server.asked


@pytest.mark.slow
def test_without_wandb_as_logger_it_is_not_even_imported(runs, tmp_path):
    code = f"""
import runpy, sys
sys.argv = ["train.py", "backbone=tiny", "backbone.image_size={SIZE}", "data=faces", "data.root={runs.data}",
    "protocol.batch_size=4", "trainer.max_epochs=1", "trainer.accelerator=cpu", "threads=1", "method=droid",
    "runs_dir={tmp_path}"]
runpy.run_path({str(CONF.parent / "experiments" / "train.py")!r}, run_name="__main__")
sys.exit("wandb was imported" if "wandb" in sys.modules else 0)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=400, check=False)
    assert ended.returncode == 0, ended.stderr
    assert list(tmp_path.glob("*/*/*/result.json"))


def test_a_run_is_not_lost_for_its_final_figures(tmp_path, monkeypatch, caplog):
    def fails(*_: object) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(wandb_logging, "summary", fails)
    run = WandbRun(tmp_path, CONFIG, mode="offline")
    run.begin()
    try:
        run.log_result({}, scores([0.0], [1.0]))
    finally:
        run.finish(0)
    assert "W&B has not got the final figures (no route to host); they are in result.json" in caplog.text


# The summary alone.


def test_each_generator_has_its_own_figure():
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "logit_synthetic": random.normal(size=130),
            "logit_real": random.normal(size=130),
            "cam_entropy": 2.0,
            "label": ["real"] * 40 + ["synthetic"] * 90,
            "generator": [""] * 40 + ["a.v2"] * 30 + ["b"] * 30 + ["few"] * 10 + [""] * 20,
        }
    )
    result = {
        "best_epoch": 1, "wall_seconds": 2.0, "human_entropy": None, "train_generators": ["c", "b"],
        "val": {"auroc": 0.5}, "test": {"auroc": 0.6},
    }  # fmt: skip
    figures = summary(result, table)
    by_score = {"": table["logit_synthetic"], "_margin": table["logit_synthetic"] - table["logit_real"]}
    for suffix, values in by_score.items():
        real = values[:40].to_numpy()
        for name, rows in (("a_v2", slice(40, 70)), ("b", slice(70, 100))):
            expected = (values[rows].to_numpy()[:, None] > real[None]).mean()
            assert figures.pop(f"best/test_auroc{suffix}/{name}") == pytest.approx(expected)
        # The result is of an earlier version: what it lacks by margin comes from the scores, and the rest is its own.
        unseen = values[[*range(40, 70), *range(100, 110)]].to_numpy()
        expected = (unseen[:, None] > real[None]).mean()
        assert figures.pop(f"best/test_auroc_unseen{suffix}") == pytest.approx(expected)
    expected = (values[40:].to_numpy()[:, None] > real[None]).mean()
    assert figures.pop("best/test_auroc_margin") == pytest.approx(expected)
    assert figures == {
        "best_epoch": 1, "wall_seconds": 2.0, "human_entropy": None, "best/val_auroc": 0.5, "best/test_auroc": 0.6,
        "train_generators": "b, c", "best/test_images": 130, "best/test_cam_entropy": 2.0,
        "best/test_accuracy": pytest.approx(((by_score["_margin"] > 0) == (table["label"] == "synthetic")).mean()),
    }  # fmt: skip
