"""``hydra/launcher=local``, as a class in the package where Hydra looks for it."""

from saliency_entropy.sweep import local


class LocalLauncher(local.LocalLauncher):
    """See :class:`saliency_entropy.sweep.local.LocalLauncher`."""
