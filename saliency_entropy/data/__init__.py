"""Data sets: manifests, images with human maps, batches."""

import importlib

_HOMES = {"FaceBatch": "dataset", "FaceDataModule": "datamodule", "Manifest": "table", "read_manifest": "manifest"}

__all__ = ["FaceBatch", "FaceDataModule", "Manifest", "read_manifest"]


def __getattr__(name: str) -> object:
    """Import a public name when it is asked for: who only reads manifests or decodes images, such as a worker that is
    spawned, does not wait for PyTorch and Lightning."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
