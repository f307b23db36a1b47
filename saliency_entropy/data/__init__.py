"""Data sets: manifests, images with human maps, batches."""

from saliency_entropy.data.datamodule import FaceBatch, FaceDataModule
from saliency_entropy.data.manifest import Manifest, read_manifest

__all__ = ["FaceBatch", "FaceDataModule", "Manifest", "read_manifest"]
