"""Where the time of a training step goes."""

import logging
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pytorch_lightning.profilers import Profiler
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from saliency_entropy.errors import UserError, whole_number
from saliency_entropy.page.wording import csv_text
from saliency_entropy.run.whole_files import write_atomically

log = logging.getLogger(__name__)

# What is measured. Some parts hold others: the table has the differences.
STEP = "step"
LOADING = "data loading"
TRANSFER = "transfer to the device"
OPTIMIZER_STEP = "optimizer step"  # in which Lightning calls the training step and backward
TRAINING_STEP = "training step"
FORWARD = "forward of the network"
BACKWARD = "backward"
HOOKS = {
    "train_dataloader_next": LOADING,
    "batch_to_device": TRANSFER,
    "optimizer_step": OPTIMIZER_STEP,
    "training_step": TRAINING_STEP,
    "backward": BACKWARD,
}


class StepProfiler(Profiler):
    """A Lightning profiler of the parts of a :class:`~saliency_entropy.module.DetectorModule`'s training step.

    It times each part over some steps, and then traces some more with :mod:`torch.profiler`, whose own cost would be in
    the times. On a GPU it waits for the device at each part's ends while it times, but not while it traces: the times
    are those that the parts take alone, and the trace shows what runs at the same time. Lightning's PyTorchProfiler
    does both at once, and ends a step before its backward.

    Prints the table, ends the training, and leaves ``profile/step.csv`` and ``profile/trace.json.gz`` in the run's
    folder.

    Args:
        warmup: steps that are left out at the beginning.
        timed: steps that are timed.
        traced: steps in the trace.

    Raises:
        UserError: an argument is not a whole number, or too small; or, when the training begins, there are several
            processes.
    """

    def __init__(self, warmup: int, timed: int, traced: int) -> None:
        super().__init__()
        self._trace: profile | None = None
        for name, value, least in (("warmup", warmup, 0), ("timed", timed, 1), ("traced", traced, 1)):
            whole_number(f"trainer.profiler.{name}", value, least)
        self.timed = range(warmup, warmup + timed)
        self.end = warmup + timed + traced
        self.step = 0  # steps done so far
        self.images = 0
        self.seconds: Counter[str] = Counter()
        self.terms: list[str] = []
        self._begun: dict[str, tuple[float, record_function]] = {}

    def start(self, action_name: str) -> None:
        """Lightning names what it does ``[who]Class.hook``."""
        part = HOOKS.get(action_name.rpartition(".")[2])
        if part == LOADING:
            self._begin(STEP)
        if part is not None:
            self._begin(part)

    def stop(self, action_name: str) -> None:
        hook = action_name.rpartition(".")[2]
        if hook in HOOKS:
            self._end(HOOKS[hook])
        elif hook == "on_train_batch_end" and action_name.startswith("[LightningModule]"):  # after the callbacks'
            self._end(STEP)
            self._count_step()

    def _begin(self, part: str) -> None:
        if not self._lightning_module.trainer.training:  # Lightning sets the module
            return
        if not self.terms:
            self._watch_modules()
        named = record_function(part)  # costs nothing while there is no trace
        self._begun[part] = self._now(), named
        named.__enter__()

    def _end(self, part: str) -> None:
        if part not in self._begun:
            return
        begin, named = self._begun.pop(part)
        named.__exit__(None, None, None)
        if self.step in self.timed:
            self.seconds[part] += self._now() - begin

    def _now(self) -> float:
        if self.step in self.timed and self._lightning_module.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _watch_modules(self) -> None:
        """Have the network and each term timed as well: they are modules, and no hooks of Lightning's."""
        module = self._lightning_module
        if module.trainer.world_size > 1:
            raise UserError("a training step is profiled in one process only: give trainer.devices=1")
        self.terms = [f"loss term {name}" for name in module.loss.terms]
        for part, child in zip([FORWARD, *self.terms], [module.backbone, *module.loss.terms.values()], strict=True):
            child.register_forward_pre_hook(lambda *_, part=part: self._begin(part))
            child.register_forward_hook(lambda *_, part=part: self._end(part))
        module.backbone.register_forward_pre_hook(self._count_images)

    def _count_images(self, backbone: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self.step in self.timed and backbone.training:
            self.images += len(inputs[0])

    def _count_step(self) -> None:
        self.step += 1
        if self.step == self.timed.stop:
            # Kineto's own lines, among them an error wherever there is no GPU.
            os.environ.setdefault("KINETO_LOG_LEVEL", "99")
            on_cpu = self._lightning_module.device.type == "cpu"
            self._trace = profile(activities=[ProfilerActivity.CPU, *([] if on_cpu else [ProfilerActivity.CUDA])])
            self._trace.start()
        elif self.step == self.end:
            self._trace.stop()
            self._lightning_module.trainer.should_stop = True

    def teardown(self, stage: str | None) -> None:
        if self._trace is not None and self.step < self.end:  # a run that is too short, an error, or Ctrl-C
            self._trace.stop()
            self._trace = None

    def describe(self) -> None:
        """Lightning calls it at the end of every stage; the first is the training."""
        if self.step < self.end:
            log.warning(
                "no profile: it needs %d training steps, and the run has %d; give more trainer.max_epochs, or fewer "
                "steps in trainer.profiler.warmup, timed and traced",
                self.end, self.step,
            )  # fmt: skip
            return
        folder = Path(self._lightning_module.trainer.default_root_dir) / "profile"
        table = self.table()
        write_atomically(folder / "step.csv", csv_text(table))
        with tempfile.TemporaryDirectory() as temporary:
            trace = Path(temporary) / "trace.json.gz"  # by this name torch knows to compress it
            self._trace.export_chrome_trace(str(trace))
            write_atomically(folder / trace.name, trace.read_bytes())
        total = table["milliseconds"].sum()
        images = self.images / len(self.timed)
        log.info(
            "a training step of %g images takes %.1f ms on %s (mean of %d steps, %.0f images/s):",
            images, total, self._lightning_module.device, len(self.timed), 1000 * images / total,
        )  # fmt: skip
        for part, milliseconds, share in table.itertuples(index=False):
            log.info("  %-36s %9.2f ms %5.1f %%", part, milliseconds, 100 * share)
        log.info("table: %s", folder / "step.csv")
        log.info(
            "trace of %d further steps: %s (open it in https://ui.perfetto.dev or chrome://tracing)",
            self.end - self.timed.stop, folder / "trace.json.gz",
        )  # fmt: skip

    def table(self) -> pd.DataFrame:
        """One row a part: ``part``, ``milliseconds`` a step, ``share`` of the step. The parts sum up to the step."""
        seconds = self.seconds
        terms = {term: seconds[term] for term in self.terms}
        parts = {
            LOADING: seconds[LOADING],
            TRANSFER: seconds[TRANSFER],
            FORWARD: seconds[FORWARD],
            **terms,
            "CAM and metrics": seconds[TRAINING_STEP] - seconds[FORWARD] - sum(terms.values()),
            BACKWARD: seconds[BACKWARD],
            "optimizer": seconds[OPTIMIZER_STEP] - seconds[TRAINING_STEP] - seconds[BACKWARD],
            "callbacks and training loop": seconds[STEP]
            - sum(seconds[part] for part in (LOADING, TRANSFER, OPTIMIZER_STEP)),
        }
        table = pd.Series(parts, name="milliseconds").rename_axis("part").reset_index()
        table["milliseconds"] *= 1000 / len(self.timed)
        return table.assign(share=table["milliseconds"] / table["milliseconds"].sum())
