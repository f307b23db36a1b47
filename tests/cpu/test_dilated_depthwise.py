"""Gradients of dilated depthwise convolutions, against PyTorch's own."""

import copy

import pytest
import torch
from torch import nn

from saliency_entropy.cpu.dilated_depthwise import DilatedDepthwiseConv2d, replace_dilated_depthwise


def depthwise(kernel: int | tuple[int, int], dilation: int | tuple[int, int], **options: object) -> nn.Conv2d:
    settings = {"padding": "same", "groups": 6, "bias": False, "dtype": torch.float64} | options
    layer = nn.Conv2d(6, 6, kernel, dilation=dilation, **settings)
    if layer.padding == "same":
        layer.padding = tuple(d * (k // 2) for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
    return layer


def results(layer: nn.Module, maps: torch.Tensor, of_output: torch.Tensor) -> list[torch.Tensor]:
    maps = maps.clone().requires_grad_()
    output = layer(maps)
    output.backward(of_output)
    return [output.detach(), maps.grad, layer.weight.grad]


@pytest.mark.parametrize(
    ("kernel", "dilation", "size"),
    [
        (5, 2, (7, 7)),
        (3, 2, (7, 7)),
        (3, 3, (4, 9)),
        (5, 4, (3, 3)),  # most of the kernel lies outside
        ((3, 5), (2, 1), (6, 5)),
        ((1, 3), (1, 2), (1, 8)),
    ],
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_those_of_pytorch(kernel, dilation, size, memory_format) -> None:
    torch.manual_seed(0)
    layer = depthwise(kernel, dilation)
    faster = copy.deepcopy(layer)
    replace_dilated_depthwise(faster)
    assert type(faster) is DilatedDepthwiseConv2d
    maps, of_output = (torch.randn(3, 6, *size, dtype=torch.float64).to(memory_format=memory_format) for _ in range(2))
    for ours, theirs in zip(results(faster, maps, of_output), results(layer, maps, of_output), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_gradients_by_finite_differences() -> None:
    torch.manual_seed(0)
    layer = depthwise(3, 2)
    replace_dilated_depthwise(layer)
    maps = torch.randn(1, 6, 4, 3, dtype=torch.float64, requires_grad=True)
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda maps, _: layer(maps), (maps, layer.weight))


def test_the_gradient_of_a_weight_in_channels_last_has_its_strides() -> None:
    layer = depthwise(3, 2).to(memory_format=torch.channels_last)
    replace_dilated_depthwise(layer)
    layer(torch.randn(1, 6, 4, 3, dtype=torch.float64)).sum().backward()
    assert layer.weight.grad.stride() == layer.weight.stride()


@pytest.mark.parametrize(
    "layer",
    [
        depthwise(3, 1),
        depthwise(3, 2, padding=1),
        depthwise(3, 2, padding=2, stride=2),
        depthwise(3, 2, padding=2, groups=3),
        depthwise(3, 2, padding=2, bias=True),
        depthwise(3, 2, padding=2, padding_mode="reflect"),
        depthwise(2, 2, padding=2),
    ],
)
def test_other_convolutions_stay(layer: nn.Conv2d) -> None:
    replace_dilated_depthwise(layer)
    assert type(layer) is nn.Conv2d


def test_evaluation_and_autocast_use_pytorchs() -> None:
    torch.manual_seed(0)
    layer = depthwise(3, 2, dtype=torch.float32)
    replace_dilated_depthwise(layer)
    maps = torch.randn(2, 6, 5, 5)
    assert "DilatedDepthwise" in layer(maps).grad_fn.name()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = layer(maps)
    assert mixed.dtype == torch.bfloat16
    assert "DilatedDepthwise" not in mixed.grad_fn.name()
    assert "DilatedDepthwise" not in layer.eval()(maps).grad_fn.name()
