"""Measure what the package costs, side by side, as ratios of medians.

python experiments/benchmark.py
python experiments/benchmark.py parts=[steps] backbone=efficientnet_lite0 repeats=15
python experiments/benchmark.py parts=[cached_epoch,decoding] data=faces data.root=DIR
python experiments/benchmark.py parts=[waiting] backbone@waiting.backbone=densenet121
python experiments/benchmark.py parts=[evaluation,judging,report,comparison]
python experiments/benchmark.py parts=[sweep,variants]
TMPDIR=SHARED python experiments/benchmark.py parts=[sweep] sweep.at_once=32 'sweep.launcher=["hydra/launcher=slurm"]'
python experiments/benchmark.py device=cuda
"""

from pathlib import Path

from omegaconf import DictConfig

from saliency_entropy.run.command import hydra_command


@hydra_command("benchmark")
def main(cfg: DictConfig) -> None:
    from benchmarks import benchmark

    benchmark(cfg, Path(__file__).with_name("train.py"))


if __name__ == "__main__":
    main()
