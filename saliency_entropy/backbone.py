"""A timm network that gives logits, feature maps and classifier weight in one forward.

Zhou's class activation map needs a network that averages its last feature maps over the image and gives the averages
to one linear layer. Every network here is checked for that when it is built.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from saliency_entropy.cpu.dilated_depthwise import replace_dilated_depthwise
from saliency_entropy.errors import UserError, in_one_line
from saliency_entropy.weights import timm_network

# Two classes: 0 = real, 1 = synthetic.
CLASSES = 2
FEATURES = ("pooled", "pre_activation")
IMAGE_SIZES = (16, 2048)  # pixels; a size outside this range is a typing error


class BackboneOutput(NamedTuple):
    """What one forward gives for B images.

    Attributes:
        logits: ``(B, 2)``.
        features: ``(B, C, h, w)`` feature maps.
        weight: ``(2, C)``, the weight of the linear layer.
    """

    logits: Tensor
    features: Tensor
    weight: Tensor


class Backbone(nn.Module):
    """A timm network with two classes, its input's normalisation, and its feature maps.

    Args:
        name: the network's name in messages of this package.
        timm_name: timm's name of the network, with the tag of its weights (``densenet121.tv_in1k``).
        image_size: S, the side of its square input, in pixels.
        mean, std: the mean and standard deviation of its input, per channel, for colours in [0, 1].
        interpolation: how images are resized for the network; not used here, but its weights expect it.
        pretrained: begin with ImageNet weights rather than random ones.
        weights_package: an installed Python package that carries these weights (a ``.pth`` file whose tensors have
            timm's order and shapes); timm downloads them, if not given.
        checkpoint: a file with these weights, instead of a package or a download.
        output_stride: pixels of the image per cell of the feature maps, where timm lets one choose (by dilation).
        last_activation: path, in timm's network, of the activation whose output is pooled; not given for networks
            that have no such single module.
        features: ``pooled``: the maps that are averaged (Zhou's CAM). ``pre_activation``: the maps before
            ``last_activation``, as in the CYBORG authors' code; the logits do not change.
        double_forward: while training, take the feature maps from a second forward, as the CYBORG authors' code does;
            BatchNorm statistics are then updated twice a step.
        timm_options: further arguments of timm's network, from :data:`~saliency_entropy.weights.TIMM_OPTIONS`.

    Raises:
        UserError: the network is unknown or has no CAM, an argument does not suit it, or its weights are not available.
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
        self.net = timm_network(name, timm_name, output_stride, timm_options, pretrained, weights_package, checkpoint)
        self.net.reset_classifier(CLASSES)
        self.activation: nn.Module = nn.Identity()
        if features == "pre_activation":
            self._take_out(last_activation)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.to(memory_format=torch.channels_last)  # about 1.5 times as fast on a CPU, no slower on a GPU
        replace_dilated_depthwise(self.net)
        self.cam_size = self._check_cam()

    def forward(self, images: Tensor) -> BackboneOutput:
        """The logits and the feature maps of images.

        Args:
            images: ``(B, 3, S, S)`` RGB, uint8, or float in [0, 1].
        """
        if not images.is_floating_point():
            images = images / 255
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        maps = self.net.forward_features(images)
        # Averaged and classified in the precision of the weights, also under autocast: logits in half precision take
        # few different values, and AUROC would rank ties.
        with torch.autocast(images.device.type, enabled=False):
            logits = self.net.forward_head(self.activation(maps.to(images.dtype)))
        # A second forward changes nothing but BatchNorm statistics, and those only while training.
        if self.double_forward and self.training:
            maps = self.net.forward_features(images)
        return BackboneOutput(logits, self._on_grid(maps), self.net.get_classifier().weight)

    def _on_grid(self, maps: Tensor) -> Tensor:
        """The feature maps ``(B, C, h, w)``, also of a vision transformer, whose tokens are ``(B, 1 + h w, C)``."""
        if maps.dim() == 4:
            return maps
        tokens = maps[:, self.net.num_prefix_tokens :]
        return tokens.transpose(1, 2).unflatten(2, self.net.patch_embed.grid_size)

    def _take_out(self, last_activation: str | None) -> None:
        """Move the last activation from timm's network to :attr:`activation`, so that its input is available."""
        if last_activation is None:
            raise UserError(
                f"backbone {self.name} has no single last activation, so protocol.features cannot be pre_activation: "
                "use pooled, or another backbone"
            )
        parent, _, attribute = last_activation.rpartition(".")
        try:
            activation = self.net.get_submodule(last_activation)
        except AttributeError:
            raise UserError(
                f"backbone.last_activation={last_activation} is not a module of {self.name}; give the path of its last "
                "activation, or use protocol.features=pooled"
            ) from None
        # The same kind of activation, but not in place: that would overwrite the maps that are to be returned.
        self.activation = type(activation)()
        setattr(self.net.get_submodule(parent), attribute, nn.Identity())

    @torch.no_grad()
    def _check_cam(self) -> tuple[int, int]:
        """The CAM grid ``(h, w)``.

        Raises:
            UserError: the logits are not those of a linear layer on the averaged feature maps.
        """
        generator = torch.Generator().manual_seed(0)  # leaves the run's own random numbers as they are
        images = torch.rand(1, 3, self.image_size, self.image_size, generator=generator)
        was_training = self.training
        try:
            logits, maps, weight = self.eval()(images)
            linear = isinstance(self.net.get_classifier(), nn.Linear) and maps.shape[1] == weight.shape[1]
            bias = self.net.get_classifier().bias if linear else None
            same = linear and torch.allclose(
                self.activation(maps).mean(dim=(2, 3)) @ weight.T + (0 if bias is None else bias), logits, atol=1e-4
            )
            cause = "" if same else self._cause_of_no_cam(images)
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
                f"feature maps ({cause}); choose a network with global average pooling"
            )
        return tuple(maps.shape[-2:])

    def _cause_of_no_cam(self, images: Tensor) -> str:
        """What else the logits of ``(1, 3, S, S)`` images come from."""
        features, classifier = self.net.forward_features(images), self.net.get_classifier()
        if not isinstance(classifier, nn.Linear):
            return f"its classifier is a {type(classifier).__name__}"
        if features.dim() == 4 and features.shape[1] != classifier.in_features == features.shape[3]:
            return "it has tokens with the channels last instead of feature maps"
        passed: list[str] = []
        layers = [layer for layer in self.net.modules() if not list(layer.children()) and layer is not classifier]
        hooks = [layer.register_forward_hook(lambda layer, *_: passed.append(type(layer).__name__)) for layer in layers]
        self.net.forward_head(features)
        for hook in hooks:
            hook.remove()
        between = [name for name in passed if not re.search("AvgPool|Identity|Flatten|Dropout", name)]
        if between:
            return f"before the linear layer come {' and '.join(between)}"
        return "the linear layer takes something else than their average"
