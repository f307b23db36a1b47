"""The loading of batches: which process gets which images, and the worker processes that decode them.

A batch is that of one process, whatever their number: the batch size of a protocol is never multiplied, no image is
seen twice, and none is added so that all processes have equally many.
"""

import signal
import sys
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from saliency_entropy.cpu.cores import thread_count
from saliency_entropy.data.forked import IGNORED
from saliency_entropy.errors import UserError

MOST_WORKERS = 16  # more processes wait for the disk, not for a core


class SplitBatches(Sampler[list[int]]):
    """For training: each process has a share of every batch, and the gradients of all shares make one step.

    Args:
        order: of the images, the same in every process; its ``set_epoch`` is called where it has one.
        batch_size: of all processes together.
        drop_last: leave out a smaller last batch. One with fewer images than processes is left out in any case.
        rank, processes: which process of how many.

    Raises:
        UserError: a batch has fewer images than there are processes.
    """

    def __init__(self, order: Iterable[int], batch_size: int, drop_last: bool, rank: int, processes: int) -> None:
        if batch_size < processes:
            raise UserError(
                f"a batch of {batch_size} images cannot be shared by {processes} devices (protocol.batch_size is that "
                "of all together); give a smaller trainer.devices"
            )
        self.sampler = order  # Lightning finds it by this name, and sets its epoch
        self._batches = BatchSampler(order, batch_size, drop_last)
        self._rank, self._processes = rank, processes

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches:
            if len(batch) >= self._processes:
                # Neighbours go to different processes: the shares differ by one image at most.
                yield batch[self._rank :: self._processes]

    @property
    def left_out(self) -> int:
        """The images of a last batch that has fewer of them than there are processes."""
        left = len(self.sampler) % self._batches.batch_size
        return left if left < self._processes and not self._batches.drop_last else 0

    def __len__(self) -> int:
        return len(self._batches) - (self.left_out > 0)


class DealtBatches(Sampler[list[int]]):
    """For validation and scoring: whole batches, dealt to the processes in turn, so that what is computed from a batch
    as a whole is the same for any number of processes.

    Args:
        images: how many there are.
        batch_size: of each process.
        rank, processes: which process of how many.

    Raises:
        UserError: there is no batch for one of the processes.
    """

    def __init__(self, images: int, batch_size: int, rank: int, processes: int) -> None:
        self._batches = list(BatchSampler(range(images), batch_size, drop_last=False))[rank::processes]
        if images <= batch_size * (processes - 1):
            raise UserError(
                f"{images} validation or test images are too few for {processes} devices with batches of {batch_size}; "
                "give a smaller trainer.devices"
            )

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


def worker_count(num_workers: int | None) -> int:
    """How many processes decode images; None: as many as there are cores, but no more than :data:`MOST_WORKERS`."""
    return min(thread_count(), MOST_WORKERS) if num_workers is None else num_workers


def batch_loader(dataset: Dataset, num_workers: int | None, **options: Any) -> DataLoader:
    """A DataLoader with :func:`worker_count` processes, which end with the process that reads from them."""
    workers = worker_count(num_workers)
    return DataLoader(dataset, num_workers=workers, worker_init_fn=_end_with_the_reader, **options)


def _end_with_the_reader(_: int) -> None:
    """A worker leaves Ctrl-C and a scheduler's signals to the process that reads from it, and says nothing when that
    process ends while a batch is handed over."""
    for ignored in IGNORED:
        signal.signal(ignored, signal.SIG_IGN)
    sys.excepthook = _without_reader


def _without_reader(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    # The thread of multiprocessing that hands over a batch's memory raises these if nobody takes it any more. An image
    # that cannot be used is not affected: DataLoader raises that error in the process that reads.
    if not issubclass(kind, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, trace)
