"""The mathematics against numbers worked out by hand, NumPy references, and the first author's own script."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy

from saliency_entropy.functional import (
    class_activation_map,
    entropy_loss,
    entropy_match_loss,
    human_saliency_loss,
    log_entropy_loss,
    min_max,
    spatial_entropy,
)

GOLDEN = Path(__file__).parent / "golden"


def random_maps(*shape: int, dtype=torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


# --- class activation map


def test_class_activation_map_by_hand():
    features = torch.tensor([[[[1.0, 2.0]], [[10.0, 20.0]]]]).expand(2, 2, 1, 2)
    weight = torch.tensor([[1.0, 0.5], [-1.0, 2.0]])
    maps = class_activation_map(features, weight, torch.tensor([0, 1]))
    assert maps.tolist() == [[[6.0, 12.0]], [[19.0, 38.0]]]


def test_the_mean_of_the_map_is_the_logit_without_bias():
    features, weight = random_maps(5, 16, 7, 7), random_maps(2, 16, seed=1) - 0.5
    chosen = torch.tensor([0, 1, 1, 0, 1])
    logits = features.mean(dim=(2, 3)) @ weight.T
    maps = class_activation_map(features, weight, chosen)
    torch.testing.assert_close(maps.mean(dim=(1, 2)), logits[torch.arange(5), chosen])


# --- min-max


def test_min_max_by_hand():
    maps = torch.tensor([[[-2.0, 0.0], [1.0, 2.0]], [[5.0, 6.0], [5.0, 5.0]]])
    assert min_max(maps).tolist() == [[[0.0, 0.5], [0.75, 1.0]], [[0.0, 1.0], [0.0, 0.0]]]


def test_a_constant_map_becomes_zeros_with_a_zero_gradient():
    maps = torch.full((2, 7, 7), 3.0, requires_grad=True)
    scaled = min_max(maps)
    scaled.sum().backward()
    assert scaled.eq(0).all()
    assert maps.grad.eq(0).all()


# --- entropy


def test_uniform_and_one_hot():
    one_hot = torch.zeros(7, 7)
    one_hot[3, 4] = 1
    entropies = spatial_entropy(torch.stack([torch.ones(7, 7), torch.full((7, 7), 0.02), one_hot, torch.zeros(7, 7)]))
    log49 = 3.8918202981106265
    torch.testing.assert_close(entropies, torch.tensor([log49, log49, 0.0, log49]), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("cells", [1, 2, 10, 20, 38, 49])
def test_equal_focus_on_n_cells_has_entropy_ln_n(cells):
    """Fig. 2: entropy shrinks with the number of cells in focus, and exp(H) counts them."""
    maps = torch.zeros(1, 49, dtype=torch.float64)
    maps[0, :cells] = 0.7
    assert spatial_entropy(maps.view(1, 7, 7)).item() == pytest.approx(math.log(cells), abs=2e-7)


def test_entropy_equals_scipys_whatever_the_scale():
    maps = random_maps(8, 7, 5)
    expected = scipy_entropy(maps.flatten(1).numpy(), axis=1)
    for scale in (1.0, 1e-6, 1e6):
        np.testing.assert_allclose(spatial_entropy(maps * scale).numpy(), expected, rtol=1e-6)


# --- losses against NumPy


def reference_entropy(maps: np.ndarray) -> np.ndarray:
    return scipy_entropy(maps.reshape(len(maps), -1), axis=1)


@pytest.mark.parametrize("available", [None, [True, True, False, True], [False] * 4])
def test_losses_equal_their_equations(available):
    maps, human = random_maps(4, 7, 7), random_maps(4, 7, 7, seed=1) ** 3
    kept = np.array([True] * 4 if available is None else available)
    mask = None if available is None else torch.tensor(available)
    m, h = maps.numpy()[kept], human.numpy()[kept]
    close = dict(rel=1e-6, abs=1e-9)

    expected_mse = np.mean((m - h) ** 2) if kept.any() else 0.0
    assert human_saliency_loss(maps, human, mask).item() == pytest.approx(expected_mse, **close)
    difference = reference_entropy(m) - reference_entropy(h) if kept.any() else np.zeros(1)
    expected_batch = difference.mean() ** 2
    assert entropy_match_loss(maps, human, "batch", mask).item() == pytest.approx(expected_batch, **close)
    expected_sample = np.mean(difference**2)
    assert entropy_match_loss(maps, human, "per_sample", mask).item() == pytest.approx(expected_sample, **close)


def test_entropy_losses_equal_their_equations():
    maps = random_maps(4, 7, 7)
    entropies = reference_entropy(maps.numpy())
    assert entropy_loss(maps).item() == pytest.approx(entropies.mean(), rel=1e-7)
    assert log_entropy_loss(maps).item() == pytest.approx(np.log(entropies).mean(), rel=1e-7)
    assert log_entropy_loss(maps, offset=1).item() == pytest.approx(np.log(1 + entropies).mean(), rel=1e-7)
    assert entropy_match_loss(maps, target=3.0).item() == pytest.approx((entropies.mean() - 3.0) ** 2, rel=1e-7)


def test_no_available_map_gives_zero_gradient():
    maps = random_maps(3, 7, 7).requires_grad_()
    none = torch.zeros(3, dtype=torch.bool)
    (
        human_saliency_loss(maps, maps.detach() * 0, none) + entropy_match_loss(maps, maps.detach() * 0, available=none)
    ).backward()
    assert maps.grad.eq(0).all()


def test_a_map_that_is_not_available_does_not_count_even_if_it_is_not_a_number():
    maps, human = random_maps(2, 7, 7), random_maps(2, 7, 7, seed=1)
    human[1] = torch.nan
    mask = torch.tensor([True, False])
    assert human_saliency_loss(maps, human, mask).item() == pytest.approx((maps - human)[0].square().mean().item())
    # Nor in the gradient, which is that of the first image alone.
    for loss in (
        human_saliency_loss,
        lambda *arguments: entropy_match_loss(*arguments[:2], "batch", arguments[2]),
        lambda *arguments: entropy_match_loss(*arguments[:2], "per_sample", arguments[2]),
    ):
        both, first = maps.clone().requires_grad_(), maps[:1].clone().requires_grad_()
        loss(both, human, mask).backward()
        loss(first, human[:1], mask[:1]).backward()
        assert torch.equal(both.grad, torch.cat([first.grad, torch.zeros_like(first.grad)]))


@pytest.mark.parametrize("target", ["batch", "per_sample"])
def test_matching_needs_human_maps(target):
    with pytest.raises(ValueError, match="needs human maps"):
        entropy_match_loss(random_maps(2, 7, 7), target=target)


def test_an_unknown_target_is_refused():
    with pytest.raises(ValueError, match="'batch', 'per_sample' or a number"):
        entropy_match_loss(random_maps(2, 7, 7), random_maps(2, 7, 7), target="mean")


# --- gradients


def test_gradients_are_those_of_the_formulas():
    cam = (random_maps(3, 3, 4) - 0.5).requires_grad_()
    human = min_max(random_maps(3, 3, 4, seed=1))
    check = torch.autograd.gradcheck
    assert check(min_max, cam)
    assert check(lambda m: spatial_entropy(m.exp()), cam)
    assert check(lambda m: human_saliency_loss(min_max(m), human), cam)
    assert check(lambda m: log_entropy_loss(min_max(m)), cam)
    assert check(lambda m: entropy_match_loss(min_max(m), human, "per_sample"), cam)
    weight = (random_maps(2, 5, seed=2) - 0.5).requires_grad_()
    features = random_maps(3, 5, 2, 2).requires_grad_()
    assert check(lambda f, w: class_activation_map(f, w, torch.tensor([0, 1, 1])), (features, weight))


def every_loss(cam: torch.Tensor) -> torch.Tensor:
    maps = min_max(cam)
    human = min_max(random_maps(*cam.shape, dtype=cam.dtype if cam.dtype == torch.float64 else torch.float32))
    return sum(
        [
            human_saliency_loss(maps, human),
            entropy_loss(maps),
            log_entropy_loss(maps),
            log_entropy_loss(maps, 1.0),
            entropy_match_loss(maps, human),
            entropy_match_loss(maps, human, "per_sample"),
            entropy_match_loss(maps, target=3.0),
        ]
    )


def awkward_maps(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    limits = torch.finfo(dtype)
    base = torch.linspace(-1, 1, 49).view(1, 7, 7)
    one_hot = torch.zeros(1, 7, 7)
    one_hot[0, 2, 2] = 1
    maps = {"constant": torch.full((1, 7, 7), 2.5), "zeros": torch.zeros(1, 7, 7), "one hot": one_hot}
    maps |= {
        f"all {name}": torch.full((1, 7, 7), value, dtype=torch.float64)
        for name, value in (("largest", limits.max), ("smallest", limits.tiny))
    }
    maps |= {
        "huge": base.double() * limits.max,
        "tiny": base.double() * limits.tiny * 16,
        "small": base * 1e-3,
    }
    maps |= {
        "one ulp": torch.where(one_hot > 0, 1 + limits.eps, 1.0),
        "huge one hot": one_hot.double() * limits.max,
    }
    maps |= {"tiny one hot": one_hot.double() * limits.tiny, "two values": (base > 0).float()}
    return {name: value.to(dtype) for name, value in maps.items()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_finite_map_gives_finite_values_and_gradients(dtype):
    for name, cam in awkward_maps(dtype).items():
        cam = cam.clone().requires_grad_()
        loss = every_loss(cam)
        loss.backward()
        assert torch.isfinite(loss), name
        # Half precision cannot hold every gradient that float32 can; what reaches it must not be NaN.
        assert not cam.grad.isnan().any(), name
        if dtype in (torch.float32, torch.float64):
            assert torch.isfinite(cam.grad).all(), name
        for positive in (cam.detach().abs(), torch.zeros_like(cam)):
            positive = positive.requires_grad_()
            entropy = spatial_entropy(positive)
            entropy.sum().backward()
            assert ((entropy >= -1e-6) & (entropy <= math.log(49) + 1e-6)).all(), name
            assert not positive.grad.isnan().any(), name


def test_the_gradient_of_log_entropy_is_bounded():
    """A map so focused that 1 / H would be ten million pulls no harder than one of 1.001 cells."""
    maps = torch.zeros(1, 7, 7, dtype=torch.float64)
    maps[0, 0, 0] = 1
    maps = maps.requires_grad_()
    loss = log_entropy_loss(maps)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(1e-3))
    assert maps.grad.abs().max() <= 1e3 * -math.log(1e-10)


# --- precision


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_promoted_whatever_the_autocast(half):
    features, weight = random_maps(2, 8, 7, 7).to(half), (random_maps(2, 8) - 0.5).to(half)
    chosen = torch.tensor([0, 1])
    plain = class_activation_map(features.float(), weight.float(), chosen)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cam = class_activation_map(features, weight, chosen)
        entropies = spatial_entropy(min_max(cam))
        loss = every_loss(cam)
    assert cam.dtype == entropies.dtype == loss.dtype == torch.float32
    assert torch.equal(cam, plain)
    assert torch.equal(entropies, spatial_entropy(min_max(plain)))


def test_float64_stays_float64():
    features, weight = random_maps(2, 8, 7, 7), random_maps(2, 8) - 0.5
    cam = class_activation_map(features, weight, torch.tensor([0, 1]))
    assert (
        cam.dtype == min_max(cam).dtype == spatial_entropy(min_max(cam)).dtype == every_loss(cam).dtype == torch.float64
    )


# --- the first author's script


@pytest.mark.parametrize("feature_maps", ["pooled", "pre_activation"])
@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("cyborg", lambda maps, human: human_saliency_loss(maps, human)),
        ("hseb", lambda maps, human: entropy_match_loss(maps, human)),
        ("fmmmse", lambda maps, human: entropy_loss(maps)),
        ("droid", lambda maps, human: log_entropy_loss(maps, offset=1.0)),
    ],
)
def test_losses_and_gradients_are_those_of_the_authors_script(feature_maps, name, loss):
    stored = np.load(GOLDEN / f"author_losses_{feature_maps}.npz")
    golden = {key: torch.from_numpy(np.asarray(stored[key])) for key in stored}
    features, weight = golden["features"].requires_grad_(), golden["weight"].requires_grad_()
    maps = min_max(class_activation_map(features, weight, golden["class_index"]))
    value = loss(maps, golden["human_maps"])
    value.backward()

    torch.testing.assert_close(maps, golden["cams"], rtol=1e-6, atol=0)
    torch.testing.assert_close(spatial_entropy(maps), golden["entropies"], rtol=1e-6, atol=0)
    torch.testing.assert_close(value, golden[f"{name}_loss"], rtol=1e-6, atol=0)
    for tensor, expected in ((features, f"{name}_grad_features"), (weight, f"{name}_grad_weight")):
        largest = golden[expected].abs().max().item()
        torch.testing.assert_close(tensor.grad, golden[expected], rtol=1e-6, atol=1e-6 * largest)
