"""Several processes that train one detector together, each on a device of its own."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import distributed, nn
from torchmetrics.utilities.distributed import gather_all_tensors

from saliency_entropy.errors import UserError, whole_number
from saliency_entropy.losses import Prediction

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
_STORES: list[Any] = []  # open as long as this process


def check_launch(trainer: DictConfig) -> None:
    """Raises UserError if ``trainer.devices`` or ``trainer.num_nodes`` is not a whole number, or if a sweep on this
    machine would have to start several processes for one run."""
    for name in ("devices", "num_nodes"):
        whole_number(f"trainer.{name}", trainer.get(name, 1), 1)
    in_sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    if requested_processes(trainer) > 1 and in_sweep and not SLURMEnvironment.detect():
        # Lightning starts the other processes with the same command, which would be the whole sweep.
        raise UserError(
            f"trainer.devices is {trainer.devices} in a sweep, where only Slurm starts the processes of a run "
            "(hydra/launcher=slurm); give trainer.devices=1 and train several runs at once, or train single runs"
        )


def require_gpu(trainer: DictConfig) -> None:
    """Raises UserError if a GPU is asked for that PyTorch does not find; Lightning says so after the data is read."""
    found = torch.cuda.is_available() or torch.backends.mps.is_available()
    if trainer.accelerator in ("gpu", "cuda") and not found:
        raise UserError(
            f"trainer.accelerator is {trainer.accelerator}, but PyTorch {torch.__version__} finds no GPU here: leave "
            "it out to train on the processor, or install its driver, and a PyTorch that is built for it"
        )


def requested_processes(trainer: DictConfig) -> int:
    return trainer.devices * trainer.get("num_nodes", 1)


def is_first(trainer: DictConfig) -> bool:
    """Whether this process writes and prints: it is the only one, or the first of several."""
    return requested_processes(trainer) == 1 or rank_zero_only.rank == 0


def cluster_environment(trainer: DictConfig) -> ClusterEnvironment:
    """How the processes of a run find each other: ``srun`` has started them, or Lightning starts them.

    Lightning's environment for Slurm would answer a signal by writing a checkpoint in the middle of an epoch and going
    on from there, so it is not left to requeue a job, and not used for a single process.
    """
    if requested_processes(trainer) > 1 and SLURMEnvironment.detect():
        return SLURMEnvironment(auto_requeue=False)
    environment = LightningEnvironment()
    if requested_processes(trainer) > 1 and trainer.get("num_nodes", 1) == 1:
        _meet_on_loopback(environment)
    return environment


def _meet_on_loopback(environment: LightningEnvironment) -> None:
    """Let the processes of one machine listen on its loopback interface only; PyTorch would listen on all, where
    anyone in the network could write into their store."""
    if sys.platform == "linux":  # elsewhere the interface has another name
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    os.environ["MASTER_ADDR"] = LOOPBACK
    if rank_zero_only.rank == 0:
        listener = socket.create_server((LOOPBACK, environment.main_port))
        # PyTorch's own store of this port, which it opens later, is this one (multi_tenant).
        _STORES.append(
            distributed.TCPStore(
                LOOPBACK,
                environment.main_port,
                is_master=True,
                wait_for_workers=False,
                multi_tenant=True,
                master_listen_fd=listener.detach(),
            )
        )


def trainer_options(trainer: DictConfig) -> dict[str, Any]:
    """Arguments of ``pytorch_lightning.Trainer`` with which several processes train as one would.

    Batch normalisation takes its statistics from all shares of a batch, which PyTorch can do on GPUs only. So a forward
    need not begin by copying buffers between processes, which would hang where their numbers of batches differ.
    """
    if requested_processes(trainer) == 1 or "strategy" in trainer:
        return {}
    return {
        "strategy": DDPStrategy(broadcast_buffers=False),
        "sync_batchnorm": trainer.accelerator != "cpu" and torch.cuda.is_available(),
    }


def warn_of_batch_normalisation(trainer: pl.Trainer, module: nn.Module) -> None:
    """Warn that a run will differ from one in a single process, if it will."""
    normalises = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in module.modules())
    if trainer.world_size > 1 and normalises and trainer.strategy.root_device.type != "cuda":
        log.warning(
            "warning: without GPUs, each of the %d processes normalises its own share of a batch, so this run differs "
            "from one in a single process",
            trainer.world_size,
        )


class EndTogether(Callback):
    """SIGTERM ends several processes at the same batch, whichever of them received it.

    A process that left alone, or waited for the others elsewhere, would leave them waiting for it. Lightning's handler
    does the latter: it sends to the other processes whatever they are exchanging at that moment. The handler here only
    notes the signal; before each batch that every process has, they all ask each other whether one received it.
    """

    def __init__(self) -> None:
        self._received = False
        self._shared_batches = 0  # the batches of the validation set, or of a split to score, that every process has

    @contextmanager
    def noting_sigterm(self) -> Iterator[None]:
        """Note SIGTERM and do nothing else about it meanwhile."""
        earlier = signal.signal(signal.SIGTERM, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, earlier)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._received = True

    def _end_if_received(self, trainer: pl.Trainer) -> None:
        if trainer.strategy.reduce_boolean_decision(self._received, all=False):
            raise SIGTERMException

    def _count_shared_batches(self, trainer: pl.Trainer, own: float) -> None:
        number = torch.tensor(own, device=trainer.strategy.root_device)
        self._shared_batches = int(trainer.strategy.reduce(number, reduce_op="min"))

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        trainer._signal_connector.register_signal_handlers = lambda: None  # Lightning would call it next

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._end_if_received(trainer)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._count_shared_batches(trainer, sum(trainer.num_val_batches))

    def on_validation_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx < self._shared_batches:
            self._end_if_received(trainer)

    def on_predict_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._count_shared_batches(trainer, sum(trainer.num_predict_batches))

    on_predict_batch_start = on_validation_batch_start


def process_count() -> int:
    """The number of processes that train together; 1 until they have found each other."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def gather_prediction(prediction: Prediction) -> Prediction:
    """The predictions for the whole batch: all processes' shares, one after the other.

    So every process computes the loss of the whole batch, even if a term is not a mean over images (Eq. 5 squares a
    difference of means), shares differ in size, or images lack a human map. Only this process's own share has a
    gradient, so the gradients of all processes add up to the gradient of the loss. DistributedDataParallel divides that
    sum by :func:`process_count`, so the loss must be multiplied by it.
    """
    if process_count() == 1:
        return prediction
    logits, maps = prediction.logits.to(prediction.maps.dtype), prediction.maps
    # One tensor for all: an exchange costs more than these few numbers.
    share = torch.cat(
        [
            logits,
            prediction.labels[:, None].to(maps.dtype),
            prediction.has_map[:, None].to(maps.dtype),
            maps.flatten(1),
            prediction.human_maps.flatten(1).to(maps.dtype),
        ],
        dim=1,
    )
    batch = torch.cat(gather_all_tensors(share))
    cells = maps[0].numel()
    logits, labels, has_map, flat, human = batch.split([logits.shape[1], 1, 1, cells, cells], dim=1)
    return Prediction(
        logits=logits,
        labels=labels.squeeze(1).round().long(),
        maps=flat.unflatten(1, maps.shape[1:]),
        human_maps=human.unflatten(1, maps.shape[1:]),
        has_map=has_map.squeeze(1) > 0.5,
    )


def gather_columns(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns of all processes' tables, one below the other; every process gets them all.

    Args:
        columns: name -> ``(n,)`` in this process.
    """
    if process_count() == 1:
        return columns
    tables: list[Any] = [None] * process_count()
    distributed.all_gather_object(tables, columns)
    return {name: np.concatenate([table[name] for table in tables]) for name in columns}
