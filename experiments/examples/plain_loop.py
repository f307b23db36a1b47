"""DROID in a plain PyTorch loop: the loss is two terms on one forward, and nothing of this package but its functions.

python experiments/examples/plain_loop.py
"""

import timm
import torch

from saliency_entropy.functional import class_activation_map, log_entropy_loss, min_max


def train(model: torch.nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]], lr: float = 0.01) -> list[float]:
    """One epoch of DROID (Eq. 7): ``0.5 CE + 0.5 mean log H`` of batches ``(B, 3, S, S), (B,)``; its losses."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    losses = []
    for images, labels in batches:
        features = model.forward_features(images)
        logits = model.forward_head(features)
        cam = class_activation_map(features, model.get_classifier().weight, logits.argmax(dim=1))
        loss = 0.5 * torch.nn.functional.cross_entropy(logits, labels) + 0.5 * log_entropy_loss(min_max(cam))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    torch.manual_seed(0)
    noise = [(torch.randn(8, 3, 64, 64), torch.arange(8) % 2)] * 10  # in place of your DataLoader
    print(train(timm.create_model("resnet18", num_classes=2), noise))
