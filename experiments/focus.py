"""Save where every run of a study looks in the same few images, for the tables and figures of the report.

    python experiments/focus.py study=runs/demo
    python experiments/focus.py study=runs/demo split=val with_maps=true    # where the test images have no human maps

Writes maps/<set>.npz into each run, and the images, once, into maps/<set>.npz of the study. After an interruption, the
same command goes on where it stopped; maps that already exist are left as they are.
"""

from omegaconf import DictConfig

from saliency_entropy.run.command import hydra_command


@hydra_command("focus")
def main(cfg: DictConfig) -> None:
    from saliency_entropy.scores.maps import focus

    focus(cfg)


if __name__ == "__main__":
    main()
