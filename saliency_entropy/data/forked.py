"""Forked processes that share work in which threads would wait for Python's lock.

Forked, not spawned: a spawned process would first run the user's script and import PyTorch, which takes seconds, and
could be given only what can be pickled. The price is that a fork has none of the other threads, but every lock that
one of them held. So the work may use Pillow, NumPy and files, but neither PyTorch nor CUDA.
"""

import gc
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any, TypeVar

from saliency_entropy.errors import UserError

GRACE = 5.0  # seconds that a process has to clean up after it is asked to end
AHEAD = 2  # items given to a process at a time: when it has done one, the next is there

# The parent alone acts on these signals: its children end when it ends.
IGNORED = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
HANDLED = (*IGNORED, signal.SIGTERM, signal.SIGALRM)

T = TypeVar("T")
R = TypeVar("R")


def may_fork() -> bool:
    """Whether processes can share work here: macOS's own libraries break in a fork, and a daemon has no children."""
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


def map_in_processes(
    work: Callable[[T], R],
    items: Sequence[T],
    count: int,
    remedy: str,
    every: float | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[R]:
    """``work`` of every item, in their order, shared by processes.

    What one raises is raised here; all processes are ended then, or when the iterator is closed, or when this process
    is interrupted or killed.

    Args:
        work: its results and what it raises are pickled; itself and the items need not be.
        items: what to work on.
        count: of the processes.
        remedy: what the user can do if a process is killed.
        every: seconds.
        meanwhile: called here so often while they work.

    Raises:
        UserError: a process was killed.
    """

    def serve(connection: Connection) -> None:
        while True:
            at = connection.recv()
            connection.send((at, work(items[at])))

    with _forked(serve, min(count, len(items))) as processes:
        left = iter(range(len(items)))

        def give(connection: Connection) -> None:
            at = next(left, None)
            if at is not None:
                with suppress(OSError):  # a process that was killed is found out when its results are waited for
                    connection.send(at)

        for _ in range(AHEAD):
            for connection in processes:
                give(connection)
        results: dict[int, R] = {}
        for at in range(len(items)):
            while at not in results:
                answering = wait(list(processes), every)
                for connection in answering:
                    done, result = _receive(connection, processes[connection], remedy)
                    results[done] = result
                    give(connection)
                if not answering:
                    meanwhile()
            yield results.pop(at)


@contextmanager
def _forked(serve: Callable[[Connection], None], count: int) -> Iterator[dict[Connection, ForkProcess]]:
    """This many processes that each call ``serve(connection)``, by this process's end of each connection. An error is
    sent to this process. All processes are ended in the end."""
    context = multiprocessing.get_context("fork")
    processes: dict[Connection, ForkProcess] = {}
    try:
        for _ in range(count):
            here, there = context.Pipe()
            process = context.Process(target=_child, args=(serve, there, os.getpid()), daemon=True)
            # Until a child has its own handlers, a signal would do in it what it does here.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
            try:
                process.start()
                processes[here] = process
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            there.close()
        yield processes
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.join(GRACE)
            if process.is_alive():
                process.kill()
                process.join()
        for connection in processes:
            connection.close()


def _receive(connection: Connection, process: ForkProcess, remedy: str) -> Any:
    """What a process sent; raises what it raised."""
    try:
        message = connection.recv()
    except (EOFError, OSError):  # it ended before a message, or in the middle of one
        process.join()
        raise UserError(
            f"a process that decodes images was killed (exit code {process.exitcode}), perhaps for want of memory; "
            f"{remedy}"
        ) from None
    if isinstance(message, Exception):
        raise message
    return message


def _child(serve: Callable[[Connection], None], connection: Connection, parent: int) -> None:
    for ignored in IGNORED:
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # A parent that is killed cannot end its children.
    signal.signal(signal.SIGALRM, lambda *_: None if os.getppid() == parent else sys.exit(1))
    signal.setitimer(signal.ITIMER_REAL, 1, 1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    gc.freeze()  # else the collector would touch, and so copy, all that the parent holds
    try:
        serve(connection)
    except Exception as error:
        error.add_note(f"In a process that shared the work:\n{traceback.format_exc()}")
        with suppress(OSError):  # the parent is gone
            connection.send(_sendable(error))


def _sendable(error: Exception) -> Exception:
    """The error, or its text if it cannot be pickled, or not be made again of what was pickled."""
    try:
        again = pickle.loads(pickle.dumps(error))
    except Exception:
        again = None
    return error if type(again) is type(error) else RuntimeError("".join(traceback.format_exception(error)))
