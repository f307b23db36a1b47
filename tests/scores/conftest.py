"""A study of three runs for the commands that score it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def trained(train_small: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last run takes the CAM of the true class. Not to be changed."""
    study = tmp_path_factory.mktemp("trained") / "study"
    train_small(study / "cross_entropy" / "seed0", "method=cross_entropy", "trainer.max_epochs=1")
    train_small(study / "droid" / "seed0", "method=droid", "trainer.max_epochs=1")
    train_small(
        study / "droid" / "seed1", "method=droid", "seed=1", "trainer.max_epochs=1", "protocol.class_index=true"
    )
    return study


@pytest.fixture
def study(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "study"))
