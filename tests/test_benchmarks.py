"""The benchmarks measure what they say, in the order they say; their figures are the machine's."""

import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from benchmarks import benchmark
from benchmarks.sweep import benchmark_sweep
from benchmarks.timing import in_turn, ratio
from benchmarks.waiting import BUSY, busy_core
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from saliency_entropy.errors import UserError
from saliency_entropy.run.folder import register_resolvers

ROOT = Path(__file__).parents[1]
TRAIN = ROOT / "experiments" / "train.py"


def configured(*overrides: str) -> DictConfig:
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("benchmark", ["backbone=tiny", "threads=1", "device=cpu", "repeats=1", *overrides])


def test_in_turn_without_the_first_round(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    clock = iter([0, 90, 90, 99, 99, 100, 100, 102, 102, 105, 105, 109])  # two reads a call
    monkeypatch.setattr("benchmarks.timing.time.perf_counter", lambda: next(clock))
    seconds = in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b"] * 3
    assert seconds == {"a": [1, 3], "b": [2, 4]}


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    assert ratio([2.0, 9.0, 40.0], [1.0, 3.0, 10.0]) == 3.0  # of 2, 3 and 4
    assert ratio([2.0, 9.0], [1.0, 2.0]) == 3.25


@pytest.mark.slow
def test_every_part(faces: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    benchmark(configured(
        "data=faces", f"data.root={faces}", "backbone.image_size=48", "protocol.batch_size=8", "batches=1", "images=30",
        "backbone@waiting.backbone=tiny", "report.seeds=1", "report.images=700", "comparison.seeds=1",
        "comparison.images=700", "sweep.seeds=1", "sweep.epochs=1", "variants=2",
    ), TRAIN)  # fmt: skip
    for words in (
        r"tiny, 48 px, batch 8, cpu, 1 threads, median of 1",
        r"plain +\d+\.\d ms a step",
        r"droid_cyborg costs \d+\.\d{3} x a plain cross-entropy step",
        r"two forwards and a loop cost \d+\.\d\d x droid_cyborg",
        r"tiny, 112 px, threads that sleep +\d+\.\d ms a step; beside a busy core +\d+\.\d ms, \d+\.\d\d x as long",
        r"tiny, 112 px, threads that spin +\d+\.\d ms a step; beside a busy core +\d+\.\d ms, \d+\.\d\d x as long",
        r"a step with threads that spin takes \d+\.\d\d x as long as with threads that sleep; beside a busy core "
        r"\d+\.\d\d x",
        r"disk +\d+\.\d ms a step, of which \d+\.\d\d ms to load its batch",
        r"an epoch from the decode cache costs \d+\.\d{3} x one on images in memory",
        r"bare loop +\d+ images a second",
        r"on all cores: \d+\.\d\d x the speed of the bare loop times \d+ cores",
        r"cache filled: \d+\.\d\d x the speed of the bare loop times \d+ cores",
        r"streamed: \d+\.\d\d x the speed of the bare loop",
        r"one pass +\d+\.\d ms an image",
        r"a pass for 4 detectors costs \d+\.\d{3} x decoding each image once and their bare forwards",
        r"files are judged at \d+\.\d{3} x the speed of bare forwards",
        r"ONNX Runtime takes \d+\.\d{3} x the time of the checkpoint",
        r"predict takes \d+\.\d s from its start to the score of one image",
        r"report of 6 runs of 700 test images: \d+ s \(\d+ s of processor time\), \d\.\d\d GiB at most",
        r"comparison of 2 variants of 12 runs of 700 test images: \d+ s \(\d+ s of processor time\)",
        r"6 runs, 2 at a time: \d+ s, \d+\.\d\d x the sum of their own times / 2; a run has \d+\.\d s of its own and "
        r"\d+\.\d\d s beside it; launched again: \d+\.\d s",
        r"12 runs of 2 variants: planned in \d+\.\d s \(.* GiB\), when done in .*; launched again, when done: \d+\.",
    ):
        assert re.search(words, caplog.text), words
    assert "images by 4 detectors" not in caplog.text  # the progress of each pass


def test_the_busy_process_is_ended_whatever_happens() -> None:
    with suppress(KeyError), busy_core() as process:
        assert process.poll() is None
        raise KeyError
    assert process.returncode == -signal.SIGKILL


def test_the_busy_process_ends_when_its_parent_is_killed() -> None:
    start = "import os, subprocess, sys; subprocess.Popen([*sys.argv[1:], str(os.getpid())]); os.kill(os.getpid(), 9)"
    # Returns when nobody holds the output any more: neither the parent nor the busy process.
    ended = subprocess.run([sys.executable, "-c", start, sys.executable, "-c", BUSY], capture_output=True, timeout=300)
    assert ended.returncode == -signal.SIGKILL


def test_a_sweep_that_another_command_trains(tmp_path: Path) -> None:
    submit = tmp_path / "submit"
    submit.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/given\necho no such partition >&2\nexit 1\n')
    submit.chmod(0o755)
    cfg = configured(f"sweep.command=[{submit},train.sh]", "sweep.launcher=[]")
    with pytest.raises(UserError, match="the sweep failed: no such partition"):
        benchmark_sweep(cfg, TRAIN, tmp_path)
    assert (tmp_path / "given").read_text().startswith("train.sh -m backbone=tiny ")


@pytest.mark.parametrize(("override", "message"), [
    ("repeats=0", "repeats is 0; give a whole number from 1 on"),
    ("report.seeds=0", "report.seeds is 0; give a whole number from 1 on"),
    ("images=many", "images is 'many'; give a whole number from 1 on"),
    ("parts=[speed]",
     "parts names 'speed'; choose of steps, waiting, cached_epoch, decoding, evaluation, judging, report, comparison, "
     "sweep, variants"),
])  # fmt: skip
def test_mistakes(override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        benchmark(configured(override), TRAIN)
    assert str(caught.value) == message
