"""The model card of an exported detector, in the form of the Hugging Face Hub, from its run's own figures."""

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from saliency_entropy.page.wording import escape_markdown, number

NAME, TASK = "saliency-entropy", "image-classification"
USES = {
    "model.onnx": "`model.onnx`: ONNX Runtime; input, outputs and metadata as below.",
    "model.pt2": '`model.pt2`: `torch.export.load("model.pt2").module()`, without this package.',
    "model.safetensors": (
        '`model.safetensors` and `model.json`: `Backbone(**card["backbone"])` of saliency_entropy, then '
        "`load_state_dict`."
    ),
}
FIGURES = (
    ("auroc", "AUROC", "roc_auc"),
    ("auroc_unseen", "AUROC, generators not seen in training", "roc_auc"),
    ("accuracy", "accuracy", "accuracy"),
)
TEMPLATE = """---
{{ card_data }}
---

# {{ title }}

A detector of synthetic faces: {{ backbone }}, trained with saliency_entropy{{ trained }}.

## Use

{% for use in uses %}- {{ use }}
{% endfor %}- Input `image`: {{ about.input }}. Resize with {{ about.resize }}.
- Outputs: `logits` (real, synthetic), `probability` of synthetic{{ calibrated }}, `cam` (the class activation map, 0 to
  1) and `cam_entropy` (nats).
- Decision: {{ decision }}.

## What it must not be used for

- **As proof** that an image, or the person in it, is real or fake: it errs as often as the figures below say, and more
  often on images of other generators, cameras, crops and compressions.
- **To decide about a person** without a human who looks at the image and can be asked: identity checks, moderation,
  accusations.
- On anything but one aligned face in a photograph: not on videos, swapped or edited regions, drawings.
- As an explanation: the CAM shows which cells raised the logit, not where an image was manipulated.

## Training

{{ training }}

## Figures

{{ figures }}

Thresholds and temperature were fixed on {{ about.validation_images }} validation images, never on test images.
"""


def hub_card(about: Mapping[str, Any], files: Sequence[str]) -> str:
    """``README.md``.

    Args:
        about: :func:`~saliency_entropy.use.export.description`.
        files: the names of the exported files.
    """
    run = about["run"] or {}
    title = f"{run.get('title', 'A detector')} ({about['backbone']['name']}, seed {run.get('seed', 'unknown')})"
    # Split, what, the Hub's name of the metric, value; without what is not known.
    rows = [
        (split, what, metric, run[split][key])
        for split in ("test", "val")
        for key, what, metric in FIGURES
        if isinstance(run.get(split, {}).get(key), float) and not math.isnan(run[split][key])
    ]
    data = ModelCardData(
        license=about["license"],
        library_name=NAME,
        pipeline_tag=TASK,
        tags=["synthetic-face-detection", "class-activation-map"],
        model_name=title,
        eval_results=[
            EvalResult(
                "image-classification", run["data"], run["data"], metric, value, dataset_split=split, metric_name=what
            )
            for split, what, metric, value in rows
        ]
        or None,
    )
    seen = ", ".join(map(escape_markdown, run.get("train_generators", []))) or "not known"
    probability = about["probability_threshold"]
    return str(
        ModelCard.from_template(
            data,
            template_str=TEMPLATE,
            about=about,
            title=escape_markdown(title),
            backbone=f"`{about['backbone']['timm_name']}` at {about['image_size']} px",
            trained=f" {version(NAME)}",
            uses=[use for file, use in USES.items() if file in files],
            calibrated=f", calibrated at temperature {about['temperature']:.4g}" if about["temperature"] else "",
            decision=(
                f"none, since {about['problem']}"
                if probability is None
                else f"synthetic from a probability of {probability:.4f} on, {about['threshold_rule']}"
            ),
            training=(
                f"Data: {escape_markdown(str(run.get('data', 'not known')))}; generators of its synthetic training "
                f"images: {seen}. Epoch {run.get('best_epoch', -1) + 1} of {run.get('epochs', 'unknown')}, chosen by "
                "validation accuracy."
            ),
            figures="\n".join(
                ["| images | figure | value |", "|---|---|--:|"]
                + [
                    f"| {split} ({run[split]['images']}) | {what} | {number(value, 4)} |"
                    for split, what, _, value in rows
                ]
            )
            if rows
            else "None came with the checkpoint: do not use it before you have measured it.",
        )
    )
