"""Train a detector, or a whole study of them.

    python experiments/train.py
    python experiments/train.py method=droid_cyborg seed=3 data=faces data.root=DIR
    python experiments/train.py experiment=paper data=und_cyborg data.root=DIR data.source.maps=FOLDER
    python experiments/train.py experiment=demo seed=0,1 hydra.launcher.n_jobs=2    # two runs at a time
    python experiments/train.py experiment=faces data.root=DIR hydra/launcher=slurm hydra.launcher.partition=gpu
    python experiments/train.py experiment=weights data=faces data.root=DIR    # a search of the loss's weights
    python experiments/train.py debug=overfit    # or fast, profile, finite

A run leaves runs/<study>/<method>/seed<seed>/. The same command again skips what is done, goes on with what was
begun and starts what is missing.
"""

import logging
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from saliency_entropy.run.choices import refuse_null
from saliency_entropy.run.command import command
from saliency_entropy.run.folder import finished_result, is_done

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
@command
def main(cfg: DictConfig) -> float | None:
    folder = Path(HydraConfig.get().runtime.output_dir)
    # A run that is done may still have to be logged elsewhere.
    if "_target_" in cfg.logger or not is_done(folder, OmegaConf.to_container(cfg, resolve=True)):
        # Imported here so that --help, tab completion and a sweep that is done do not wait for PyTorch.
        from saliency_entropy.training import train

        train(cfg, folder)
    else:
        log.info("%s is done: nothing to do", folder)
    result = finished_result(folder)
    # The objective of a search by Hydra. Test images that have chosen a model can no longer test it.
    return None if result is None else result["val"]["auroc"]


if __name__ == "__main__":
    refuse_null(sys.argv[1:])
    main()
