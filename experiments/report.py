"""The report of a study: tables, figures, statistics, and one HTML page that holds them all.

    python experiments/report.py study=runs/demo
    python experiments/report.py study=runs/demo output=DIR

Writes runs/demo/report/: index.html; methods and generators as .csv, .md and .tex, runs.csv; figures/ as .png and .pdf.
Runs that are not finished are named and left out.
"""

import hydra
from omegaconf import DictConfig

from saliency_entropy.commands import command


@hydra.main(version_base="1.3", config_path="../conf", config_name="report")
@command
def main(cfg: DictConfig) -> None:
    from saliency_entropy.study.report import report

    report(cfg)


if __name__ == "__main__":
    main()
