"""A faster backward on CPUs for dilated depthwise convolutions.

oneDNN has no fast backward for them: EfficientNet-Lite0, whose last stage is dilated for a 7 x 7 CAM, would spend a
third of a training step in four such layers.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def replace_dilated_depthwise(net: nn.Module) -> None:
    """Give every dilated depthwise convolution of a network that keeps the size of its input the backward below."""
    for layer in net.modules():
        if type(layer) is nn.Conv2d and _is_dilated_depthwise(layer):
            layer.__class__ = DilatedDepthwiseConv2d  # the same parameters under the same names


def _is_dilated_depthwise(layer: nn.Conv2d) -> bool:
    same_size = layer.padding == tuple(
        dilation * (size // 2) for dilation, size in zip(layer.dilation, layer.kernel_size, strict=True)
    )
    odd = all(size % 2 for size in layer.kernel_size)
    depthwise = layer.in_channels == layer.out_channels == layer.groups
    plain = layer.stride == (1, 1) and layer.bias is None and layer.padding_mode == "zeros"
    return same_size and odd and depthwise and plain and layer.dilation != (1, 1)


class DilatedDepthwiseConv2d(nn.Conv2d):
    """The same convolution with :class:`_DilatedDepthwise`'s gradients, where a CPU trains without autocast.

    There, not with the transforms of ``torch.func`` nor under ``torch.jit.script``. In evaluation it is PyTorch's own,
    so that scores, Grad-CAMs and exports do not depend on it.
    """

    def forward(self, maps: Tensor) -> Tensor:
        if self.training and maps.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            return _DilatedDepthwise.apply(maps, self.weight, self.padding, self.dilation)
        return super().forward(maps)


class _DilatedDepthwise(torch.autograd.Function):
    """y[b, c, p] = sum over k of w[c, k] x[b, c, p + k], where k are the dilated offsets of the kernel.

    dL/dx is the same convolution of dL/dy with the kernel turned by 180 degrees, and
    dL/dw[c, k] = sum over b, p of dL/dy[b, c, p] x[b, c, p + k].
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, padding: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.padding, ctx.dilation = padding, dilation
        return F.conv2d(maps, weight, None, 1, padding, dilation, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        maps, weight = ctx.saved_tensors
        of_maps = F.conv2d(gradient, weight.flip(2, 3), None, 1, ctx.padding, ctx.dilation, len(weight))
        # Channels last, which is how the network keeps them.
        maps, gradient = maps.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
        rows, columns = (
            range(-padding, padding + 1, dilation) for padding, dilation in zip(ctx.padding, ctx.dilation, strict=True)
        )
        of_weight = [
            (_shifted(maps, row, column) * _shifted(gradient, -row, -column)).sum((0, 1, 2))
            for row in rows
            for column in columns
        ]
        # (C, 1, kh, kw) with the strides of a weight in channels last, which DistributedDataParallel compares.
        stacked = torch.stack(of_weight, 1).view(len(weight), *weight.shape[2:], 1).permute(0, 3, 1, 2)
        return of_maps, stacked, None, None


def _shifted(maps: Tensor, row: int, column: int) -> Tensor:
    """``(B, h - |row|, w - |column|, C)``: the cells of ``(B, h, w, C)`` maps that have a cell at minus this offset."""
    height, width = maps.shape[1:3]
    rows = slice(max(row, 0), max(height + min(row, 0), 0))
    columns = slice(max(column, 0), max(width + min(column, 0), 0))
    return maps[:, rows, columns]
