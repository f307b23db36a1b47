"""The report of a study: tables, figures, statistics, and one HTML page that holds them all.

    python experiments/report.py study=runs/demo
    python experiments/report.py study=runs/demo output=DIR
    python experiments/report.py study=runs/demo gallery_images=0    # no image of the data in page or figures

Writes runs/demo/report/: index.html; every table of the page as .csv, .md and .tex, the answers to the research
questions as questions.md, every run's figures as runs.csv; figures/ as .png and .pdf. Where the detectors look and how
they stand corruptions is in it once experiments/focus.py and experiments/evaluate.py were given. Runs that cannot be
averaged are left out and named.
"""

import hydra
from omegaconf import DictConfig

from saliency_entropy.run.command import command


@hydra.main(version_base="1.3", config_path="../conf", config_name="report")
@command
def main(cfg: DictConfig) -> None:
    from saliency_entropy.study.report import report

    report(cfg)


if __name__ == "__main__":
    main()
