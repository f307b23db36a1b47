"""Where a network runs."""

import pytest
import torch

from saliency_entropy.detector import usable_device
from saliency_entropy.errors import UserError


def test_auto_is_the_processor_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert usable_device("auto") == usable_device("cpu") == usable_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("device", ["banana", "cuda:999", None])
def test_a_device_that_is_not_there(device):
    with pytest.raises(UserError, match=rf"^device={device} cannot be used \(.+\); use cpu, or cuda on a machine"):
        usable_device(device)
