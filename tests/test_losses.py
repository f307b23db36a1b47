"""The terms against the functions they stand for, and the sum against arithmetic."""

import pytest
import torch
from torch import nn

from saliency_entropy import functional
from saliency_entropy.errors import UserError
from saliency_entropy.losses import (
    CrossEntropy,
    Entropy,
    EntropyMatch,
    HumanSaliency,
    LogEntropy,
    LossSum,
    Prediction,
    Term,
)


@pytest.fixture
def prediction() -> Prediction:
    generator = torch.Generator().manual_seed(0)
    return Prediction(
        logits=torch.tensor([[2.0, 0.0], [0.5, 1.5], [0.0, 0.0]]),
        labels=torch.tensor([0, 1, 1]),
        maps=torch.rand(3, 7, 7, generator=generator),
        human_maps=torch.rand(3, 7, 7, generator=generator),
        has_map=torch.tensor([True, False, True]),
    )


def test_cross_entropy_by_hand(prediction):
    # ln(1 + e^-2), ln(1 + e^-1), ln 2
    expected = (0.1269280110429726 + 0.3132616875182228 + 0.6931471805599453) / 3
    assert CrossEntropy(weight=1.0)(prediction).item() == pytest.approx(expected)


def test_each_term_is_its_function(prediction):
    maps, human, has_map = prediction.maps, prediction.human_maps, prediction.has_map
    expected = {
        HumanSaliency(weight=1): functional.human_saliency_loss(maps, human, has_map),
        Entropy(weight=1): functional.entropy_loss(maps),
        LogEntropy(weight=1): functional.log_entropy_loss(maps),
        LogEntropy(weight=1, offset=1): functional.log_entropy_loss(maps, 1.0),
        EntropyMatch(weight=1): functional.entropy_match_loss(maps, human, "batch", has_map),
        EntropyMatch(weight=1, target="per_sample"): functional.entropy_match_loss(maps, human, "per_sample", has_map),
        EntropyMatch(weight=1, target=3.0): functional.entropy_match_loss(maps, target=3.0),
    }
    for term, value in expected.items():
        assert torch.equal(term(prediction), value), term


def test_which_terms_need_human_maps():
    terms = {
        "classes": CrossEntropy(weight=1),
        "human": HumanSaliency(weight=1),
        "match": EntropyMatch(weight=1),
        "scalar": EntropyMatch(weight=1, target=3.0),
        "log": LogEntropy(weight=1),
    }
    assert LossSum(terms).terms_needing_human_maps == ["human", "match"]


def test_the_sum_is_weighted_and_the_terms_are_not(prediction):
    loss = LossSum({"classes": CrossEntropy(weight=0.5), "human": HumanSaliency(weight=0.25), "h": Entropy(weight=2)})
    total, values = loss(prediction)
    assert list(values) == ["classes", "human", "h"]
    assert values["h"].item() == pytest.approx(functional.spatial_entropy(prediction.maps).mean().item())
    by_hand = 0.5 * values["classes"].item() + 0.25 * values["human"].item() + 2 * values["h"].item()
    assert total.item() == pytest.approx(by_hand)


def test_a_new_term_is_one_class(prediction):
    class Peak(Term):
        def forward(self, prediction: Prediction) -> torch.Tensor:
            return prediction.maps.amax(dim=(1, 2)).mean()

    total, values = LossSum({"peak": Peak(weight=3)})(prediction)
    assert total.item() == pytest.approx(3 * prediction.maps.amax(dim=(1, 2)).mean().item())
    assert list(values) == ["peak"]


@pytest.mark.parametrize("value", [{"weight": 0.3}, 0.3, nn.Linear(2, 2), None])
def test_what_is_not_a_term_is_refused_by_name(value):
    with pytest.raises(UserError, match=r"loss\.terms\.focus is .*not a loss term"):
        LossSum({"classes": CrossEntropy(weight=1), "focus": value})


def test_no_term_is_refused():
    with pytest.raises(UserError, match=r"loss\.terms is empty"):
        LossSum({})


def test_a_wrong_target_is_refused():
    with pytest.raises(UserError, match="target of an entropy_match term is 'mean'"):
        EntropyMatch(weight=1, target="mean")


@pytest.mark.parametrize("target", [-0.1, 3.9, 9])
def test_no_cam_has_the_entropy_that_is_asked_for(target):
    """ln 49 = 3.8918."""
    loss = LossSum({"focus": EntropyMatch(weight=1, target=target)})
    with pytest.raises(UserError, match=r"^loss\.terms\.focus\.target=.* 49 cells: give 0 to 3\.89 nats$"):
        loss.check_targets(49)


def test_entropies_that_a_cam_can_have_are_left_alone():
    terms = {name: EntropyMatch(weight=1, target=target) for name, target in (("a", 0), ("b", 3.89), ("c", "batch"))}
    LossSum(terms | {"d": CrossEntropy(weight=9)}).check_targets(49)
