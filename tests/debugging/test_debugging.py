"""debug=overfit|fast|profile|finite: what each finds, that it says so in one sentence, that a debugger works in it."""

import gzip
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from torch import Tensor

from saliency_entropy.data.dataset import FaceDataset
from saliency_entropy.debugging import step_profile
from saliency_entropy.debugging.finite_check import FiniteCheck
from saliency_entropy.debugging.overfit_verdict import OverfitVerdict
from saliency_entropy.errors import UserError
from saliency_entropy.losses import LogEntropy, Prediction, Term

ROOT = Path(__file__).parents[2]
TrainSmall = Callable[..., Path]


# --- debug=fast


def test_the_whole_path_on_a_few_batches(command, tmp_path: Path) -> None:
    """Scores and result included; a second launch is not skipped; both apart from the real runs."""
    for launch in (1, 2):
        ended = command("debug=fast", "protocol.batch_size=2", "method=droid")
        assert ended.code == 0, ended.err
        results = sorted((tmp_path / "runs").rglob("result.json"))
        assert len(results) == launch
    assert {path.relative_to(tmp_path / "runs").parts[0] for path in results} == {"debug"}
    assert not (tmp_path / "runs" / ".decoded").exists()
    folder = results[0].parent
    for split in ("val", "test"):
        assert len(pd.read_parquet(folder / "scores" / f"{split}.parquet")) == 4
        assert json.loads(results[0].read_text())[split]["images"] == 4
    assert (folder / "checkpoints" / "best.ckpt").exists()


# --- debug=overfit (test_training.py trains one)


@pytest.mark.parametrize("accuracy", [0.95, float("nan"), 1.0])
def test_a_batch_that_is_not_learnt_by_heart_is_said_with_what_to_check(accuracy: float, caplog) -> None:
    caplog.set_level("INFO")
    verdict = OverfitVerdict()
    for epoch, row in enumerate([(0.5, 0.7), (accuracy, 0.6)]):
        verdict.log_epoch({"epoch": epoch} | dict(zip(("train/accuracy", "train/loss"), row, strict=True)))
    verdict.on_fit_end(None, None)
    can = "can" if accuracy == 1 else "did not"
    assert (
        f"the network {can} overfit: after 2 epochs on one batch, accuracy went from 0.50 to {accuracy:.2f}, and loss "
        "from 0.7000 to 0.6000"
    ) in caplog.text
    assert ("protocol.optimizer.lr=" in caplog.text) == (accuracy != 1)


# --- debug=profile


def profiled(folder: Path) -> pd.Series:
    """Part -> milliseconds."""
    table = pd.read_csv(folder / "profile" / "step.csv")
    assert table["share"].sum() == pytest.approx(1)
    return table.set_index("part")["milliseconds"]


def test_where_a_step_spends_its_time(command, tmp_path: Path, small: list[str], monkeypatch) -> None:
    """What is made slow is slow in its own row, and in no other; more than one epoch is needed for enough steps."""
    log_entropy, item = LogEntropy.forward, FaceDataset.__getitem__
    clock = 0.0  # goes on where it is said here, and nowhere else

    def slow_term(self: LogEntropy, prediction: Prediction) -> Tensor:
        nonlocal clock
        clock += 0.3
        return log_entropy(self, prediction)

    def slow_item(self: FaceDataset, index: int) -> object:
        nonlocal clock
        clock += 0.02
        return item(self, index)

    monkeypatch.setattr(step_profile, "time", SimpleNamespace(perf_counter=lambda: clock))
    monkeypatch.setattr(LogEntropy, "forward", slow_term)
    monkeypatch.setattr(FaceDataset, "__getitem__", slow_item)
    defaults = [override for override in small if not override.startswith("trainer.max_epochs")]
    few = ["trainer.profiler.warmup=1", "trainer.profiler.timed=6", "trainer.profiler.traced=2"]
    ended = command("debug=profile", *few, defaults=defaults)
    assert ended.code == 0, ended.err
    folder = tmp_path / "runs" / "debug" / "droid_cyborg" / "seed0"
    parts = profiled(folder)
    assert list(parts.index) == [
        "data loading", "transfer to the device", "forward of the network", "loss term cross_entropy",
        "loss term human_saliency", "loss term log_entropy", "CAM and metrics", "backward", "optimizer",
        "callbacks and training loop",
    ]  # fmt: skip
    assert parts["loss term log_entropy"] == pytest.approx(300)
    assert parts["data loading"] == pytest.approx(20 * 7)  # the 6 steps are two epochs of 8, 8 and 5 images
    assert parts.drop(["loss term log_entropy", "data loading"]).abs().max() < 1e-6

    with gzip.open(folder / "profile" / "trace.json.gz") as file:
        names = [event.get("name") for event in json.load(file)["traceEvents"]]
    for part in ("transfer to the device", "forward of the network", "loss term log_entropy", "backward"):
        assert names.count(part) == 2, part
    assert str(folder / "profile" / "trace.json.gz") in ended.out
    assert "epochs (the paper protocol has" not in ended.out
    assert ended.err == ""
    assert re.search(r"loss term log_entropy +\d+\.\d\d ms +\d+\.\d %", ended.out)
    assert len(pd.read_csv(folder / "metrics.csv")) == 3  # and no further: 9 steps are 3 epochs
    assert [path.name for path in folder.rglob("*") if path.suffix in (".ckpt", ".parquet")] == []


def test_a_profile_of_no_steps(command) -> None:
    ended = command("debug=profile", "trainer.profiler.timed=0")
    assert ended.code == 1
    assert "\ntrainer.profiler.timed is 0; give a whole number from 1 on\n" in ended.err
    assert "Traceback" not in ended.err


def test_a_run_that_is_too_short_for_a_profile(command, tmp_path: Path) -> None:
    ended = command("debug=profile", "trainer.max_epochs=1", "trainer.profiler.warmup=1", "trainer.profiler.timed=99")
    assert ended.code == 0, ended.err
    assert "no profile: it needs 104 training steps, and the run has 3" in ended.out
    assert "results: " not in ended.out
    assert not list((tmp_path / "runs").rglob("step.csv"))


# --- debug=finite


class OfUnannotated(Term):
    """Minus infinity where an image has no human map."""

    def forward(self, prediction: Prediction) -> Tensor:
        return prediction.has_map.float().log().mean()


class SteepForUnannotated(Term):
    """0, but of infinite slope, for images without a human map."""

    def forward(self, prediction: Prediction) -> Tensor:
        return prediction.maps[~prediction.has_map].amin(dim=(1, 2)).sqrt().sum()


class Steep(Term):
    """0, and of a slope that is finite for each image, but too large for their sum in the network."""

    def forward(self, prediction: Prediction) -> Tensor:
        return (prediction.logits - prediction.logits.detach()).sum() * 3e38


def term(of_class: type[Term]) -> list[str]:
    return ["method=cross_entropy", f"+loss.terms.own._target_={__name__}.{of_class.__name__}",
            "+loss.terms.own.weight=1"]  # fmt: skip


NAMED = r"train/\d+\.\w+ \(pixels from \d+ to \d+\)"
WHOLE_BATCH = rf"not for a single image, but for the batch of ({NAMED}.*)"
DIVERGING = ["method=cross_entropy", "loss.terms.cross_entropy.weight=1e4", "protocol.optimizer.lr=3e38"]
NOT_FINITE = {
    "a term": (term(OfUnannotated), rf"epoch 1, batch 1: the loss term own is -inf; for ({NAMED}(, | and \d more$)?)+"),
    "a term's gradient": (
        term(SteepForUnannotated),
        rf"epoch 1, batch 1: the gradient of the loss term own is not finite, though its value is; for ({NAMED}.*)",
    ),
    "the sum": (
        ["method=cross_entropy", "loss.terms.cross_entropy.weight=1e39"],
        rf"epoch 1, batch 1: the loss is inf, though each of its terms is finite; {WHOLE_BATCH}",
    ),
    "a weight's gradient": (
        term(Steep),
        rf"epoch 1, batch 1: the gradient of backbone\.\S+ is not finite, though those of the terms are; {WHOLE_BATCH}",
    ),
    "a weight": (
        DIVERGING,
        rf"epoch 1, batch 1: backbone\.\S+ is not finite after the optimizer's step, .*; {WHOLE_BATCH}",
    ),
}


@pytest.mark.parametrize("what", NOT_FINITE)
def test_what_is_not_finite_is_named(train_small: TrainSmall, faces: Path, tmp_path: Path, what: str) -> None:
    overrides, message = NOT_FINITE[what]
    with pytest.raises(UserError, match=rf"^training, {message}") as caught:
        train_small(tmp_path, "debug=finite", *overrides)
    assert "\n" not in str(caught.value)
    named = re.findall(r"train/\d+\.\w+", str(caught.value))
    table = pd.read_csv(faces / "manifest.csv", keep_default_na=False).set_index("path")
    if "loss term own" in str(caught.value):
        assert (table.loc[named, "human_map"] == "").all()
    else:
        assert len(named) == 4
        assert str(caught.value).endswith(" and 4 more")


def test_an_image_that_the_network_cannot_judge_is_named(
    train_small: TrainSmall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In validation, too: the logits of an image that has no bright pixel."""
    from saliency_entropy.backbone import Backbone

    original = Backbone.forward

    def failing(self: Backbone, images: Tensor):
        output = original(self, images)
        dark = images.flatten(1).amax(dim=1) < 240
        if self.training or len(images) == 1:  # one: when it is built
            return output
        return output._replace(logits=output.logits / (~dark).float()[:, None])

    monkeypatch.setattr(Backbone, "forward", failing)
    with pytest.raises(UserError, match=r"^validation, epoch 1, batch 1: the logits are not finite; for") as caught:
        train_small(tmp_path, "debug=finite", "method=droid")
    ranges = [int(brightest) for brightest in re.findall(r"\(pixels from \d+ to (\d+)\)", str(caught.value))]
    assert ranges
    assert max(ranges) < 240


def test_a_finite_run_goes_as_it_does_without_the_check(train_small: TrainSmall, tmp_path: Path) -> None:
    plain = train_small(tmp_path / "plain")
    checked = train_small(tmp_path / "checked", "debug=finite")
    assert (checked / "metrics.csv").read_bytes() == (plain / "metrics.csv").read_bytes()
    assert not list(checked.rglob("*.ckpt"))


def test_the_command_ends_with_the_sentence(command) -> None:
    ended = command("debug=finite", *DIVERGING)
    assert ended.code == 1
    assert "Traceback" not in ended.out + ended.err
    assert "\ntraining, epoch 1, batch 1: backbone." in ended.err


def test_a_run_that_diverged_says_so(command) -> None:
    ended = command(*DIVERGING)
    assert ended.code == 0
    assert "this run has diverged: some of its logits are not numbers; debug=finite says where" in ended.out
    checked = command("debug=finite", "method=cross_entropy", "trainer.max_epochs=2")
    assert "every logit, CAM, loss term, gradient and weight was finite in 2 epochs" in checked.out


def test_several_processes_are_refused() -> None:
    """Each would see a part of the batch only."""
    several = SimpleNamespace(world_size=2, training=True)
    with pytest.raises(UserError, match=r"one process only: give trainer\.devices=1"):
        FiniteCheck().on_fit_start(several, None)
    profiler = step_profile.StepProfiler(warmup=0, timed=1, traced=1)
    profiler._lightning_module = SimpleNamespace(trainer=several)  # as Lightning sets it
    with pytest.raises(UserError, match=r"one process only: give trainer\.devices=1"):
        profiler.start("[Strategy]DDPStrategy.batch_to_device")


# --- breakpoints

STOPPING = """
from saliency_entropy.debugging.finite_check import FiniteCheck
from saliency_entropy.losses import CrossEntropy

class Stopping(CrossEntropy):
    stopped = False

    def forward(self, prediction):
        if not Stopping.stopped:
            Stopping.stopped = True
            breakpoint()
        return super().forward(prediction)
"""


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("kind", "flags"), [("overfit", []), ("fast", []), ("profile", []), ("finite", []), ("fast", ["-m"])], ids=str
)
def test_a_breakpoint_in_a_term_is_reached_and_continued(
    kind: str, flags: list[str], small: list[str], tmp_path: Path
) -> None:
    (tmp_path / "stopping.py").write_text(STOPPING)
    own, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, ROOT / "experiments" / "train.py", *flags, *small, f"runs_dir={tmp_path}/runs",
         f"debug={kind}", "method=cross_entropy", "loss.terms.cross_entropy._target_=stopping.Stopping",
         "trainer.max_epochs=9"],
        stdin=other, stdout=other, stderr=other, cwd=tmp_path,
        env=os.environ | {"TERM": "xterm", "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
    )  # fmt: skip
    os.close(other)
    printed = ""

    def read_until(text: str) -> None:
        nonlocal printed
        end = time.monotonic() + 250
        while text not in printed:
            assert time.monotonic() < end, printed
            if select.select([own], [], [], 1)[0]:
                try:
                    printed += os.read(own, 65536).decode(errors="replace")
                except OSError:  # the other end is closed
                    break
        assert text in printed, printed

    try:
        read_until("(Pdb) ")
        os.write(own, b"print('batch of', 1000 + len(prediction.labels))\n")
        read_until("batch of 1008")
        os.write(own, b"continue\n")
        read_until("results: " if kind == "fast" else "no results are kept of this run")
        while select.select([own], [], [], 1)[0]:
            try:
                if not os.read(own, 65536):
                    break
            except OSError:
                break
        assert process.wait(timeout=200) == 0, printed
    finally:
        process.kill()
        os.close(own)
    assert "━" not in printed
