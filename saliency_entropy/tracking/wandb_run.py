"""Weights & Biases: one W&B run for each run, grouped so that methods can be compared.

W&B gets what the run's own files hold, one row of history an epoch, and no epoch waits for it: an epoch is in
``metrics.csv`` before it is logged, and epochs that W&B lacks when a run goes on are logged from there.
"""

import logging
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from torch.utils.data import default_collate

from saliency_entropy.calibration.operating_points import roc
from saliency_entropy.errors import UserError, in_one_line, whole_number
from saliency_entropy.page.overlay import cam_overlay
from saliency_entropy.run.callbacks import EpochCallback
from saliency_entropy.run.checkpoint import BEFORE, RESUME
from saliency_entropy.run.epochs import read_epochs
from saliency_entropy.run.ranking import SUFFIXES, ranking_scores
from saliency_entropy.run.result import split_figures
from saliency_entropy.run.variants import read_variant, variant_name
from saliency_entropy.run.whole_files import write_atomically
from saliency_entropy.study.run_figures import RankedScores

# Before wandb is imported: its reports of its own errors, to its makers, were not asked for.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
import wandb

from saliency_entropy.tracking.wandb_files import Attempt, read_wandb_attempts, sent_mark

log = logging.getLogger(__name__)

MODES = ("online", "offline")
OVERLAYS_OF_EACH_LABEL = 4
ROC_POINTS = 200
# Of a point of the ROC curves: the false positive rate, and the true one by each score.
ROC_KEYS = ("test/roc/false_positive_rate", *(f"test/roc/true_positive_rate{suffix}" for suffix in SUFFIXES.values()))
# The longest names that W&B takes; a study's may be longer.
GROUP_LENGTH, TAG_LENGTH = 128, 64


@dataclass(eq=False)
class WandbRun:
    """The W&B run of one run, over all its attempts.

    Args:
        folder: the run's folder; the W&B files lie in it.
        config: the resolved configuration: group = study and method, job type = method.
        mode: ``online``, or ``offline`` (no account needed; ``wandb sync`` sends it later). Online goes offline, and
            says so, without an API key, without an answer of the server, and where an earlier attempt of this run
            was logged offline and is not sent yet: the server shall get the epochs in their order. Where an earlier
            attempt was cut off online, only the server knows what it has: without the server, W&B is left out.
        project: W&B project.
        entity: W&B user or team; the account's default, if not given.
        overlay_every: epochs between two sets of CAM overlays.
        begin_seconds: how long to wait for the server at the beginning.
        end_seconds: how long to wait at the end for what is not sent yet; it is sent when the command is given again.

    Raises:
        UserError: an argument cannot be used.
    """

    folder: Path
    config: dict[str, Any]
    mode: str = "online"
    project: str = "saliency_entropy"
    entity: str | None = None
    overlay_every: int = 5
    begin_seconds: float = 5
    end_seconds: float = 20
    name: str = "wandb"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UserError(f"logger.mode is {self.mode!r}; choose {' or '.join(MODES)}")
        whole_number("logger.overlay_every", self.overlay_every, 1)
        for key, seconds in (("begin_seconds", self.begin_seconds), ("end_seconds", self.end_seconds)):
            if not isinstance(seconds, int | float) or not seconds > 0:
                raise UserError(f"logger.{key} is {seconds!r}; give a number of seconds above 0")
        self.callback = WandbEpochs(self)
        self.run: wandb.Run | None = None
        self._logged: set[int] = set()  # epochs

    def begin(self) -> None:
        """Begin the W&B run, or go on with it, and log the epochs that it lacks.

        If anything fails here, the log says so, and the run goes on without W&B.
        """
        if _disabled():
            return
        try:
            identity, attempts = self._identity()
            self.run = self._begun(identity, attempts)
            self._define_metrics()
            if self.run.offline:
                self._logged = set().union(*(attempt.epochs for attempt in attempts))
            else:
                # An earlier attempt may not have sent all that it logged. The server counts the rows that it has, which
                # are one an epoch until the last.
                self._logged = set(range(self.run.starting_step))
            for row in self._epochs_on_disk():
                self.log_epoch(row)
        except Exception as error:
            self._give_up(error)

    def log_epoch(self, row: dict[str, Any]) -> None:
        """Log the figures of one epoch, unless W&B has them."""
        if self.run is None or row["epoch"] in self._logged:
            return
        try:
            self.run.log(row)
        except Exception as error:
            self._give_up(error)
        self._logged.add(row["epoch"])

    def log_result(self, result: dict[str, Any], test_scores: pd.DataFrame) -> None:
        """The final figures as the run's summary, and the ROC of the test split.

        If this fails, the log says so: the figures are in the run's own files, and a run is not lost for W&B.
        """
        if self.run is None:
            return
        try:
            self.run.summary.update(summary(result, test_scores))
            # Not as a table: that is an artifact, for which the server's answer is waited for.
            # Points that the server has already follow the epochs there.
            sent = 0 if self.run.offline else max(0, self.run.starting_step - result["epochs"])
            for point in roc_points(test_scores)[sent:]:
                self.run.log(point)
        except Exception as error:
            log.warning("W&B has not got the final figures (%s); they are in result.json", in_one_line(error, None))

    def add_finished(self, result: dict[str, Any]) -> None:
        """Log a run that is done already, or the part of it that W&B lacks, from its files. It takes seconds, since
        nothing is computed again; CAM overlays are not in the files and are left out."""
        if _disabled():
            return
        _, attempts = self._identity()
        whole = any(ROC_KEYS[1] in row for attempt in attempts for row in attempt.rows)
        if whole and (attempts[-1].offline or attempts[-1].sent):
            return
        log.info("logging %s to W&B from its files", self.folder)
        self.begin()
        self.log_result(result, pd.read_parquet(self.folder / "scores" / "test.parquet"))
        self.finish(0)

    def finish(self, exit_code: int) -> None:
        """End the W&B run, even after a failure: the next run of the process would otherwise log to it."""
        try:
            wandb.finish(exit_code=exit_code)
            if self.run is not None and not self.run.offline and Path(self.run.settings.sync_file).exists():
                sent_mark(self.run.settings.sync_file).touch()
            if self.run is not None and self.run.offline:
                # W&B itself names only the folder of this attempt.
                log.info("logged offline: wandb sync %s/wandb/offline-run-* sends it", self.folder)
        except TimeoutError:
            log.warning(
                "the W&B server has not taken all of this run in %g s; the same command, given again, sends the rest",
                self.end_seconds,
            )
        except Exception as error:
            self._give_up(error)
        self.run = None

    def _identity(self) -> tuple[str, list[Attempt]]:
        """The W&B run's id, which is kept in the run's folder, so that a run that goes on after an interruption is the
        same W&B run; and its attempts so far."""
        file = self.folder / "wandb_id"
        if file.exists():
            identity = file.read_text().strip()
            attempts = read_wandb_attempts(self.folder, identity)
            # Where a run begins anew, the epochs that W&B has are those of another run.
            if self._goes_on or not any(attempt.epochs for attempt in attempts):
                return identity, attempts
        identity = uuid.uuid4().hex[:12]
        write_atomically(file, identity)
        return identity, []

    @property
    def _goes_on(self) -> bool:
        begun = (self.folder / "checkpoints" / name for name in (RESUME, BEFORE))
        return any(file.exists() for file in (*begun, self.folder / "result.json"))

    def _begun(self, identity: str, attempts: list[Attempt]) -> wandb.Run:
        unsent = [attempt.file.parent for attempt in attempts if attempt.offline and not attempt.sent]
        # Beginning the run shows, within a time limit, whether the server answers. Asking whose key it is, to greet its
        # owner, takes 15 seconds if the server does not answer; verify=False for the same reason.
        wandb.setup(settings=wandb.Settings(x_disable_viewer=True))
        if self.mode == "offline":
            pass
        elif unsent:
            log.warning(
                "this run was logged offline before: logging offline, so that its epochs are sent in their order; "
                "wandb sync %s sends what there is",
                " ".join(str(path) for path in unsent),
            )
        elif not wandb.login(prompt=False, verify=False):
            log.warning("no W&B key (wandb login, or WANDB_API_KEY): logging offline; wandb sync sends it later")
        else:
            try:
                # Not "online": that leaves the choice to the user's own WANDB_MODE.
                return self._init(identity, mode=None)
            except Exception as error:
                log.warning("W&B cannot be used (%s): logging offline; wandb sync sends it later", in_one_line(error))
                wandb.teardown()  # W&B's own process still holds the run's id
        if any(attempt.epochs and not attempt.offline and not attempt.sent for attempt in attempts):
            raise UserError(
                "an earlier attempt was logged online, and only the server knows what it has; give the command again "
                "when it answers, and the rest is sent"
            )
        return self._init(identity, mode="offline")

    def _init(self, identity: str, mode: str | None) -> wandb.Run:
        config = self.config
        method = config["method"]["name"]
        variant = read_variant(self.folder.parents[1]) or {}
        study = config["study"].rpartition("/")[0] if variant else config["study"]
        names = study, *(config[key]["name"] for key in ("data", "backbone", "protocol"))
        names += tuple(variant_name({key: value}) for key, value in variant.items())
        return wandb.init(
            id=identity,
            resume="allow",
            name=f"{method}-seed{config['seed']}",
            project=self.project,
            entity=self.entity,
            dir=self.folder,
            mode=mode,
            # The first thing that W&B shows of a project is the mean and spread of each group.
            group=f"{config['study']}/{method}"[-GROUP_LENGTH:],  # its end says of which variant and method it is
            job_type=method,
            tags=list(dict.fromkeys(str(name)[:TAG_LENGTH] for name in names)),
            config=config,
            settings=wandb.Settings(
                init_timeout=self.begin_seconds,
                finish_timeout=self.end_seconds,
                finish_timeout_raises=True,
                # A killed run loses a second of its log rather than 15.
                x_transaction_log_flush_interval=1,
                console="off",  # what is printed is in train.log
            ),
        )

    def _define_metrics(self) -> None:
        """Draw curves against the epoch, which goes on where an attempt stopped; W&B's own count of steps begins anew
        in every offline attempt."""
        self.run.define_metric("epoch", hidden=True)
        self.run.define_metric("*", step_metric="epoch", step_sync=False)
        for split in ("train", "val"):
            self.run.define_metric(f"{split}/human_map_share", step_metric="epoch", step_sync=False, hidden=True)
        for name in ("val/accuracy", "val/auroc", "val/auroc_margin"):
            self.run.define_metric(name, step_metric="epoch", step_sync=False, summary="last,max")
        self.run.define_metric(ROC_KEYS[0], hidden=True, summary="none")
        for rate in ROC_KEYS[1:]:
            self.run.define_metric(rate, step_metric=ROC_KEYS[0], step_sync=False, summary="none")

    def _epochs_on_disk(self) -> list[dict[str, Any]]:
        exists = (self.folder / "metrics.csv").exists()
        return read_epochs(self.folder).to_dict("records") if self._goes_on and exists else []

    def _give_up(self, error: Exception) -> None:
        log.warning("W&B is left out from here (%s); the figures are in the run's own files", in_one_line(error))
        self.run = None


class WandbEpochs(EpochCallback):
    """Logs every epoch, and every few epochs and after the last the CAMs of the same few validation images."""

    def __init__(self, wandb_run: WandbRun) -> None:
        self.wandb_run = wandb_run
        self._overlays: dict[str, list[wandb.Image]] = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        due = epoch % self.wandb_run.overlay_every == 0 or epoch == trainer.max_epochs
        self._overlays = {"val/cam": cam_overlays(trainer, module)} if due and self.wandb_run.run is not None else {}
        super().on_train_epoch_end(trainer, module)

    def log_epoch(self, row: dict[str, float]) -> None:
        # The figures and overlays of an epoch are one row of history.
        self.wandb_run.log_epoch(row | self._overlays)


def cam_overlays(trainer: pl.Trainer, module: pl.LightningModule) -> list[wandb.Image]:
    """The first few validation images of each label, under their CAMs."""
    dataset = trainer.datamodule.val_dataloader().dataset
    labels = (trainer.datamodule.split_table("val")["label"] == "synthetic").to_numpy()
    rows = [row for label in (False, True) for row in np.flatnonzero(labels == label)[:OVERLAYS_OF_EACH_LABEL]]
    batch = type(dataset[0])(*default_collate([dataset[int(row)] for row in rows]))
    was_training = module.training
    module.eval()
    with torch.no_grad():
        prediction = module(module.transfer_batch_to_device(batch, module.device, 0))
    module.train(was_training)
    pictures = []
    for image, cam, label, logits in zip(
        batch.image, prediction.maps.cpu(), batch.label, prediction.logits.cpu(), strict=True
    ):
        truth = "synthetic" if label else "real"
        caption = f"{truth}, p(synthetic) = {logits.float().softmax(0)[1]:.2f}"
        pictures.append(wandb.Image(cam_overlay(image.permute(1, 2, 0).numpy(), cam.numpy()), caption=caption))
    return pictures


def summary(result: dict[str, Any], test_scores: pd.DataFrame) -> dict[str, Any]:
    """The final figures of a run, by the keys that they have in W&B.

    Not ``split/name``: that is the key of the epoch's figure, whose last value the summary keeps. Each generator's
    AUROC is against all real images, as in the report, and absent with fewer than 30 images.
    """
    figures = {key: result[key] for key in ("best_epoch", "wall_seconds", "human_entropy")}
    figures["train_generators"] = generator_list(result["train_generators"])
    # The result of an earlier version has no figure by margin.
    completed = {"test": split_figures(test_scores, result) | result["test"], "val": result["val"]}
    for split in ("val", "test"):
        figures |= {f"best/{split}_{name}": value for name, value in completed[split].items()}
    scores = RankedScores(test_scores, result["train_generators"], result.get("relatives", ()))
    for generator, images in scores.generators.items():
        for name, area in scores.aurocs(images, ~scores.synthetic).items():
            if generator and not np.isnan(area):
                figures[generator_key(generator, name)] = area
    return figures


def generator_list(generators: list[str]) -> str:
    """Generators as one value, by which runs can be filtered."""
    return ", ".join(sorted(generators))


def generator_key(generator: str, name: str = "auroc") -> str:
    # W&B would take a dot in a key for a key within another key's value.
    return f"best/test_{name}/{generator.replace('.', '_')}"


def roc_points(scores: pd.DataFrame) -> list[dict[str, float]]:
    """The ROCs of a score table by both scores, at even false positive rates; none if a score is not finite."""
    synthetic, grid = (scores["label"] == "synthetic").to_numpy(), np.linspace(0, 1, ROC_POINTS)
    ranked = ranking_scores(scores)
    if not all(np.isfinite(values).all() for values in ranked.values()):
        return []
    curves = [roc(values, synthetic).interpolated(grid) for values in ranked.values()]
    return [dict(zip(ROC_KEYS, map(float, point), strict=True)) for point in zip(grid, *curves, strict=True)]


def _disabled() -> bool:
    """Whether the user's environment switches W&B off; if so, the log says so."""
    if os.environ.get("WANDB_MODE") != "disabled":
        return False
    log.warning("W&B is left out, since WANDB_MODE is disabled; the figures are in the run's own files")
    return True
