"""``hydra/launcher=slurm``, as a class in the package where Hydra looks for it."""

from saliency_entropy.sweep import slurm


class SlurmLauncher(slurm.SlurmLauncher):
    """See :class:`saliency_entropy.sweep.slurm.SlurmLauncher`."""
