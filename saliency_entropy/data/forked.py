"""Work shared by processes that are forked, for work in which threads would wait for Python's lock.

Forked, not spawned: a spawned process would first run the user's script and import PyTorch, seconds each, and could be
given only what can be pickled. The price is that a fork holds none of the other threads, but every lock that one of
them held. So the work must be of the kind that Pillow, NumPy and files do: no PyTorch, no CUDA.
"""

import gc
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait

from saliency_entropy.errors import UserError

GRACE = 5.0  # seconds to clean up, for a process that is told to end


def may_fork() -> bool:
    """Whether processes can share work here: macOS's own libraries break in a fork, and a daemon has no children."""
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


def in_processes(work: Callable[[int], None], count: int, every: float, meanwhile: Callable[[], None]) -> None:
    """Call ``work(0)`` to ``work(count - 1)``, each in a process of its own; returns when all are done.

    What one raises is raised here, and the others are ended; so are all, if this process is interrupted or killed.

    Args:
        work: what to do.
        count: of the processes.
        every: seconds.
        meanwhile: called here so often while they work.

    Raises:
        UserError: a process was killed.
    """
    context = multiprocessing.get_context("fork")
    processes = []
    try:
        working = {}
        for number in range(count):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(work, number, sender, os.getpid()), daemon=True)
            process.start()
            sender.close()
            processes.append(process)
            working[receiver] = process
        while working:
            ended = wait(list(working), every)
            for receiver in ended:
                _join(working.pop(receiver), receiver)
            if not ended:
                meanwhile()
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(GRACE)
            if process.is_alive():
                process.kill()


def _join(process: multiprocessing.Process, receiver: Connection) -> None:
    """Raises what the process did."""
    try:
        error = receiver.recv()
    except EOFError:  # it closed its end without a word
        error = None
    process.join()
    if error is not None:
        raise error
    if process.exitcode:
        raise UserError(
            f"a process that decodes images was killed (exit code {process.exitcode}), perhaps for want of memory; "
            "give the same command again to go on"
        )


def _child(work: Callable[[int], None], number: int, sender: Connection, parent: int) -> None:
    # What the parent does on a signal is not for its children to do: it ends them when it ends.
    for ignored in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # A parent that is killed ends nobody.
    signal.signal(signal.SIGALRM, lambda *_: None if os.getppid() == parent else sys.exit(1))
    signal.setitimer(signal.ITIMER_REAL, 1, 1)
    gc.freeze()  # what the parent holds is not this process's to sift through
    try:
        work(number)
    except Exception as error:
        error.add_note(f"In a process that shared the work:\n{traceback.format_exc()}")
        try:
            sender.send(error)
        except Exception:  # it cannot be pickled
            sender.send(RuntimeError("".join(traceback.format_exception(error))))
