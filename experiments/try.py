"""Try trained detectors in the browser: drop images, and see scores, decisions and CAMs side by side.

    python experiments/try.py checkpoint=runs/demo/droid_cyborg/seed0/checkpoints/best.ckpt
    python experiments/try.py checkpoint=[runs/demo/cross_entropy,runs/demo/droid_cyborg]
    python experiments/try.py checkpoint='runs/demo/droid_cyborg/seed*' port=8000

A method's folder is the mean of its seeds. The page is for this machine alone unless host= says otherwise, loads
nothing from elsewhere, and keeps no image. It needs the extra demo.
"""

from omegaconf import DictConfig

from saliency_entropy.run.command import hydra_command


@hydra_command("try")
def main(cfg: DictConfig) -> None:
    from saliency_entropy.use.try_page import try_page

    try_page(cfg)


if __name__ == "__main__":
    main()
