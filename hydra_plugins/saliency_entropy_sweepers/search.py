"""``hydra/sweeper=search``, as a class in the package where Hydra looks for it."""

from saliency_entropy.sweep import search_sweeper


class SearchSweeper(search_sweeper.SearchSweeper):
    """See :class:`saliency_entropy.sweep.search_sweeper.SearchSweeper`."""
