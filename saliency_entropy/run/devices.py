"""Several processes, each with a device, that train one detector together."""

import logging
import signal
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
from torch import Tensor, distributed, nn

from saliency_entropy.errors import UserError, whole_number
from saliency_entropy.losses import Prediction

log = logging.getLogger(__name__)


def check_launch(trainer: DictConfig) -> None:
    """Raises UserError if ``trainer.devices`` and ``trainer.num_nodes`` are no numbers, or a sweep on this machine
    cannot start their processes."""
    for name in ("devices", "num_nodes"):
        whole_number(f"trainer.{name}", trainer.get(name, 1), 1)
    in_sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    if _wanted(trainer) > 1 and in_sweep and not SLURMEnvironment.detect():
        # Lightning starts the others with the same command, which would be the whole sweep.
        raise UserError(
            f"trainer.devices is {trainer.devices} in a sweep: there, the processes of a run are started by Slurm only "
            "(hydra/launcher=slurm); give trainer.devices=1 and train several runs at once, or single runs"
        )


def _wanted(trainer: DictConfig) -> int:
    return trainer.devices * trainer.get("num_nodes", 1)


def is_first(trainer: DictConfig) -> bool:
    """Whether this process is the one that writes and speaks: the only one, or the first of several."""
    return _wanted(trainer) == 1 or rank_zero_only.rank == 0


def shared_end(trainer: DictConfig) -> "SharedEnd | None":
    """What ends the processes of a run together; None for a run of one, which Lightning ends well."""
    return SharedEnd() if _wanted(trainer) > 1 else None


def environment(trainer: DictConfig) -> ClusterEnvironment:
    """How the processes of a run find each other: as ``srun`` has started them, or as Lightning starts them.

    A run of one process needs no other, under Slurm too. Lightning's environment for Slurm would answer a signal by
    writing a checkpoint in the midst of an epoch, and go on from that: never requeued by it, a run does not.
    """
    if _wanted(trainer) > 1 and SLURMEnvironment.detect():
        return SLURMEnvironment(auto_requeue=False)
    return LightningEnvironment()


def trainer_options(trainer: DictConfig) -> dict[str, Any]:
    """Arguments of ``pytorch_lightning.Trainer`` by which several processes train as one does.

    Batch normalisation takes its statistics from all shares of a batch, which PyTorch has for GPUs only; so nothing is
    to be copied from one process to the others before a forward, for which they would wait for each other where they
    have different numbers of batches.
    """
    if _wanted(trainer) == 1 or "strategy" in trainer:
        return {}
    return {
        "strategy": DDPStrategy(broadcast_buffers=False),
        "sync_batchnorm": trainer.accelerator != "cpu" and torch.cuda.is_available(),
    }


def warn_of_batch_normalisation(trainer: pl.Trainer, module: nn.Module) -> None:
    """Say that a run will differ from that of one process, where it will."""
    normalises = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in module.modules())
    if trainer.world_size > 1 and normalises and trainer.strategy.root_device.type != "cuda":
        log.warning(
            "warning: %d processes without GPUs normalise each its share of a batch, so that this run differs from one "
            "by a single process",
            trainer.world_size,
        )


class SharedEnd(Callback):
    """SIGTERM ends several processes at the same batch, whichever of them got it.

    One that left alone, or waited for the others in a place of its own, would leave them waiting for it. Lightning's
    handler does the latter: it sends to the other processes whatever they are exchanging at that moment. The handler
    here only notes the signal; before a batch that every process has, all are asked whether one did.
    """

    def __init__(self) -> None:
        self._told = False
        self._batches = 0  # of a validation or a split to score, those that every process has

    @contextmanager
    def noticing(self) -> Iterator[None]:
        """Meanwhile SIGTERM is noted, and does nothing else."""
        earlier = signal.signal(signal.SIGTERM, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, earlier)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._told = True

    def _leave_if_told(self, trainer: pl.Trainer) -> None:
        if trainer.strategy.reduce_boolean_decision(self._told, all=False):
            raise SIGTERMException

    def _count(self, trainer: pl.Trainer, own: float) -> None:
        number = torch.tensor(own, device=trainer.strategy.root_device)
        self._batches = int(trainer.strategy.reduce(number, reduce_op="min"))

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        trainer._signal_connector.register_signal_handlers = lambda: None  # comes next

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._leave_if_told(trainer)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._count(trainer, sum(trainer.num_val_batches))

    def on_validation_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx < self._batches:
            self._leave_if_told(trainer)

    def on_predict_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._count(trainer, sum(trainer.num_predict_batches))

    on_predict_batch_start = on_validation_batch_start


def count() -> int:
    """How many processes train together; 1 unless they have found each other."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def gather_prediction(prediction: Prediction) -> Prediction:
    """The predictions of all processes' shares of a batch, one after the other.

    A loss of these is that of the whole batch in every process: of terms that are no mean over images (Eq. 5 squares a
    difference of means), of shares of different sizes, and of images without a human map. Only what is this process's
    own has a gradient, so that the gradients of all processes add up to that of the loss. DistributedDataParallel
    divides their sum by :func:`count`, by which the loss is to be multiplied.
    """
    if count() == 1:
        return prediction
    logits, maps = prediction.logits.to(prediction.maps.dtype), prediction.maps
    # In one tensor: each exchange costs more than these few numbers.
    own = torch.cat(
        [
            logits,
            prediction.labels[:, None].to(maps.dtype),
            prediction.has_map[:, None].to(maps.dtype),
            maps.flatten(1),
            prediction.human_maps.flatten(1).to(maps.dtype),
        ],
        dim=1,
    )
    every = torch.cat(_gathered(own))
    cells = maps[0].numel()
    logits, labels, has_map, flat, human = every.split([logits.shape[1], 1, 1, cells, cells], dim=1)
    return Prediction(
        logits=logits,
        labels=labels.squeeze(1).round().long(),
        maps=flat.unflatten(1, maps.shape[1:]),
        human_maps=human.unflatten(1, maps.shape[1:]),
        has_map=has_map.squeeze(1) > 0.5,
    )


def gather_columns(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns of all processes' tables, one below the other, in every process.

    Args:
        columns: name -> ``(n,)``, of this process.
    """
    if count() == 1:
        return columns
    tables: list[Any] = [None] * count()
    distributed.all_gather_object(tables, columns)
    return {name: np.concatenate([table[name] for table in tables]) for name in columns}


def _gathered(own: Tensor) -> list[Tensor]:
    """``(n_r, ...)`` of each process r; with a gradient this process's own alone."""
    number = torch.tensor([len(own)], device=own.device)
    numbers = [torch.zeros_like(number) for _ in range(count())]
    distributed.all_gather(numbers, number)
    lengths = [int(number) for number in numbers]
    # Tensors of one size: not every backend exchanges others.
    padded = own.new_zeros(max(lengths), *own.shape[1:])
    padded[: len(own)] = own.detach()
    every = [torch.empty_like(padded) for _ in lengths]
    distributed.all_gather(every, padded)
    parts = [part[:length] for part, length in zip(every, lengths, strict=True)]
    parts[distributed.get_rank()] = own
    return parts
