"""Write the report of a study: tables, figures, statistics, and one HTML page that holds them all.

    python experiments/report.py study=runs/demo
    python experiments/report.py study=runs/demo output=DIR
    python experiments/report.py study=runs/demo gallery_images=0    # no photographs on the page or in figures
    python experiments/report.py study=[runs/a,runs/b]               # studies that were trained apart, compared

Writes runs/demo/report/: index.html; every table of the page as .csv, .md and .tex; the answers to the research
questions as questions.md; the numbers of every run as runs.csv; figures/ as .png and .pdf. It shows where the detectors
look and how they withstand corruptions once experiments/focus.py and experiments/evaluate.py have been run. Runs that
cannot be averaged are left out and named. Of a study with variants, and of several studies, the page compares these,
and the report of each lies below it.
"""

from omegaconf import DictConfig

from saliency_entropy.run.command import hydra_command


@hydra_command("report")
def main(cfg: DictConfig) -> None:
    from saliency_entropy.study.axis_report import write_reports

    write_reports(cfg)


if __name__ == "__main__":
    main()
