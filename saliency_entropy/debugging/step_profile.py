"""Where the time of a training step goes."""

import logging
import os
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.profilers import Profiler
from torch import Tensor, nn

from saliency_entropy.errors import UserError
from saliency_entropy.run.folder import write_atomically, written_whole

log = logging.getLogger(__name__)

# What is measured. Some of it holds others: the table has the differences.
STEP = "step"
LOADING = "data loading"
TRANSFER = "transfer to the device"
OPTIMIZER_STEP = "optimizer step"  # in which Lightning calls the training step and backward
TRAINING_STEP = "training step"
FORWARD = "forward of the network"
BACKWARD = "backward"
HOOKS = {
    "batch_to_device": TRANSFER,
    "optimizer_step": OPTIMIZER_STEP,
    "training_step": TRAINING_STEP,
    "backward": BACKWARD,
}


class StepProfiler(Profiler):
    """A Lightning profiler of the parts of a :class:`~saliency_entropy.module.DetectorModule`'s training step.

    It times each part over some steps, and then traces some more with :mod:`torch.profiler`, whose own cost would be in
    the times. On a GPU it waits for the device at each part's ends while it times, but not while it traces: the times
    are those that the parts take alone, and the trace shows what runs at the same time.

    Prints the table, ends the training, and leaves ``profile/step.csv`` and ``profile/trace.json.gz`` in the run's
    folder.

    Args:
        warmup: steps that are left out at the beginning.
        timed: steps that are timed.
        traced: steps in the trace.

    Raises:
        UserError: one of these is no whole number, or too small; or, when the training begins, there are several
            processes.
    """

    def __init__(self, warmup: int, timed: int, traced: int) -> None:
        super().__init__()
        self._trace: torch.profiler.profile | None = None
        for name, value, least in (("warmup", warmup, 0), ("timed", timed, 1), ("traced", traced, 1)):
            if type(value) is not int or value < least:
                raise UserError(f"trainer.profiler.{name} is {value!r}; give a whole number from {least} on")
        self.first_timed = warmup
        self.first_traced = warmup + timed
        self.end = warmup + timed + traced
        self.step = 0  # done so far
        self.images = 0
        self.seconds: Counter[str] = Counter()
        self.terms: list[str] = []
        self._begun: dict[str, float] = {}
        self._ranges: dict[str, torch.profiler.record_function] = {}

    @property
    def _trainer(self) -> pl.Trainer:
        return self._lightning_module.trainer  # Lightning sets it

    @property
    def _timing(self) -> bool:
        return self.first_timed <= self.step < self.first_traced

    def start(self, action_name: str) -> None:
        if action_name == "run_training_epoch":
            self._begin(LOADING)
            return
        part = self._part(action_name)
        if part == TRANSFER:
            if not self._trainer.training:  # a validation batch
                return
            if not self.terms:
                self._watch_modules()
            self._end(LOADING)
            self._begin(STEP)
        if part is not None:
            self._begin(part)

    def stop(self, action_name: str) -> None:
        if action_name == "run_training_epoch":
            self._begun.pop(LOADING, None)  # of a batch that does not come
            return
        if action_name.startswith("[LightningModule]") and action_name.endswith(".on_train_batch_end"):
            self._end(STEP)
            self._count_step()
            # Lightning does not say when it waits for the next batch: from here until that is transferred.
            self._begin(LOADING)
        elif (part := self._part(action_name)) is not None:
            self._end(part)

    def _part(self, action_name: str) -> str | None:
        """Lightning names what it does ``[who]Class.hook``."""
        who, _, hook = action_name.rpartition(".")
        return None if who.startswith("[Callback]") else HOOKS.get(hook)

    def _begin(self, part: str) -> None:
        if self._trace is not None:
            self._ranges[part] = torch.profiler.record_function(part)
            self._ranges[part].__enter__()
        self._begun[part] = self._now()

    def _end(self, part: str) -> None:
        if part not in self._begun:
            return
        seconds = self._now() - self._begun.pop(part)
        if self._timing:
            self.seconds[part] += seconds
        if part in self._ranges:
            self._ranges.pop(part).__exit__(None, None, None)

    def _now(self) -> float:
        if self._timing and self._lightning_module.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _watch_modules(self) -> None:
        """Have the network and each term timed as well: they are modules, and no hooks of Lightning's."""
        if self._trainer.world_size > 1:
            raise UserError("a training step is profiled in one process only: give trainer.devices=1")
        module = self._lightning_module
        self.terms = [f"loss term {name}" for name in module.loss.terms]
        for part, child in zip([FORWARD, *self.terms], [module.backbone, *module.loss.terms.values()], strict=True):
            child.register_forward_pre_hook(partial(self._enter, part))
            child.register_forward_hook(partial(self._leave, part))

    def _enter(self, part: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self._trainer.training:
            self._begin(part)
            if part == FORWARD and self._timing:
                self.images += len(inputs[0])

    def _leave(self, part: str, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        self._end(part)

    def _count_step(self) -> None:
        self.step += 1
        if self.step == self.first_traced:
            # Kineto's own lines, among them an error wherever there is no GPU.
            os.environ.setdefault("KINETO_LOG_LEVEL", "99")
            self._trace = torch.profiler.profile(activities=self._activities())
            self._trace.start()
        elif self.step == self.end:
            self._trace.stop()
            self._trainer.should_stop = True

    def _activities(self) -> list[torch.profiler.ProfilerActivity]:
        device = self._lightning_module.device.type
        activities = torch.profiler.ProfilerActivity
        return [activities.CPU] if device == "cpu" else [activities.CPU, activities.CUDA]

    def describe(self) -> None:
        """Lightning calls it at the end of every stage; the first is the training."""
        if self.step < self.end:
            if self._trace is not None:
                self._trace.stop()
            log.warning(
                "no profile: it needs %d training steps, and the run has %d; give more trainer.max_epochs, or fewer "
                "steps in trainer.profiler.warmup, timed and traced",
                self.end, self.step,
            )  # fmt: skip
            return
        folder = Path(self._trainer.default_root_dir) / "profile"
        table = self.table()
        write_atomically(folder / "step.csv", table.to_csv(index=False))
        with written_whole(folder / "trace.json.gz") as temporary:
            # It is by its name that torch knows whether to compress the trace.
            unpacked = temporary.with_name(f"{temporary.name}.json.gz")
            try:
                self._trace.export_chrome_trace(str(unpacked))
                unpacked.replace(temporary)
            finally:
                unpacked.unlink(missing_ok=True)
        total = table["milliseconds"].sum()
        steps = self.first_traced - self.first_timed
        images = self.images / steps
        log.info(
            "a training step of %g images takes %.1f ms on %s (mean of %d steps, %.0f images/s):",
            images, total, self._lightning_module.device, steps, 1000 * images / total,
        )  # fmt: skip
        for part, milliseconds, share in table.itertuples(index=False):
            log.info("  %-36s %9.2f ms %5.1f %%", part, milliseconds, 100 * share)
        log.info("table: %s", folder / "step.csv")
        log.info(
            "trace of %d further steps: %s (open it in https://ui.perfetto.dev or chrome://tracing)",
            self.end - self.first_traced, folder / "trace.json.gz",
        )  # fmt: skip

    def table(self) -> pd.DataFrame:
        """One row a part: ``part``, ``milliseconds`` a step, ``share`` of the step. The parts sum up to the step."""
        seconds = self.seconds
        of_terms = {term: seconds[term] for term in self.terms}
        parts = {
            LOADING: seconds[LOADING],
            TRANSFER: seconds[TRANSFER],
            FORWARD: seconds[FORWARD],
            **of_terms,
            "CAM and metrics": seconds[TRAINING_STEP] - seconds[FORWARD] - sum(of_terms.values()),
            BACKWARD: seconds[BACKWARD],
            "optimizer": seconds[OPTIMIZER_STEP] - seconds[TRAINING_STEP] - seconds[BACKWARD],
            "callbacks and training loop": seconds[STEP] - seconds[TRANSFER] - seconds[OPTIMIZER_STEP],
        }
        total = seconds[LOADING] + seconds[STEP]
        return pd.DataFrame(
            {
                "part": list(parts),
                "milliseconds": [1000 * value / (self.first_traced - self.first_timed) for value in parts.values()],
                "share": [value / total for value in parts.values()],
            }
        )

    def teardown(self, stage: str | None) -> None:
        if self._trace is not None and self.step < self.end:  # an error, or Ctrl-C
            self._trace.stop()
