"""Draw maps of seven by seven cells with their entropies: python docs/images/maps_by_entropy.py [FILE]"""

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from saliency_entropy.functional import min_max, spatial_entropy

WIDTHS = (6, 2.4, 1.6, 1.0, 0.55, 0.05)  # standard deviations of a Gaussian, in cells

y, x = np.mgrid[:7, :7]
blobs = [np.exp(-((y - 2) ** 2 + (x - 4) ** 2) / (2 * width**2)) for width in WIDTHS]
maps = min_max(torch.from_numpy(np.stack(blobs)))
figure = Figure(figsize=(9, 2), layout="constrained")
for axes, cells, entropy in zip(figure.subplots(1, len(WIDTHS)), maps, spatial_entropy(maps).tolist(), strict=True):
    axes.imshow(cells.numpy(), cmap="magma", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(f"H = {entropy:.2f} nats\nexp H = {np.exp(entropy):.1f} cells")
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_suffix(".png"), dpi=110)
