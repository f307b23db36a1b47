"""Judge an image, a folder of images, or the images of a manifest.

    python experiments/predict.py checkpoint=runs/builtin/droid_cyborg/seed0/checkpoints/best.ckpt images=PATH
    python experiments/predict.py checkpoint=FILE images=PATH output=DIR overlays=false format=jsonl
    find DIR -name '*.png' | python experiments/predict.py checkpoint=runs/demo/cyborg images=-

Writes output/predictions.csv (path, verdict by the larger logit, decision at the threshold fixed on validation, softmax
score, calibrated probability, both logits, CAM entropy in nats, focus area in cells, and the further columns of a
manifest) and output/overlays/. Of several checkpoints, such as the seeds of a method, it gives the mean, and the
standard deviation of their softmax scores.
"""

from omegaconf import DictConfig

from saliency_entropy.run.command import hydra_command


@hydra_command("predict")
def main(cfg: DictConfig) -> None:
    from saliency_entropy.scores.predict import predict

    predict(cfg)


if __name__ == "__main__":
    main()
