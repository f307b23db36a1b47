"""Human saliency maps: which files they are, how they are read, and the templates that stand in for them."""

from saliency_entropy.data.human_maps.loading import load_human_map

__all__ = ["load_human_map"]
