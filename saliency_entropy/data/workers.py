"""The processes of a DataLoader: how many, and how they end with the process that reads from them."""

import signal
import sys
from types import TracebackType
from typing import Any

from torch.utils.data import DataLoader, Dataset

from saliency_entropy.data.forked import IGNORED
from saliency_entropy.parallel import thread_count

MOST_WORKERS = 16  # more processes wait for the disk, not for a core


def worker_count(num_workers: int | None) -> int:
    """Processes that decode images; None: as many as there are cores, but no more than :data:`MOST_WORKERS`."""
    return min(thread_count(), MOST_WORKERS) if num_workers is None else num_workers


def batch_loader(dataset: Dataset, num_workers: int | None, **options: Any) -> DataLoader:
    """A DataLoader whose processes, see :func:`worker_count`, end with the one that reads from it."""
    workers = worker_count(num_workers)
    return DataLoader(dataset, num_workers=workers, worker_init_fn=_end_with_the_reader, **options)


def _end_with_the_reader(_: int) -> None:
    """A worker leaves Ctrl-C and a scheduler's signals to the process that reads from it, and says nothing when that
    process ends while a batch is handed over."""
    for ignored in IGNORED:
        signal.signal(ignored, signal.SIG_IGN)
    sys.excepthook = _without_reader


def _without_reader(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    # The thread of multiprocessing that hands over a batch's memory ends here, if nobody takes it any more. What goes
    # wrong with an image does not: DataLoader raises it in the process that reads.
    if not issubclass(kind, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, trace)
