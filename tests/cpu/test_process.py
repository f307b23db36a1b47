"""Cores and memory of a training's process."""

import os
import subprocess
import sys

import pytest

# The pages that the system had to clear anew while 20 times 16 MiB were asked for, written and freed.
PROGRAM = """
import resource, sys, torch
from saliency_entropy.cpu.process import use_cores
use_cores(1)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(4 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(torch.get_num_threads(), faults())
"""


def page_faults(**variables: str) -> int:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    output = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=kept | variables, check=True, capture_output=True, text=True
    ).stdout
    threads, faults = map(int, output.split())
    assert threads == 1
    return faults


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's allocator is set")
def test_freed_memory_is_kept_unless_the_user_chose_otherwise() -> None:
    assert page_faults() < 100
    # Every block of 1 MiB or more is handed back at once: 20 x 16 MiB are 81,920 pages of 4 KiB, fewer of larger ones.
    assert page_faults(MALLOC_MMAP_THRESHOLD_=str(1 << 20)) > 100
