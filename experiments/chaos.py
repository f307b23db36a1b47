"""Kill a sweep at random moments, give the same command again until it is done, and compare it with a sweep that was
left alone: nothing may be lost or done twice, and every number must be the same.

python experiments/chaos.py
python experiments/chaos.py kills=20 seed=1 output=DIR
"""

import sys
from pathlib import Path

from omegaconf import DictConfig

from saliency_entropy.run.command import hydra_command


@hydra_command("chaos")
def main(cfg: DictConfig) -> None:
    # The kills belong to the tests, not to the package.
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "chaos"))
    from killed_sweeps import chaos

    chaos(cfg, Path(__file__).with_name("train.py"))


if __name__ == "__main__":
    main()
