"""Save a W&B workspace that compares the methods of a project; it needs a W&B account.

python experiments/dashboard.py entity=ENTITY project=saliency_entropy
python experiments/dashboard.py entity=ENTITY study=demo generators=[stylegan2,sdxl] train_generators=[stylegan2]
"""

from omegaconf import DictConfig

from saliency_entropy.run.command import hydra_command


@hydra_command("dashboard")
def main(cfg: DictConfig) -> None:
    from saliency_entropy.tracking.dashboard import save_dashboard

    save_dashboard(cfg)


if __name__ == "__main__":
    main()
