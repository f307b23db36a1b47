"""Data sets: manifests, images with human maps, batches."""

from saliency_entropy.data.datamodule import FaceDataModule
from saliency_entropy.data.dataset import FaceBatch
from saliency_entropy.data.manifest import Manifest, read_manifest

__all__ = ["FaceBatch", "FaceDataModule", "Manifest", "read_manifest"]
