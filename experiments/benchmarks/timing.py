"""Timing things side by side, so that a machine that changes its speed meanwhile does not decide a ratio."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch


def in_turn(things: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each thing, ``repeats`` times, in turn; a first round, which warms caches, is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in things}
    for repeat in range(repeats + 1):
        for name, thing in things.items():
            started = time.perf_counter()
            thing()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            elapsed = time.perf_counter() - started
            if repeat:
                seconds[name].append(elapsed)
    return seconds


def ratio(seconds: Sequence[float], of: Sequence[float]) -> float:
    """Median of the ratios, round by round."""
    return statistics.median(one / other for one, other in zip(seconds, of, strict=True))
