"""Kill a sweep at random moments, give the same command again until it is done, and compare: nothing may be lost, done
twice or another number than in a sweep that was left alone.

python experiments/chaos.py
python experiments/chaos.py kills=20 seed=1 output=DIR
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from saliency_entropy.commands import command


@hydra.main(version_base="1.3", config_path="../conf", config_name="chaos")
@command
def main(cfg: DictConfig) -> None:
    from saliency_entropy.chaos import chaos

    chaos(cfg, Path(__file__).with_name("train.py"))


if __name__ == "__main__":
    main()
