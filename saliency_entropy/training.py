"""One run: from its configuration to its ``result.json``, in the five steps of :func:`train_and_score`."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

from saliency_entropy.backbone import Backbone
from saliency_entropy.cam import CAM_CLASSES
from saliency_entropy.cpu.process import use_cores
from saliency_entropy.data import FaceDataModule
from saliency_entropy.data.table import data_hash, images_hash
from saliency_entropy.errors import UserError, in_one_line, is_no_room, whole_number
from saliency_entropy.losses import LossSum
from saliency_entropy.metrics import score_table
from saliency_entropy.module import DetectorModule
from saliency_entropy.run import attempts, callbacks, devices, trainer_options
from saliency_entropy.run import folder as run_folder
from saliency_entropy.run import lock as run_lock
from saliency_entropy.run.checkpoint import begin_anew, best_checkpoint, checkpoint_to_resume, read_best
from saliency_entropy.run.result import (
    IMAGES,
    SCORED_SPLITS,
    git_commit,
    headline,
    save_result,
    save_scores,
    score_schema,
    versions,
)
from saliency_entropy.run.whole_files import remove_parts

log = logging.getLogger(__name__)
# The libraries' messages about hardware, weights and stopping add nothing to this package's own.
for library in ("pytorch_lightning", "lightning_fabric", "timm", "matplotlib"):
    logging.getLogger(library).setLevel(logging.WARNING)
# This is Lightning's own use of PyTorch, not the user's.
warnings.filterwarnings("ignore", message=".*LeafSpec", module="pytorch_lightning")
# The first comes on a machine that can submit jobs without being part of one. The others come to several processes,
# which share batches in the way of saliency_entropy.data.loaders and compute their figures together.
warnings.filterwarnings("ignore", message="The `srun` command is available")
warnings.filterwarnings("ignore", message="You are using a custom batch sampler")
warnings.filterwarnings("ignore", message="It is recommended to use `self.log.*sync_dist=True")
warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
# A run that goes on has such a folder.
warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")


def train(cfg: DictConfig, folder: Path) -> None:
    """Train one detector, take its best epoch, score the validation and test images.

    A finished run of the same configuration is left as it is; an unfinished run goes on after its last whole epoch.
    A run that failed is tried again, ``cfg.max_attempts`` times in all.

    Args:
        cfg: the composed ``conf/train.yaml``.
        folder: the folder for everything that the run writes.

    Raises:
        UserError: something the user gave cannot be used, another process trains the run, or the disk is full.
    """
    config = checked(cfg)
    if not devices.is_first(cfg.trainer):
        # Only the first process writes and prints; it holds the folder for all of them.
        logging.getLogger("saliency_entropy").setLevel(logging.ERROR)
    if run_folder.is_done(folder, config):
        log.info("%s is done: nothing to do", folder)
        if "_target_" in cfg.logger and devices.is_first(cfg.trainer):
            with run_lock.held(folder):
                instantiate(cfg.logger)(folder=folder, config=config).add_finished(run_folder.finished_result(folder))
        return
    try:
        with _claimed(cfg, config, folder) as to_train:
            if to_train:
                train_and_score(cfg, config, folder)
    except OSError as error:
        if not is_no_room(error):
            raise
        raise UserError(
            f"{folder} cannot be written to ({error.strerror}): make room, and give the same command again; the run "
            "goes on after its last whole epoch"
        ) from error


def train_and_score(cfg: DictConfig, config: dict[str, Any], folder: Path) -> None:
    """The five steps of a run whose folder is held."""
    stopwatch = callbacks.Stopwatch()
    first = devices.is_first(cfg.trainer)
    # Read now: by the end of the run the checkout may be at a commit whose code this run did not execute.
    code = {"versions": versions(), "git_commit": git_commit()}
    use_cores(cfg.threads)
    # Else PyTorch's deterministic algorithms fill every new tensor with NaN, to show who reads what nobody has written.
    torch.utils.deterministic.fill_uninitialized_memory = False
    pl.seed_everything(cfg.seed, workers=True, verbose=False)

    # 1. The network, its loss and the images.
    module, data = build(cfg, config)
    if first:
        digest = data_hash(data.manifest.table)
        run_folder.check_same_data(folder, digest)
        names, digests = data.decoded()
        run_folder.check_same_images(folder, names, digests.astype("<i8").tobytes() if digests.all() else b"")
        run_folder.save_data_hash(folder, digest)
        run_folder.save_config(folder, cfg)
        run_folder.describe_files(folder, cfg.method.name, cfg.seed)
    # Before the logger, which reads the epochs so far from metrics.csv.
    resume = checkpoint_to_resume(folder, first)
    with _logged(cfg, config, folder) as wandb_run:
        # 2. The Trainer, with the callbacks that save and watch the run.
        end = devices.EndTogether() if devices.requested_processes(cfg.trainer) > 1 else None
        trainer = build_trainer(cfg, folder, wandb_run, stopwatch, end)
        trainer_options.check_callbacks(trainer.callbacks, module.figures)
        devices.warn_of_batch_normalisation(trainer, module)
        with attempts.attempt(folder) if first else nullcontext(), end.noting_sigterm() if end else nullcontext():
            # 3. Train, starting after the last whole epoch.
            fit(trainer, module, data, resume)
            if not cfg.checkpoints:
                log.info("no results are kept of this run (checkpoints=false); its log: %s", folder / "train.log")
                return
            # 4. Score the images with the weights of the best epoch.
            load_best(module, folder)
            scores = score(trainer, module, data)
            # 5. Keep the scores and the result. With result.json, written last, the run is done.
            if first:
                for split, table in scores.items():
                    about = {IMAGES: table.attrs["images"]}
                    save_scores(folder / "scores" / f"{split}.parquet", [table], score_schema(table), about)
                result = save_result(folder, config, data.summary(), scores, code, stopwatch.seconds, wandb_run)
    if first:
        log.info("%s", headline(result))
        log.info("results: %s", folder)


@contextmanager
def _claimed(cfg: DictConfig, config: dict[str, Any], folder: Path) -> Iterator[bool]:
    """Hold the run's folder; yields whether there is anything left to train."""
    if not devices.is_first(cfg.trainer):
        # The first process reports the signal; Lightning would kill it if another process reported it.
        with suppress(SIGTERMException):
            yield True
        return
    with run_lock.held(folder) as killed_owner:
        if run_folder.is_done(folder, config):  # another process has finished it in the meantime
            log.info("%s is done: nothing to do", folder)
            yield False
            return
        if run_folder.differing_keys(folder, config):
            (folder / "attempts.json").unlink(missing_ok=True)  # they were attempts at another configuration
        attempts.refuse_after_failures(folder, cfg.max_attempts)
        attempts.date_killed_attempt(folder, killed_owner)
        attempts.refuse_endless_requeue(folder)
        remove_parts(folder)
        yield True


@contextmanager
def _logged(cfg: DictConfig, config: dict[str, Any], folder: Path) -> Iterator[Any]:
    """The run in the configured logger, which ends when the run ends; None if there is no logger."""
    if not devices.is_first(cfg.trainer) or "_target_" not in cfg.logger:
        yield None
        return
    wandb_run = instantiate(cfg.logger)(folder=folder, config=config)
    wandb_run.begin()
    try:
        yield wandb_run
    except BaseException:
        wandb_run.finish(exit_code=1)
        raise
    wandb_run.finish(exit_code=0)


def checked(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain values.

    Raises:
        UserError: a run cannot be trained with one of the values.
    """
    config = run_folder.plain_values(cfg)
    # Hydra's output folder of a single run has been checked like this before, but that of a run in a sweep has not.
    run_folder.run_folder(cfg.runs_dir, cfg.study, cfg.method.name, cfg.seed)
    for key in ("trainer.max_epochs", "protocol.batch_size", "max_attempts"):
        whole_number(key, OmegaConf.select(cfg, key), 1)
    whole_number("threads", config["threads"], 1, or_null=True)
    trainer_options.check_options(config)
    devices.check_launch(cfg.trainer)
    _class_index(config)
    return config


def _class_index(config: dict[str, Any]) -> str:
    class_index = config["protocol"]["class_index"]
    if class_index is True:  # YAML reads protocol.class_index=true like this
        class_index = "true"
    if class_index not in CAM_CLASSES:
        raise UserError(f"protocol.class_index is {class_index!r}; choose one of {', '.join(CAM_CLASSES)}")
    return class_index


def build(cfg: DictConfig, config: dict[str, Any]) -> tuple[DetectorModule, FaceDataModule]:
    """The module and its data, checked against each other."""
    devices.require_gpu(cfg.trainer)
    loss = build_loss(cfg)
    data = instantiate(cfg.data, _convert_="all")
    # What fails quickly comes first: the manifest, then the weights of the network, then the contents of every image.
    _ = data.manifest
    for name in loss.terms_needing_human_maps:
        data.require_human_maps(f"method {config['method']['name']} (term {name})")
    backbone = Backbone(**config["backbone"])
    data.map_size = backbone.cam_size
    loss.check_targets(backbone.cam_size[0] * backbone.cam_size[1])
    data.setup()
    return build_module(cfg, config, backbone, loss), data


def build_module(cfg: DictConfig, config: dict[str, Any], backbone: Backbone, loss: LossSum) -> DetectorModule:
    """The module, after a check that its optimizer and schedule can be built."""
    module = DetectorModule(
        backbone,
        loss,
        optimizer=instantiate(cfg.protocol.optimizer),
        scheduler=instantiate(cfg.protocol.scheduler),
        class_index=_class_index(config),
        detector_config={"backbone": config["backbone"], "class_index": _class_index(config)},
    )
    try:
        module.configure_optimizers()
    except (TypeError, ValueError) as error:
        raise UserError(f"protocol.optimizer or protocol.scheduler cannot be used ({error}); correct it") from error
    return module


def build_loss(cfg: DictConfig) -> LossSum:
    """The sum of the terms in ``cfg.loss.terms``."""
    for name, term in cfg.loss.terms.items():
        # Where the method has no term x, +loss.terms.x.weight=0.3 silently makes a term without a _target_.
        if not isinstance(term, DictConfig) or "_target_" not in term:
            raise UserError(
                f"loss.terms.{name} is {term}, not a loss term: method {cfg.method.name} has no term of that name; "
                f"add the complete term with +term@loss.terms={name} loss.terms.{name}.weight=..."
            )
    return LossSum(instantiate(cfg.loss.terms, _convert_="all"))


def build_trainer(
    cfg: DictConfig,
    folder: Path,
    wandb_run: Any,
    stopwatch: callbacks.Stopwatch,
    end: devices.EndTogether | None,
) -> pl.Trainer:
    """The Trainer with the loggers and callbacks that every run has."""
    if cfg.trainer.max_epochs != cfg.protocol.max_epochs and not cfg.trainer.get("profiler"):  # which ends on its own
        epochs = f"{cfg.trainer.max_epochs} epoch{'s' * (cfg.trainer.max_epochs != 1)}"
        log.info("%s (the %s protocol has %s)", epochs, cfg.protocol.name, cfg.protocol.max_epochs)
    options = instantiate(cfg.trainer, _convert_="all")  # a profiler is given by its _target_
    bars = callbacks.progress_bars() if options.pop("enable_progress_bar", True) else []
    # Their order counts: the row of an epoch is written before the state from which an interrupted run goes on.
    watchers = [
        *bars,
        stopwatch,
        callbacks.EarlyEnd(),
        callbacks.EpochSeed(cfg.seed),
        callbacks.MetricsTable(folder / "metrics.csv"),
    ]
    if not bars:
        watchers.append(callbacks.EpochLines(f"{cfg.method.name} seed {cfg.seed}", cfg.trainer.max_epochs))
    if cfg.checkpoints:
        checkpoints = folder / "checkpoints"
        watchers += [callbacks.BestCheckpoint(checkpoints), callbacks.resume_checkpoint(checkpoints)]
    if wandb_run is not None:
        watchers.append(wandb_run.callback)
    if end is not None:
        watchers.append(end)
    watchers += instantiate(cfg.callbacks).values()
    try:
        if options.get("max_time") is not None:  # Lightning's timer would end a run in the middle of an epoch
            watchers.append(Timer(options.pop("max_time"), interval="epoch"))
        return pl.Trainer(
            **devices.trainer_options(cfg.trainer),
            **options,
            logger=False,
            callbacks=watchers,
            plugins=[callbacks.WholeFiles(), devices.cluster_environment(cfg.trainer)],
            default_root_dir=folder,
            enable_progress_bar=bool(bars),
            enable_model_summary=False,
        )
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UserError(f"trainer: {in_one_line(error, None)}") from error


def fit(trainer: pl.Trainer, module: DetectorModule, data: FaceDataModule, resume: Path | None) -> None:
    """Train, going on from a checkpoint if there is one.

    Raises:
        UserError: an option or a callback of the Trainer cannot be used.
    """
    if resume is not None:
        log.info("going on from %s", resume)
    try:
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    except MisconfigurationException as error:
        raise UserError(f"trainer or callbacks: {in_one_line(error, None)}") from error


def load_best(module: DetectorModule, folder: Path) -> None:
    """Give the module the weights of its best epoch.

    Raises:
        UserError: the weights cannot be read, or belong to another network.
    """
    weights = read_best(folder).get("state_dict")
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        best, why = best_checkpoint(folder), in_one_line(error)
        raise UserError(f"{best} does not fit this run ({why}); {begin_anew(best)}") from None


def score(trainer: pl.Trainer, module: DetectorModule, data: FaceDataModule) -> dict[str, pd.DataFrame]:
    """The score table of each scored split: the manifest's columns, and the detector's scores of each image."""
    scores = {}
    for split, loader in zip(SCORED_SPLITS, data.predict_dataloader(), strict=True):
        batches = trainer.predict(module, loader)
        if trainer.received_sigterm:  # Lightning ignores the signal here
            raise SIGTERMException
        own = {name: np.concatenate([batch[name].cpu().numpy() for batch in batches]) for name in batches[0]}
        # In the manifest's order, whichever process had which images.
        columns = pd.DataFrame(devices.gather_columns(own)).sort_values("row", ignore_index=True)
        scores[split] = score_table(data.manifest.table.loc[columns["row"]], columns)
        scores[split].attrs["images"] = images_hash(scores[split]["path"], columns["digest"].to_numpy())
    return scores
