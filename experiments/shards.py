"""Write a data set into tar shards, for sets too large for one folder or disk.

    python experiments/shards.py data=faces data.root=DIR output=SHARDS
    python experiments/train.py data=shards data.source.folders=[SHARDS]

Any group of conf/data may be written. The files are copied as they are, and training from the shards is the same as
from the files. After an interruption, the same command goes on where it stopped. The finished shards may be moved to
several folders: data.source.folders=[A,B].
"""

from omegaconf import DictConfig

from saliency_entropy.run.command import hydra_command


@hydra_command("shards")
def main(cfg: DictConfig) -> None:
    from saliency_entropy.data.shards.writer import shards

    shards(cfg)


if __name__ == "__main__":
    main()
