"""Show which runs of a study are done, running, queued, failed, stopped or missing, and how long the rest will take.

    python experiments/status.py study=runs/paper
    python experiments/status.py study=runs/paper format=json
    python experiments/status.py study=runs/weights        # a search: trial by trial

Reads only the files that the runs leave, so it can be used at any time, even while they are being trained, and on any
machine that sees the folder; where squeue is available, it also shows which jobs of a Slurm sweep are waiting. A run is
missing if other runs have its seed or its method, or if the last sweep was meant to train it.
"""

from omegaconf import DictConfig

from saliency_entropy.run.command import hydra_command


@hydra_command("status")
def main(cfg: DictConfig) -> None:
    from saliency_entropy.sweep.status import show_status

    show_status(cfg)


if __name__ == "__main__":
    main()
