"""The mathematics of the paper, as pure functions on tensors.

Notation: ``B`` images, a CAM grid of ``h x w`` cells (7 x 7 for DenseNet-121 at 224 px), entropies in nats.

======================================  ===============================
Zhou's class activation map (CAM)       :func:`class_activation_map`
``s = min-max(M)``                      :func:`min_max`
Eq. 1, the human term of CYBORG         :func:`human_saliency_loss`
Eqs. 2 and 3, the entropy H of a map    :func:`spatial_entropy`
Eq. 5, HSEB                             :func:`entropy_match_loss`
Eq. 6, FMMMSE                           :func:`entropy_loss`
Eq. 7, DROID                            :func:`log_entropy_loss`
======================================  ===============================

Every function is differentiable and gives a finite value and finite gradients for every finite input. Half precision is
promoted to float32, also under autocast, because entropies and min-max maps computed in half precision lose most of
their digits; float64 stays float64.
"""

import torch
from torch import Tensor

# The guard of the first author's script: p = s / (sum s + EPSILON) + EPSILON. A min-max map always holds an
# exact zero, where p log p alone has a NaN gradient.
EPSILON = 1e-10

#: log H has the gradient 1 / H, which has to be bounded. Below this entropy (a focus of exp(0.001) = 1.001 cells) a map
#: cannot be focused further in any useful sense, and log H is held constant.
SMALLEST_ENTROPY = 1e-3


def class_activation_map(features: Tensor, weight: Tensor, class_index: Tensor) -> Tensor:
    """Zhou's class activation map, ``M = sum_k W[c, k] F[:, k]`` (CVPR 2016).

    If F are the maps that the network averages before its linear layer, ``mean(M) + bias[c] == logit[c]``.

    Args:
        features: ``(B, C, h, w)`` feature maps.
        weight: ``(classes, C)`` weight of the linear classifier.
        class_index: ``(B,)`` integers, the class whose map is taken, for each image.

    Returns:
        ``(B, h, w)``, not normalised, of any sign.
    """
    features, weight = _full_precision(features, weight)
    # Under autocast the batched product would otherwise run in half precision again.
    with torch.autocast(features.device.type, enabled=False):
        return torch.einsum("bc,bchw->bhw", weight[class_index], features)


def min_max(maps: Tensor) -> Tensor:
    """Each map scaled to [0, 1]: ``s = (M - min M) / (max M - min M)``.

    Args:
        maps: ``(B, h, w)``, of any sign.

    Returns:
        ``(B, h, w)`` in [0, 1]. A constant map gives zeros and a zero gradient.
    """
    (maps,) = _full_precision(maps)
    # Scales down only values so large that max - min could overflow; all others follow the formula bit for bit.
    magnitude = maps.detach().abs().amax(dim=(-2, -1), keepdim=True)
    limit = torch.finfo(maps.dtype).max / 4
    maps = maps / torch.where(magnitude > limit, magnitude, 1.0)
    low = maps.amin(dim=(-2, -1), keepdim=True)
    span = maps.amax(dim=(-2, -1), keepdim=True) - low
    # The gradient is 1 / span, so a map whose span is too small to be squared counts as constant.
    constant = span <= _smallest(maps)
    scaled = (maps - low) / torch.where(constant, 1.0, span)
    return torch.where(constant, 0.0, scaled)


def spatial_entropy(maps: Tensor) -> Tensor:
    """Shannon entropy of each map as a distribution over its cells, Eqs. 2 and 3: ``H = -sum p ln p``.

    Args:
        maps: ``(B, h, w)``, non-negative; each map is first scaled to a sum of 1.

    Returns:
        ``(B,)`` in nats, from 0 (a single cell) to ``ln(h w)`` (a uniform map; an all-zero map counts as uniform).
        ``exp(H)`` is the focus area in cells.
    """
    (maps,) = _full_precision(maps)
    # Entropy does not depend on the scale of a map, so the guard must not either: the largest cell becomes 1, as in
    # every min-max map.
    largest = maps.detach().amax(dim=(-2, -1), keepdim=True)
    empty = largest <= _smallest(maps)
    maps = torch.where(empty, torch.ones_like(maps), maps) / torch.where(empty, 1.0, largest)
    p = maps / (maps.sum(dim=(-2, -1), keepdim=True) + EPSILON) + EPSILON
    return -(p * p.log()).sum(dim=(-2, -1))


def human_saliency_loss(maps: Tensor, human_maps: Tensor, available: Tensor | None = None) -> Tensor:
    """The human perception term of CYBORG, Eq. 1: ``MSE(s_human, s_model)`` over the cells of the maps.

    Args:
        maps: ``(B, h, w)`` in [0, 1], the model's maps.
        human_maps: ``(B, h, w)`` in [0, 1], on the same grid.
        available: ``(B,)`` bool, which images have a human map (all, if not given); the others are left out.

    Returns:
        Scalar; 0 if no image has a human map.
    """
    maps, human_maps = _full_precision(maps, _available(human_maps, available))
    return _mean((maps - human_maps).square().mean(dim=(-2, -1)), available)


def entropy_loss(maps: Tensor) -> Tensor:
    """FMMMSE, Eq. 6: the mean entropy over the batch, ``mean_B H``.

    Args:
        maps: ``(B, h, w)`` in [0, 1], the model's maps.

    Returns:
        Scalar in nats, 0 to ``ln(h w)``.
    """
    return spatial_entropy(maps).mean()


def log_entropy_loss(maps: Tensor, offset: float = 0.0) -> Tensor:
    """DROID, Eq. 7: the mean of ``ln(H + offset)`` over the batch.

    Args:
        maps: ``(B, h, w)`` in [0, 1], the model's maps.
        offset: 0 in the paper, 1 in the first author's script.

    Returns:
        Scalar, at most ``ln(ln(h w) + offset)``; the argument of each logarithm is at least :data:`SMALLEST_ENTROPY`.
    """
    return (spatial_entropy(maps) + offset).clamp(min=SMALLEST_ENTROPY).log().mean()


def entropy_match_loss(
    maps: Tensor,
    human_maps: Tensor | None = None,
    target: str | float = "batch",
    available: Tensor | None = None,
) -> Tensor:
    """HSEB, Eq. 5: the squared difference between the entropies of the model's and the human maps.

    Args:
        maps: ``(B, h, w)`` in [0, 1], the model's maps.
        human_maps: ``(B, h, w)`` in [0, 1]; not used when ``target`` is a number.
        target: ``"batch"``: ``(mean_B H_model - mean_B H_human)^2`` (the paper); ``"per_sample"``:
            ``mean_B (H_model - H_human)^2``; a number of nats: ``(mean_B H_model - target)^2``, which needs no human
            maps.
        available: ``(B,)`` bool, which images have a human map (all, if not given); the means are taken over them.

    Returns:
        Scalar in nats squared; 0 if human maps are needed and no image has one.

    Raises:
        ValueError: ``target`` is another word, or human maps are needed but not given.
    """
    entropy = spatial_entropy(maps)
    if not isinstance(target, str):
        return (entropy.mean() - target).square()
    if target not in ("batch", "per_sample"):
        raise ValueError(f"target is {target!r}; it must be 'batch', 'per_sample' or a number of nats")
    if human_maps is None:
        raise ValueError(f"target {target!r} needs human maps; give them, or a number of nats as target")
    difference = entropy - spatial_entropy(_available(human_maps, available))
    if target == "per_sample":
        return _mean(difference.square(), available)
    return _mean(difference, available).square()


def _available(human_maps: Tensor, available: Tensor | None) -> Tensor:
    """The maps, zeros where they are not available: a NaN there would be one in the gradient, too."""
    return human_maps if available is None else torch.where(available[:, None, None], human_maps, 0.0)


def _mean(values: Tensor, available: Tensor | None) -> Tensor:
    """Mean of ``(B,)`` values over the available ones; 0 with a zero gradient if there are none."""
    if available is None:
        return values.mean()
    kept = torch.where(available, values, 0.0)
    return kept.sum() / available.sum().clamp(min=1)


def _full_precision(*tensors: Tensor) -> list[Tensor]:
    """The tensors in one dtype, float32 at least."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [tensor.to(dtype) for tensor in tensors]


def _smallest(tensor: Tensor) -> float:
    """The smallest scale whose reciprocal's square is still finite: 1.1e-19 in float32, 1.5e-154 in float64."""
    return torch.finfo(tensor.dtype).tiny ** 0.5
