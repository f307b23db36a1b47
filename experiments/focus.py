"""Keep what every run of a study looks at, of the same few images, for the report's tables and figures of it.

    python experiments/focus.py study=runs/demo
    python experiments/focus.py study=runs/demo split=val with_maps=true    # where the test images have no human maps

Writes maps/<set>.npz of each run, and the images once, into maps/<set>.npz of the study. Interrupted, it goes on where
it stopped; maps that are there are left as they are.
"""

import hydra
from omegaconf import DictConfig

from saliency_entropy.run.command import command


@hydra.main(version_base="1.3", config_path="../conf", config_name="focus")
@command
def main(cfg: DictConfig) -> None:
    from saliency_entropy.scores.maps import focus

    focus(cfg)


if __name__ == "__main__":
    main()
