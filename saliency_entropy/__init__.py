"""Detectors of synthetic faces, trained with control over the entropy of their class activation maps.

The files beside this one are the method. Read them in this order: functional (the mathematics), losses, cam, backbone,
metrics, module, training. The folders hold everything else.
"""

import os

# OpenMP's threads would wait for work by spinning. Where another process wants the same cores, the threads of one
# training step then wait for each other's time slices, and a step takes several times as long. The libraries read these
# when PyTorch loads them, so the package sets them before it imports anything, and child processes inherit them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # GNU's (PyTorch on Linux), and any other
os.environ.setdefault("KMP_BLOCKTIME", "0")  # LLVM's and Intel's, which would spin for 200 ms first
