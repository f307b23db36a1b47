"""Where a network runs."""

import pytest
import torch
from omegaconf import OmegaConf

from saliency_entropy.detector import usable_device
from saliency_entropy.errors import UserError
from saliency_entropy.run.devices import require_gpu
from saliency_entropy.sweep.plan.checks import require_device


def test_auto_is_the_processor_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert usable_device("auto") == usable_device("cpu") == usable_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("device", ["banana", "cuda:999", None])
def test_a_device_that_is_not_there(device):
    with pytest.raises(UserError, match=rf"^device={device} cannot be used \(.+\); use cpu, or cuda on a machine"):
        usable_device(device)


@pytest.mark.parametrize("refuse", [require_gpu, require_device])
@pytest.mark.parametrize("accelerator", ["gpu", "cuda"])
def test_a_gpu_that_is_not_there_is_refused_with_a_remedy(monkeypatch, refuse, accelerator):
    """By a run before it reads its data, and by its plan."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    trainer = OmegaConf.create({"accelerator": accelerator, "precision": "32-true"})
    with pytest.raises(
        UserError, match=rf"^trainer\.accelerator is {accelerator}, but PyTorch \S+ finds no GPU here: "
    ):
        refuse(trainer)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    require_gpu(trainer)
    require_gpu(OmegaConf.create({"accelerator": "cpu"}))
