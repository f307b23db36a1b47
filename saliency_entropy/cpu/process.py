"""How the process of a training or an evaluation uses the processor and its memory."""

import ctypes
import os
import sys

import torch

from saliency_entropy.cpu.cores import thread_count

# Parameters of glibc's mallopt(3), from malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD = 32 << 20  # bytes; glibc refuses more


def use_cores(threads: int | None) -> None:
    """Let PyTorch use ``threads`` cores (by default, all that the process may use), and the process keep its memory.

    A training step frees hundreds of megabytes of feature maps and asks for them again. glibc would hand them back to
    the system each time, which then clears every page anew: on a CPU a fifth of the time of a step.
    """
    torch.set_num_threads(threads or thread_count())
    # Deterministic algorithms would also fill every new tensor with NaN, a tenth of a step, to make the reading of
    # memory that nobody has written repeatable.
    torch.utils.deterministic.fill_uninitialized_memory = False
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    # Other C libraries have no mallopt; their allocators are left as they are.
    if sys.platform == "linux" and not chosen and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
