"""Several processes have what one has: every image once, in the same batches. Workers end in silence with the process
that reads from them."""

import itertools
import os
import signal
import sys
from multiprocessing import current_process, resource_sharer
from multiprocessing.connection import Client

import pytest
from torch.utils.data import BatchSampler, DataLoader
from torch.utils.data.distributed import DistributedSampler

from saliency_entropy.data.loaders import DealtBatches, SplitBatches, batch_loader
from saliency_entropy.errors import UserError


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_training_batches_are_split(processes: int) -> None:
    order = list(range(100, 123))
    shares = [list(SplitBatches(order, 10, False, rank, processes)) for rank in range(processes)]
    batches = list(BatchSampler(order, 10, drop_last=False))
    if processes == 4:  # three images are left for the last batch
        batches = batches[:2]
    assert [sorted(itertools.chain(*parts)) for parts in zip(*shares, strict=True)] == batches
    assert all(abs(len(a) - len(b)) <= 1 for parts in zip(*shares, strict=True) for a, b in itertools.pairwise(parts))
    for rank, share in enumerate(shares):
        assert len(SplitBatches(order, 10, False, rank, processes)) == len(share)
        assert len(SplitBatches(order, 10, True, rank, processes)) == 2
        assert SplitBatches(order, 10, False, rank, processes).left_out == (3 if processes == 4 else 0)
        assert SplitBatches(order, 10, True, rank, processes).left_out == 0
        assert list(SplitBatches(order, 10, True, rank, processes)) == share[:2]


def test_one_process_has_the_batches_of_a_plain_loader() -> None:
    assert list(SplitBatches(range(7), 3, False, 0, 1)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(DealtBatches(7, 3, 0, 1)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_the_epoch_reaches_the_order() -> None:
    order = DistributedSampler(range(12), num_replicas=1, rank=0, shuffle=True)
    batches = SplitBatches(order, 4, False, 0, 2)
    first = list(batches)
    batches.sampler.set_epoch(1)
    assert list(batches) != first


@pytest.mark.parametrize(("images", "processes"), [(25, 1), (25, 2), (25, 3), (31, 3)])
def test_whole_batches_are_dealt(images: int, processes: int) -> None:
    dealt = [list(DealtBatches(images, 10, rank, processes)) for rank in range(processes)]
    batches = list(BatchSampler(range(images), 10, drop_last=False))
    assert sorted(itertools.chain(*dealt)) == batches
    assert [len(DealtBatches(images, 10, rank, processes)) for rank in range(processes)] == [len(own) for own in dealt]
    assert all(dealt)


def test_too_few_images_for_so_many_processes() -> None:
    with pytest.raises(UserError, match="a batch of 3 images cannot be shared by 4 devices"):
        SplitBatches(range(100), 3, False, 0, 4)
    with pytest.raises(UserError, match="20 validation or test images are too few for 3 devices with batches of 10"):
        DealtBatches(20, 10, 0, 3)


POSIX = pytest.mark.skipif(sys.platform == "win32", reason="a batch's memory is handed over as POSIX does it")


class Signalled:
    """Item 0 of a worker that is told to end by everything but its reader."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: int) -> int:
        for received in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(os.getpid(), received)
        return 7


class Abandoned:
    """Item 0 of a worker whose reader asks for a batch's memory, and is gone."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: int) -> int:
        file = os.open(os.devnull, os.O_RDONLY)
        handle = resource_sharer.DupFd(file)
        address, _key = handle._id
        Client(address, authkey=current_process().authkey).close()
        resource_sharer.stop()  # waits for the thread that hands over
        return 7


@POSIX
def test_signals_are_left_to_the_reader() -> None:
    assert [int(item) for item in batch_loader(Signalled(), 1)] == [7]


@POSIX
def test_a_reader_that_is_gone_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    assert [int(item) for item in DataLoader(Abandoned(), num_workers=1)] == [7]
    assert "EOFError" in capfd.readouterr().err
    assert [int(item) for item in batch_loader(Abandoned(), 1)] == [7]
    assert capfd.readouterr().err == ""
