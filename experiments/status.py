"""Where the runs of a study stand: done, running, queued, failed, stopped, missing, and how long it will take.

    python experiments/status.py study=runs/paper
    python experiments/status.py study=runs/paper format=json
    python experiments/status.py study=runs/weights        # a search: trial by trial

Reads only what the runs leave behind, so it may be given at any time, while they are trained, too, and on any machine
that sees the folder; which jobs of a Slurm sweep wait is told where squeue is at hand. A run is missing where others
have its seed or its method, or the last sweep was to train it.
"""

import hydra
from omegaconf import DictConfig

from saliency_entropy.run.command import command


@hydra.main(version_base="1.3", config_path="../conf", config_name="status")
@command
def main(cfg: DictConfig) -> None:
    from saliency_entropy.sweep.status import show_status

    show_status(cfg)


if __name__ == "__main__":
    main()
