"""The model card of an exported detector, in the form of the Hugging Face Hub, from its run's own figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from saliency_entropy.page.wording import escape_markdown
from saliency_entropy.run.ranking import RANKINGS, SUFFIXES

TASK = "image-classification"
FIGURES = {
    f"{name}{SUFFIXES[score]}": f"{title}, by {ranking}"
    for name, title in (("auroc", "AUROC"), ("auroc_unseen", "AUROC, generators not seen in training"))
    for score, ranking in RANKINGS.items()
} | {"accuracy": "accuracy"}
USES = {
    "model.onnx": "for ONNX Runtime",
    "model.pt2": 'by `torch.export.load("model.pt2").module()`, without saliency_entropy',
    "model.safetensors": 'the weights of `saliency_entropy.backbone.Backbone(**card["backbone"])`',
    "model.json": "the `card`",
}
# What a detector must not be used for, in Markdown.
MISUSE = """\
- **As proof** that an image, or the person in it, is real or fake: it errs as often as its figures say, and more often
  on images of other generators, cameras, crops and compressions.
- **To decide about a person** without a human who looks at the image and can be asked: identity checks, moderation,
  accusations.
- On anything but one aligned face in a photograph: not on videos, swapped or edited regions, drawings.
- As an explanation: the CAM shows which cells raised the logit, not where an image was manipulated."""
TEMPLATE = """---
{{ card_data }}
---

# {{ escape(title) }}

A detector of synthetic faces: {{ about.backbone.timm_name }} at {{ about.image_size }} px, trained with
saliency_entropy.

## Use

{% for file in files %}- `{{ file }}`: {{ uses[file] }}.
{% endfor %}- Input `image`: {{ about.input }}. Resize with {{ about.resize }}.
- Outputs: `logits` of real and synthetic; `probability` of synthetic, {{ calibrated }}; `cam`, the class activation
  map in [0, 1]; `cam_entropy` in nats.
- Decision: {{ "none, since " + about.problem if about.threshold is none else
  "synthetic from a probability of %.4f on, %s" % (about.probability_threshold, about.threshold_rule) }}.

## What it must not be used for

{{ misuse }}

## Training

Data: {{ escape(run.data | default("not known") | string) }}; generators of its synthetic images:
{{ escape(run.train_generators | join(", ")) or "not known" }}. Threshold and temperature were fixed on
{{ about.validation_images }} validation images, never on test images.
{%- if about.caveat %} It was **{{ about.caveat }}**.{% endif %}
{%- if run.map_kind %} Where human maps are needed, training had {{ escape(run.map_kind | string) }} maps,
not the human maps of its images.{% endif %}

## Figures

{% if rows %}| images | figure | value |
|---|---|--:|
{% for split, what, value in rows %}| {{ split }} ({{ run[split].images }}) | {{ what }} | {{ "%.4f" % value }} |
{% endfor %}
The probability ranks images as the margin does, the logit of synthetic minus that of real; the paper ranks by logit 1,
that of synthetic.
{% else %}None came with the checkpoint: do not use it before you have measured it.
{% endif %}"""


def hub_card(about: Mapping[str, Any], files: Sequence[str]) -> str:
    """``README.md``, of :func:`~saliency_entropy.use.export.description` and the names of the exported files."""
    run = about["run"] or {}
    title = f"{run.get('title', 'A detector')} ({about['backbone']['name']}, seed {run.get('seed', 'unknown')})"
    rows = [
        (split, what, value)
        for split in ("test", "val")
        for key, what in FIGURES.items()
        if isinstance(value := run.get(split, {}).get(key), float) and value == value  # neither missing nor NaN
    ]
    metrics = {"accuracy": "accuracy"}  # the Hub's names
    results = [
        EvalResult(TASK, *[run["data"]] * 2, metrics.get(what, "roc_auc"), value, dataset_split=split, metric_name=what)
        for split, what, value in rows
    ]
    data = ModelCardData(
        license=about["license"], library_name="saliency-entropy", pipeline_tag=TASK, model_name=title,
        tags=["synthetic-face-detection", "class-activation-map"], eval_results=results or None,
    )  # fmt: skip
    calibrated = f"calibrated at temperature {about['temperature']:.4g}" if about["temperature"] else "not calibrated"
    shown = {"about": about, "run": run, "title": title, "files": files, "rows": rows, "calibrated": calibrated}
    fixed = {"uses": USES, "misuse": MISUSE, "escape": escape_markdown}
    return str(ModelCard.from_template(data, template_str=TEMPLATE, **fixed, **shown))
