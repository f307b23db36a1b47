"""DROID + CYBORG in a Hugging Face Trainer with a timm model: a model whose forward returns the loss of Eq. 8.

python experiments/examples/hugging_face_trainer.py
"""

import tempfile

import timm
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from saliency_entropy.functional import class_activation_map, min_max
from saliency_entropy.losses import CrossEntropy, HumanSaliency, LogEntropy, LossSum, Prediction


class FocusedClassifier(torch.nn.Module):
    """A timm network trained with ``0.5 CE + 0.5 MSE(s_human, s) + 0.3 mean log H``."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.net = timm.create_model(name, num_classes=2)
        self.loss = LossSum({"ce": CrossEntropy(0.5), "human": HumanSaliency(0.5), "focus": LogEntropy(0.3)})

    def forward(self, pixel_values, labels, human_maps, has_map):
        """Images ``(B, 3, S, S)``, labels ``(B,)``, maps on the CAM's grid ``(B, h, w)``, which images have one."""
        features = self.net.forward_features(pixel_values)
        logits = self.net.forward_head(features)
        maps = min_max(class_activation_map(features, self.net.get_classifier().weight, logits.argmax(dim=1)))
        loss, _ = self.loss(Prediction(logits, labels, maps, human_maps, has_map))
        return {"loss": loss, "logits": logits}


class Noise(Dataset):
    """In place of your data: images of noise, half of them with a human map of 2 x 2 cells."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        random = torch.Generator().manual_seed(index)
        return {
            "pixel_values": torch.randn(3, 64, 64, generator=random),
            "labels": torch.tensor(index % 2),
            "human_maps": torch.rand(2, 2, generator=random),
            "has_map": torch.tensor(index < 8),
        }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(folder, max_steps=4, per_device_train_batch_size=8, report_to="none",
                                      logging_steps=1, save_strategy="no", use_cpu=True)  # fmt: skip
        trainer = Trainer(FocusedClassifier("resnet18"), arguments, train_dataset=Noise())
        print(trainer.train().training_loss)
