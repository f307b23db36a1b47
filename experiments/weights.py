"""Show what a search for the weights of the loss has found so far.

    python experiments/weights.py study=runs/weights

Writes runs/weights/search/: trials.csv, a row for each trial; search.png and .pdf, the validation AUROC by trial and
against each weight. The search itself is: python experiments/train.py experiment=weights data=faces data.root=DIR
"""

import importlib.util

from omegaconf import DictConfig

from saliency_entropy.errors import UserError
from saliency_entropy.run.command import hydra_command


@hydra_command("weights")
def main(cfg: DictConfig) -> None:
    if importlib.util.find_spec("optuna") is None:
        raise UserError("a search is read with Optuna: pip install 'saliency-entropy[sweeps]'")
    from saliency_entropy.study.search_report import report

    report(cfg)


if __name__ == "__main__":
    main()
