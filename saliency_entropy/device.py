"""Where a network runs."""

import torch

from saliency_entropy.errors import UserError, in_one_line


def usable_device(device: str | torch.device) -> torch.device:
    """The device of this name; ``auto`` is the GPU where there is one.

    Raises:
        UserError: there is no such device.
    """
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(automatic if device == "auto" else device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:  # PyTorch raises each of them for some device
        raise UserError(
            f"device={device} cannot be used ({in_one_line(error)}); use cpu, or cuda on a machine with a GPU"
        ) from None
    return found
