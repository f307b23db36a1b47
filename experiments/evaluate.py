"""Score every run of a study in one pass over the images: each is decoded once, whatever the number of runs.

    python experiments/evaluate.py study=runs/demo
    python experiments/evaluate.py study=runs/demo corruptions=all
    python experiments/evaluate.py study=runs/demo corruptions=[jpeg,blur] corruption_images=500
    python experiments/evaluate.py study=runs/demo data=faces data.root=DIR set=other

Writes scores/<set>.parquet into each run, a row for each image, and scores/<set>+corruptions.parquet, a row for each
image and corruption. After an interruption, the same command goes on where it stopped; runs that are already scored
are left as they are.
"""

from omegaconf import DictConfig

from saliency_entropy.run.command import hydra_command


@hydra_command("evaluate")
def main(cfg: DictConfig) -> None:
    from saliency_entropy.scores.evaluate import evaluate

    evaluate(cfg)


if __name__ == "__main__":
    main()
