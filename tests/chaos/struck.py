"""Signals in the middle of a backward pass."""

import io
import os
import posix
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, FrameType
from typing import Any

from saliency_entropy.module import DetectorModule

SECOND_EPOCH = 4  # a step of it; a small run has three steps an epoch


def in_backward(strike: Callable[[], None]) -> Callable[..., Any]:
    """A ``training_step`` that calls ``strike`` in the middle of a backward pass, when half of the gradients exist."""
    step, calls = DetectorModule.training_step, iter(range(100))

    def training_step(module: DetectorModule, *arguments: Any) -> Any:
        total = step(module, *arguments)
        if next(calls) == SECOND_EPOCH:
            parameters = list(module.backbone.parameters())
            parameters[len(parameters) // 2].register_hook(lambda gradient: strike())
        return total

    return training_step


def twice(number: int) -> None:
    """Send a signal to this process two times."""
    for _ in range(2):
        os.kill(os.getpid(), number)


@contextmanager
def calls_of_files() -> Iterator[list[str]]:
    """The names of the functions called meanwhile that open, write or change a file, or start a process."""
    called: list[str] = []

    def note(frame: FrameType, event: str, function: object) -> None:
        if event == "c_call" and isinstance(function, BuiltinFunctionType):
            owner = function.__self__
            system = owner is posix and function not in (os.kill, os.getpid)
            if system or function in (open, print) or isinstance(owner, io.IOBase):
                called.append(function.__name__)

    sys.setprofile(note)
    try:
        yield called
    finally:
        sys.setprofile(None)
