"""What a search of the loss's weights has found so far, or in the end.

    python experiments/weights.py study=runs/weights

Writes runs/weights/search/: trials.csv, a row a trial; search.png and .pdf, the validation AUROC by trial and against
each weight. The search is experiments/train.py's: experiment=weights.
"""

import importlib.util

import hydra
from omegaconf import DictConfig

from saliency_entropy.errors import UserError
from saliency_entropy.run.command import command


@hydra.main(version_base="1.3", config_path="../conf", config_name="weights")
@command
def main(cfg: DictConfig) -> None:
    if importlib.util.find_spec("optuna") is None:
        raise UserError("a search is read with Optuna: pip install 'saliency-entropy[sweeps]'")
    from saliency_entropy.study.search_report import report

    report(cfg)


if __name__ == "__main__":
    main()
