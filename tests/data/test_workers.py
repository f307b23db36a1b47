"""The processes of a DataLoader end in silence with the one that reads from them."""

import os
import signal
import sys
from multiprocessing import current_process, resource_sharer
from multiprocessing.connection import Client

import pytest
from torch.utils.data import DataLoader

from saliency_entropy.data.workers import batch_loader

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a batch's memory is handed over as POSIX does it")


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


def test_signals_are_left_to_the_reader() -> None:
    assert [int(item) for item in batch_loader(Signalled(), 1)] == [7]


def test_a_reader_that_is_gone_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    assert [int(item) for item in DataLoader(Abandoned(), num_workers=1)] == [7]
    assert "EOFError" in capfd.readouterr().err
    assert [int(item) for item in batch_loader(Abandoned(), 1)] == [7]
    assert capfd.readouterr().err == ""
