"""How the process of a training or an evaluation uses the processor and its memory."""

import ctypes
import os
import sys

import torch

from saliency_entropy.cpu.cores import thread_count

# Parameters of glibc's mallopt(3), from malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MMAP_THRESHOLD = 32 << 20  # bytes; older versions of glibc refuse more


def use_cores(threads: int | None) -> None:
    """Let PyTorch use ``threads`` cores (by default, all that the process may use), and the process keep its memory.

    A training step frees hundreds of megabytes of feature maps and asks for them again. glibc would hand them back to
    the system each time, which then clears every page anew. Blocks of up to 32 MiB are kept, unless the environment
    sets up glibc's allocator.
    """
    torch.set_num_threads(threads or thread_count())
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    # Other C libraries have no mallopt; their allocators are left as they are.
    if sys.platform == "linux" and not chosen and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
