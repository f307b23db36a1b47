"""Work shared by forked processes: its results, its errors, and that none of them outlives its parent."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from saliency_entropy.data import forked
from saliency_entropy.data.forked import map_in_processes, may_fork
from saliency_entropy.errors import UserError

pytestmark = pytest.mark.skipif(not may_fork(), reason="processes cannot share work here")


class Two(Exception):
    """Is pickled with one argument, and so cannot be made again."""

    def __init__(self, file: str, row: int) -> None:
        super().__init__(f"{file} row {row}")


class Local(Exception):
    """Holds what cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("held")
        self.held = lambda: None


def raised(work: Callable[[int], None]) -> None:
    list(map_in_processes(work, [0, 1], 2, "do this"))


def ended(pids: list[int], within: float = 0) -> bool:
    """Whether these processes are gone, now or soon: not running, nor waiting as zombies for their exit codes to be
    read."""
    until = time.monotonic() + within
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def pids_in(folder: Path, count: int) -> list[int]:
    """The processes that have made a file named after themselves, once there are so many."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        found = [int(path.name) for path in folder.iterdir()]
        if len(found) == count:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{len(found)} of {count} processes began")


def test_results_come_in_order_whoever_is_done_first() -> None:
    def work(item: int) -> tuple[int, int]:
        time.sleep(0.1 if item % 7 == 0 else 0)
        return item**2, os.getpid()

    results = list(map_in_processes(work, range(50), 3, ""))
    assert [square for square, _ in results] == [item**2 for item in range(50)]
    pids = {pid for _, pid in results}
    assert len(pids) == 3
    assert os.getpid() not in pids
    assert ended(list(pids))


def test_a_slow_item_does_not_keep_the_others_from_work() -> None:
    others_done = multiprocessing.get_context("fork").Event()

    def work(item: int) -> int:
        if item == 0:
            assert others_done.wait(120)
        elif item == 99:
            others_done.set()
        return os.getpid()

    pids = list(map_in_processes(work, range(100), 2, ""))
    # Of the others, the process that is held up has been given the one next item only.
    assert pids.count(pids[0]) == forked.AHEAD


def test_results_are_there_before_all_are_done() -> None:
    results = map_in_processes(lambda item: time.sleep(600 * item), [0, 1], 2, "")
    begun = time.monotonic()
    assert next(results) is None
    results.close()
    assert time.monotonic() - begun < 200


def test_no_item_more_items_than_processes_and_fewer() -> None:
    assert list(map_in_processes(str, [], 2, "")) == []
    assert list(map_in_processes(str, [5], 4, "")) == ["5"]
    assert list(map_in_processes(len, [b"x" * 10**6] * 9, 2, "")) == [10**6] * 9


def test_what_is_done_meanwhile() -> None:
    calls = []
    assert list(map_in_processes(time.sleep, [0.3], 1, "", 0.05, lambda: calls.append(0))) == [None]
    assert len(calls) > 1


def test_large_results_in_the_way_of_each_other() -> None:
    results = list(map_in_processes(lambda item: bytes([item]) * 2**20, range(40), 3, ""))
    assert results == [bytes([item]) * 2**20 for item in range(40)]


def test_what_is_raised_is_raised_here_with_where_it_was() -> None:
    def work(number: int) -> None:
        if number == 1:
            raise UserError("row 3 is wrong")
        time.sleep(60)

    with pytest.raises(UserError, match="row 3 is wrong") as caught:
        raised(work)
    assert str(caught.value) == "row 3 is wrong"
    assert "in work" in caught.value.__notes__[0]


@pytest.mark.parametrize("error", [lambda: Two("m.csv", 3), Local], ids=["not made again", "not pickled"])
def test_an_error_that_cannot_be_sent_is_told_as_text(error: Callable[[], Exception]) -> None:
    def work(_: int) -> None:
        raise error()

    with pytest.raises(RuntimeError, match=f"(?s)in work.*: {error()}"):
        raised(work)


def test_a_result_that_cannot_be_pickled_is_said() -> None:
    with pytest.raises(Exception, match="pickle"):
        list(map_in_processes(lambda item: lambda: item, [0], 1, ""))


@pytest.mark.parametrize("end", [lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os._exit(0)])
def test_a_process_that_is_killed_is_a_sentence(end: Callable[[], None]) -> None:
    def work(number: int) -> None:
        if number == 1:
            end()
        time.sleep(60)

    with pytest.raises(UserError, match=r"was killed \(exit code (-9|0)\), perhaps for want of memory; do this$"):
        raised(work)


def test_killed_in_the_middle_of_a_result() -> None:
    class Deadly:
        def __reduce__(self) -> tuple:
            os.kill(os.getpid(), signal.SIGKILL)
            return int, ()

    def work(item: int) -> object:
        return Deadly() if item == 3 else item

    with pytest.raises(UserError, match="was killed"):
        list(map_in_processes(work, range(9), 2, ""))


def test_a_process_that_does_not_end_when_told_leaves_no_zombie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forked, "GRACE", 0.1)

    def work(number: int) -> None:
        if number == 1:
            pids_in(tmp_path, 1)
            raise UserError("enough")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (tmp_path / str(os.getpid())).touch()
        time.sleep(60)

    with pytest.raises(UserError, match="enough"):
        raised(work)
    assert not Path("/proc", *(path.name for path in tmp_path.iterdir())).exists()


SCRIPT = """
import os, sys, time
from pathlib import Path
from saliency_entropy.data.forked import map_in_processes

def work(item):
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(60)

list(map_in_processes(work, range(9), 2, ""))
"""


def begun(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, folder], stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def test_no_process_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = begun(tmp_path)
    workers = pids_in(tmp_path, 2)
    parent.kill()
    parent.wait()
    assert ended(workers, 60)  # they look every second
    assert parent.stderr.read() == ""


def test_interrupted_as_by_a_terminal(tmp_path: Path) -> None:
    parent = begun(tmp_path)
    workers = pids_in(tmp_path, 2)
    os.killpg(parent.pid, signal.SIGINT)  # the children, too
    assert parent.wait(60) == -signal.SIGINT
    assert ended(workers)
    told = parent.stderr.read()
    assert told.count("Traceback") == 1
    assert told.endswith("KeyboardInterrupt\n")
