"""Loss terms and their weighted sum.

A method of the paper is a sum of terms, such as Eq. 8: :class:`LossSum` holds a dict of them, and one file of
``conf/method`` names the terms and weights of one equation. A new term is a subclass of :class:`Term`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from saliency_entropy import functional
from saliency_entropy.errors import UserError


@dataclass(frozen=True)
class Prediction:
    """What the terms of a loss see of one batch: B images and their maps on a CAM grid of ``h x w`` cells.

    Attributes:
        logits: ``(B, 2)``, class 0 = real, class 1 = synthetic.
        labels: ``(B,)`` int64.
        maps: ``(B, h, w)``, the model's CAMs, min-max scaled to [0, 1].
        human_maps: ``(B, h, w)`` in [0, 1]; zeros where an image has no human map.
        has_map: ``(B,)`` bool, which images have a human map.
    """

    logits: Tensor
    labels: Tensor
    maps: Tensor
    human_maps: Tensor
    has_map: Tensor


class Term(nn.Module):
    """One summand of the loss; ``forward(prediction)`` returns its unweighted scalar.

    Args:
        weight: the factor in front of the term in the total, 0 or more: a term is what training makes small.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        if not _is_number(weight) or weight < 0:
            raise UserError(f"the weight of a {type(self).__name__} term is {weight!r}; give a number from 0 on")
        self.weight = float(weight)

    @property
    def needs_human_maps(self) -> bool:
        """Whether the term is meaningless on data without human maps."""
        return False

    def forward(self, prediction: Prediction) -> Tensor:
        raise TypeError(f"{type(self).__name__} must define forward(prediction)")


class CrossEntropy(Term):
    """The classification term: ``-mean_B log p(label)``."""

    def forward(self, prediction: Prediction) -> Tensor:
        # In float32 at least: under autocast the logits are in half precision.
        return F.cross_entropy(prediction.logits.to(prediction.maps.dtype), prediction.labels)


class HumanSaliency(Term):
    """CYBORG, Eq. 1: :func:`~saliency_entropy.functional.human_saliency_loss`."""

    @property
    def needs_human_maps(self) -> bool:
        return True

    def forward(self, prediction: Prediction) -> Tensor:
        return functional.human_saliency_loss(prediction.maps, prediction.human_maps, prediction.has_map)


class Entropy(Term):
    """FMMMSE, Eq. 6: :func:`~saliency_entropy.functional.entropy_loss`."""

    def forward(self, prediction: Prediction) -> Tensor:
        return functional.entropy_loss(prediction.maps)


class LogEntropy(Term):
    """DROID, Eq. 7: :func:`~saliency_entropy.functional.log_entropy_loss`."""

    def __init__(self, weight: float, offset: float = 0.0) -> None:
        super().__init__(weight)
        self.offset = float(offset)

    def forward(self, prediction: Prediction) -> Tensor:
        return functional.log_entropy_loss(prediction.maps, self.offset)


class EntropyMatch(Term):
    """HSEB, Eq. 5: :func:`~saliency_entropy.functional.entropy_match_loss`."""

    def __init__(self, weight: float, target: str | float = "batch") -> None:
        super().__init__(weight)
        known = target in ("batch", "per_sample") if isinstance(target, str) else _is_number(target)
        if not known:
            raise UserError(
                f"the target of an entropy_match term is {target!r}; use batch, per_sample or a number of nats"
            )
        self.target = target

    @property
    def needs_human_maps(self) -> bool:
        return isinstance(self.target, str)

    def forward(self, prediction: Prediction) -> Tensor:
        return functional.entropy_match_loss(prediction.maps, prediction.human_maps, self.target, prediction.has_map)


class LossSum(nn.Module):
    """The loss of a method, ``sum_t weight_t * term_t``.

    Args:
        terms: name -> term.

    Raises:
        UserError: there are no terms, or one of the values is not a term.
    """

    def __init__(self, terms: Mapping[str, Term]) -> None:
        super().__init__()
        if not terms:
            raise UserError("loss.terms is empty; choose a method, or add a term with +term@loss.terms=NAME")
        for name, term in terms.items():
            if not isinstance(term, Term):
                plain = isinstance(term, dict | list | str | int | float)
                found = repr(term) if plain else f"a {type(term).__name__}"
                raise UserError(
                    f"loss.terms.{name} is {found}, not a loss term; add a complete term with "
                    f"+term@loss.terms=NAME, or give it a _target_ that is a subclass of saliency_entropy.losses.Term"
                )
        self.terms = nn.ModuleDict(terms)

    @property
    def terms_needing_human_maps(self) -> list[str]:
        """The names of the terms that are meaningless on data without human maps."""
        return [name for name, term in self.terms.items() if term.needs_human_maps]

    def check_targets(self, cells: int) -> None:
        """Raises UserError if a term asks for an entropy that no CAM of so many cells has: more than ln(cells) nats."""
        most = math.log(cells)
        for name, term in self.terms.items():
            if isinstance(term, EntropyMatch) and not (isinstance(term.target, str) or 0 <= term.target <= most):
                raise UserError(
                    f"loss.terms.{name}.target={term.target} is no entropy of a CAM of {cells} cells: give 0 to "
                    f"{most:.2f} nats"
                )

    def forward(self, prediction: Prediction) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, a scalar, and each term's unweighted scalar by the term's name."""
        values = {name: term(prediction) for name, term in self.terms.items()}
        total = sum(self.terms[name].weight * value for name, value in values.items())
        return total, values


def _is_number(value: object) -> bool:
    # To Python, YAML's true is an int.
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
