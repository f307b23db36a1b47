"""One run, from its configuration to its ``result.json``."""

import datetime
import hashlib
import importlib.metadata
import json
import logging
import subprocess
import warnings
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

from saliency_entropy import attempts, callbacks, processes, run_folder, run_lock
from saliency_entropy.backbone import Backbone
from saliency_entropy.cam import CAM_CLASSES
from saliency_entropy.checkpoint import best_checkpoint, best_epoch, checkpoint_to_resume, file_digest, read_best
from saliency_entropy.data import FaceDataModule
from saliency_entropy.data.manifest import thread_count
from saliency_entropy.errors import UserError, in_one_line, is_no_room
from saliency_entropy.losses import LossSum
from saliency_entropy.metrics import auroc, unseen_images
from saliency_entropy.module import DetectorModule

log = logging.getLogger(__name__)
# Their messages about hardware, weights and stopping say nothing that is not said here.
for library in ("pytorch_lightning", "lightning_fabric", "timm", "matplotlib"):
    logging.getLogger(library).setLevel(logging.WARNING)
# Lightning's own use of PyTorch, not the user's.
warnings.filterwarnings("ignore", message=".*LeafSpec", module="pytorch_lightning")
# On a machine that can submit jobs but is none, and what several processes are told that share batches as is said in
# saliency_entropy.data.shared_batches and compute their figures together.
warnings.filterwarnings("ignore", message="The `srun` command is available")
warnings.filterwarnings("ignore", message="You are using a custom batch sampler")
warnings.filterwarnings("ignore", message="It is recommended to use `self.log.*sync_dist=True")
warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
# As it should be: a run that goes on.
warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")

SCORED_SPLITS = ("val", "test")


def train(cfg: DictConfig, folder: Path) -> None:
    """Train one detector, take its best epoch, score the validation and test images.

    A finished run of the same configuration is left as it is; an unfinished one goes on after its last whole epoch.
    One that failed is tried again, ``cfg.max_attempts`` times in all.

    Args:
        cfg: the composed ``conf/train.yaml``.
        folder: where the run leaves everything.

    Raises:
        UserError: something the user gave cannot be used, another process trains the run, or the disk is full.
    """
    config = checked(cfg)
    if not processes.is_first(cfg.trainer):
        # Everything that is said and written is so by the first process, which holds the folder for all.
        logging.getLogger("saliency_entropy").setLevel(logging.ERROR)
    if run_folder.is_done(folder, config):
        if "_target_" in cfg.logger and processes.is_first(cfg.trainer):
            with run_lock.held(folder):
                instantiate(cfg.logger)(folder=folder, config=config).add_finished(run_folder.finished_result(folder))
        return
    try:
        if processes.is_first(cfg.trainer):
            _train_here(cfg, config, folder)
        else:
            with suppress(SIGTERMException):  # which the first tells; Lightning answers a code of another by killing it
                _train(cfg, config, folder)
    except OSError as error:
        if not is_no_room(error):
            raise
        raise UserError(
            f"{folder} cannot be written to ({error.strerror}): make room, and give the same command again; the run "
            "goes on after its last whole epoch"
        ) from error


def _train_here(cfg: DictConfig, config: dict[str, Any], folder: Path) -> None:
    with run_lock.held(folder) as before:
        if run_folder.is_done(folder, config):  # since then, by another process
            return
        if run_folder.differing_keys(folder, config):
            attempts.forget_attempts(folder)  # they were of something else
        attempts.check_attempts(folder, cfg.max_attempts)
        attempts.note_end(folder, before)
        attempts.check_gets_on(folder)
        run_folder.remove_parts(folder)
        _train(cfg, config, folder)


def _train(cfg: DictConfig, config: dict[str, Any], folder: Path) -> None:
    stopwatch = callbacks.Stopwatch()
    # Now: at the end the checkout may be at another commit, of which nothing has been run.
    code = {"versions": versions(), "git_commit": git_commit()}
    torch.set_num_threads(cfg.threads or thread_count())
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    module, data = build(cfg, config)
    first = processes.is_first(cfg.trainer)
    if first:
        run_folder.check_same_data(folder, data_hash(data.manifest.table))
        run_folder.save_config(folder, cfg)

    logs = first and "_target_" in cfg.logger
    wandb_run = instantiate(cfg.logger)(folder=folder, config=config) if logs else None
    if wandb_run is not None:
        wandb_run.begin()
    try:
        end = processes.shared_end(cfg.trainer)
        trainer = build_trainer(cfg, folder, wandb_run, stopwatch, end)
        processes.warn_of_batch_normalisation(trainer, module)
        with attempts.attempt(folder) if first else nullcontext(), end.noticing() if end else nullcontext():
            fit(trainer, module, data, folder, first)
            if cfg.checkpoints:
                load_best(module, folder)
                scores = score(trainer, module, data)
                if not first:
                    return
                for split, table in scores.items():
                    save_scores(folder / "scores" / f"{split}.parquet", table)
                result = (
                    summarise(config, folder, data, scores)
                    | code
                    | {
                        "wall_seconds": round(stopwatch.seconds, 1),
                        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                    }
                )
                if wandb_run is not None:
                    wandb_run.log_result(result, scores["test"])
                run_folder.write_atomically(folder / "result.json", json.dumps(result, indent=2) + "\n")
    except BaseException:
        if wandb_run is not None:
            wandb_run.finish(exit_code=1)
        raise
    if wandb_run is not None:
        wandb_run.finish(exit_code=0)
    if cfg.checkpoints:
        log.info("%s", headline(result))
        if not all(np.isfinite(table[["logit_real", "logit_synthetic"]]).all(axis=None) for table in scores.values()):
            log.warning(
                "this run has diverged: it gives logits that are no numbers; debug=finite says where they begin"
            )
        log.info("results: %s", folder)
    else:
        log.info("no results are kept of this run (checkpoints=false); its log: %s", folder / "train.log")


def checked(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain values.

    Raises:
        UserError: a value is not one that a run can be trained with.
    """
    config = OmegaConf.to_container(cfg, resolve=True)
    # Of a single run Hydra's output folder has been checked like this before, of a run in a sweep it has not.
    run_folder.run_folder(cfg.runs_dir, cfg.study, cfg.method.name, cfg.seed)
    for group, key in (("trainer", "max_epochs"), ("protocol", "batch_size")):
        value = config[group][key]
        if not isinstance(value, int) or value < 1:
            raise UserError(f"{group}.{key} is {value!r}; give a whole number from 1 on")
    if type(config["max_attempts"]) is not int or config["max_attempts"] < 1:
        raise UserError(f"max_attempts is {config['max_attempts']!r}; give a whole number from 1 on")
    if config["threads"] is not None and (not isinstance(config["threads"], int) or config["threads"] < 1):
        raise UserError(f"threads is {config['threads']!r}; give a whole number from 1 on, or null for every core")
    processes.check_launch(cfg.trainer)
    _class_index(config)
    return config


def _class_index(config: dict[str, Any]) -> str:
    class_index = config["protocol"]["class_index"]
    if class_index is True:  # what YAML makes of protocol.class_index=true
        class_index = "true"
    if class_index not in CAM_CLASSES:
        raise UserError(f"protocol.class_index is {class_index!r}; choose one of {', '.join(CAM_CLASSES)}")
    return class_index


def build(cfg: DictConfig, config: dict[str, Any]) -> tuple[DetectorModule, FaceDataModule]:
    """The module and its data, checked against each other."""
    loss = build_loss(cfg)
    data = instantiate(cfg.data, _convert_="all")
    # First what is found out at once: the manifest, then the network's weights, then what is in every image file.
    _ = data.manifest
    for name in loss.terms_needing_human_maps:
        data.require_human_maps(f"method {config['method']['name']} (term {name})")
    backbone = Backbone(**config["backbone"])
    data.map_size = backbone.cam_size
    data.setup()
    return build_module(cfg, config, backbone, loss), data


def build_module(cfg: DictConfig, config: dict[str, Any], backbone: Backbone, loss: LossSum) -> DetectorModule:
    """The module, with an optimizer that can be used."""
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
        # +loss.terms.x.weight=0.3 makes such a thing without a word where the method has no term x.
        if not isinstance(term, DictConfig) or "_target_" not in term:
            raise UserError(
                f"loss.terms.{name} is {term}, not a loss term: method {cfg.method.name} has no term of that name; "
                f"add it whole with +term@loss.terms={name} loss.terms.{name}.weight=..."
            )
    return LossSum(instantiate(cfg.loss.terms, _convert_="all"))


def build_trainer(
    cfg: DictConfig,
    folder: Path,
    wandb_run: Any,
    stopwatch: callbacks.Stopwatch,
    end: processes.SharedEnd | None,
) -> pl.Trainer:
    """The Trainer with the loggers and callbacks that every run has."""
    if cfg.trainer.max_epochs != cfg.protocol.max_epochs:
        log.info(
            "%d %s (the %s protocol has %s)",
            cfg.trainer.max_epochs,
            "epoch" if cfg.trainer.max_epochs == 1 else "epochs",
            cfg.protocol.name,
            cfg.protocol.max_epochs,
        )
    options = instantiate(cfg.trainer, _convert_="all")  # a profiler is given by its _target_
    bars = callbacks.progress_bars() if options.pop("enable_progress_bar", True) else []
    # In this order: the epoch's row is written before the state that an interrupted run goes on from.
    watchers = [*bars, stopwatch, callbacks.EpochSeed(cfg.seed), callbacks.MetricsTable(folder / "metrics.csv")]
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
        return pl.Trainer(
            **processes.trainer_options(cfg.trainer),
            **options,
            logger=False,
            callbacks=watchers,
            plugins=[callbacks.WholeFiles(), processes.environment(cfg.trainer)],
            default_root_dir=folder,
            enable_progress_bar=bool(bars),
            enable_model_summary=False,
        )
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UserError(f"trainer: {in_one_line(error, None)}") from error


def fit(trainer: pl.Trainer, module: DetectorModule, data: FaceDataModule, folder: Path, first: bool) -> None:
    """Train, from the last whole epoch if there is one."""
    resume = checkpoint_to_resume(folder, first)
    if resume is not None:
        log.info("going on from %s", resume)
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)


def load_best(module: DetectorModule, folder: Path) -> None:
    """Give the module the weights of its best epoch.

    Raises:
        UserError: they cannot be read, or are of another network.
    """
    weights = read_best(folder).get("state_dict")
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        best, why = best_checkpoint(folder), in_one_line(error)
        raise UserError(
            f"{best} does not fit this run ({why}); delete {best.parent}, and the run begins anew"
        ) from None


def score(trainer: pl.Trainer, module: DetectorModule, data: FaceDataModule) -> dict[str, pd.DataFrame]:
    """The score table of each scored split: the manifest's columns and what the detector says of each image."""
    scores = {}
    for split, loader in zip(SCORED_SPLITS, data.predict_dataloader(), strict=True):
        batches = trainer.predict(module, loader)
        if trainer.received_sigterm:  # of which Lightning takes no notice here
            raise SIGTERMException
        own = {name: np.concatenate([batch[name].cpu().numpy() for batch in batches]) for name in batches[0]}
        # In the manifest's order, whichever process had which images.
        columns = pd.DataFrame(processes.columns_of_all(own)).sort_values("row")
        table = data.manifest.table.loc[columns.pop("row")]
        scores[split] = table.reset_index(drop=True).assign(**columns.reset_index(drop=True))
    return scores


def save_scores(path: Path, table: pd.DataFrame) -> None:
    run_folder.write_atomically(path, table.to_parquet(index=False))


def summarise(
    config: dict[str, Any], folder: Path, data: FaceDataModule, scores: dict[str, pd.DataFrame]
) -> dict[str, Any]:
    """The content of ``result.json``, but for the time and the code."""
    epochs = pd.read_csv(folder / "metrics.csv")
    human_entropy = epochs["train/human_entropy"].iloc[-1]
    return {
        "method": config["method"]["name"],
        "title": config["method"]["title"],
        "seed": config["seed"],
        "study": config["study"],
        "backbone": config["backbone"]["name"],
        "data": config["data"]["name"],
        "best_epoch": best_epoch(folder),
        "epochs": len(epochs),
        "train_generators": data.train_generators,
        "cam_cells": int(np.prod(data.map_size)),
        "human_entropy": None if np.isnan(human_entropy) else float(human_entropy),
        "data_hash": data_hash(data.manifest.table),
        "left_out": data.left_out,
        "unread": {kind: count for kind, count in data.manifest.unread if kind in Image.registered_extensions()},
        **{split: split_figures(table, data.train_generators) for split, table in scores.items()},
        "checkpoint": file_digest(best_checkpoint(folder)),
        "config_hash": run_folder.config_hash(config),
    }


def data_hash(table: pd.DataFrame) -> str:
    """16 hex digits that two manifests share when their tables are the same, row by row."""
    rows = pd.util.hash_pandas_object(table.astype("str"), index=False)
    return hashlib.sha256(rows.to_numpy().tobytes()).hexdigest()[:16]


def split_figures(table: pd.DataFrame, train_generators: list[str]) -> dict[str, float | None]:
    """Final figures of one score table. ``auroc_unseen``: the synthetic images of generators that are known not to be
    in training, against all real ones; None if there is none."""
    scores, synthetic = table["logit_synthetic"].to_numpy(), (table["label"] == "synthetic").to_numpy()
    unseen = unseen_images(table, train_generators)
    kept = ~synthetic | unseen
    return {
        "auroc": auroc(scores, synthetic),
        "accuracy": float(((table["logit_synthetic"] > table["logit_real"]) == synthetic).mean()),
        "cam_entropy": float(table["cam_entropy"].mean()),
        "images": len(table),
        "auroc_unseen": auroc(scores[kept], synthetic[kept]) if unseen.any() else None,
    }


def headline(result: dict[str, Any]) -> str:
    unseen = result["test"]["auroc_unseen"]
    return (
        f"{result['title']}, seed {result['seed']}: test AUROC {result['test']['auroc']:.4f}"
        + (f", unseen generators {unseen:.4f}" if unseen is not None else "")
        + f", mean CAM entropy {result['test']['cam_entropy']:.2f} nats (epoch {result['best_epoch'] + 1} of "
        f"{result['epochs']}, {result['wall_seconds']:.0f} s)"
    )


def versions() -> dict[str, str]:
    names = (
        "saliency-entropy",
        "torch",
        "timm",
        "pytorch-lightning",
        "torchmetrics",
        "hydra-core",
        "pillow",
        "numpy",
    )
    return {name: importlib.metadata.version(name) for name in names}


def git_commit() -> str | None:
    """The commit of the checkout that this package is run from, with ``+`` if it was changed; None elsewhere."""
    here = Path(__file__)
    commands = (
        # A package that is installed into an environment inside some repository is not of that repository.
        ["git", "ls-files", "--error-unmatch", here.name],
        ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"],
    )
    output = ""
    try:
        for command in commands:
            output = subprocess.run(
                command, cwd=here.parent, capture_output=True, text=True, timeout=10, check=True
            ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return output
