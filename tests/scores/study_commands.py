"""The configuration of a command that looks at a whole study."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from saliency_entropy.run.folder import register_resolvers

CONF = Path(__file__).parents[2] / "conf"


def configuration(command: str, study: Path, *overrides: str) -> DictConfig:
    """Compose ``conf/<command>.yaml`` for one core and no further process."""
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, [f"study={study}", "num_workers=0", "device=cpu", "threads=1", *overrides])
