"""Check a data set and show what is in it, before anything is trained on it.

    python experiments/data.py data=faces data.root=DIR
    python experiments/data.py data=faces data.root=DIR contact_sheet_images=0 output=DIR

Writes data_report/faces/data_report.html and data_report.json: every file that cannot be used, duplicates, unusual
files, how well file properties alone tell real from synthetic images, human maps and their entropy, and contact sheets.
Exits with 1 if the data has errors, and with 0 if there are only warnings.
"""

from omegaconf import DictConfig

from saliency_entropy.run.command import hydra_command


@hydra_command("check")
def main(cfg: DictConfig) -> None:
    from saliency_entropy.check.command import check

    check(cfg)


if __name__ == "__main__":
    main()
