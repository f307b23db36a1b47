"""Measure what the saliency terms cost: training steps side by side, as ratios of their medians.

python experiments/benchmark.py
python experiments/benchmark.py backbone=efficientnet_lite0 repeats=15
python experiments/benchmark.py device=cuda
"""

import hydra
from omegaconf import DictConfig

from saliency_entropy.commands import command


@hydra.main(version_base="1.3", config_path="../conf", config_name="benchmark")
@command
def main(cfg: DictConfig) -> None:
    from saliency_entropy.benchmark import benchmark_steps

    benchmark_steps(cfg)


if __name__ == "__main__":
    main()
