"""``hydra/sweeper=grid``, as a class in the package where Hydra looks for it."""

from saliency_entropy.sweep import grid


class GridSweeper(grid.GridSweeper):
    """See :class:`saliency_entropy.sweep.grid.GridSweeper`."""
