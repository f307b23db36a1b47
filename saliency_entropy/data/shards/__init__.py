"""A data set in tar shards, for sets too large for one folder or disk."""

from saliency_entropy.data.shards.reader import read_shards

__all__ = ["read_shards"]
