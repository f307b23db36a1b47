"""A small data set; runs and the command line in this process; which tests are slow, and how they share processes."""

import logging
import runpy
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig
from PIL import Image

from saliency_entropy.run.folder import register_resolvers

TESTS = Path(__file__).parent
ROOT = TESTS.parent
# What `make test` leaves out: tests that need a Slurm cluster, a browser, LaTeX or a server, or start whole runs in
# processes of their own. A single test is marked where it stands; one with a time limit of its own counts as slow, too.
SLOW = (
    "browser", "slurm", "run/test_processes.py", "study/test_latex.py", "sweep/test_local_launcher.py",
    "tracking/test_wandb_server.py",
)  # fmt: skip
COUNTS = {"train": 21, "val": 10, "test": 12}  # batches of 8: the last training batch has 5 images
GENERATORS = {"train": ("gan", "vae"), "val": ("gan", "vae"), "test": ("gan", "new")}


def pytest_configure(config: pytest.Config) -> None:
    # saliency_entropy.training silences these for the user, which pytest undoes.
    config.addinivalue_line("filterwarnings", "ignore:.*LeafSpec")
    config.addinivalue_line("filterwarnings", "ignore:Checkpoint directory .* exists and is not empty")
    # A shell starts background commands with Ctrl-C ignored, and their processes inherit that; some tests send Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before the tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow = {TESTS / place for place in SLOW}
    for item in items:
        if item.get_closest_marker("timeout") or slow & {item.path, *item.path.parents}:
            item.add_marker("slow")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """With ``pytest -n 2``, the tests of a file stay in one process, since they share what the file prepares, and so do
    all tests of the Slurm cluster. The files keep their order, in which the longest do not come last."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "tests/slurm" if nodeid.startswith("tests/slurm/") else super()._split_scope(nodeid)

    config.option.loadscopereorder = False
    return ByFile(config, log)


def draw_faces(root: Path) -> None:
    """Write images of noise, the synthetic ones a little brighter than the real ones; two thirds of the training and
    validation images have a human map."""
    random = np.random.default_rng(0)
    rows = ["path,label,split,generator,human_map,pose"]
    (root / "maps").mkdir(parents=True)
    for split, count in COUNTS.items():
        (root / split).mkdir()
        for number in range(count):
            synthetic = number % 2 == 1
            path = f"{split}/{number}.{'jpg' if number % 3 == 0 else 'png'}"
            noise = random.integers(0, 236, (48, 48, 3)) + 20 * synthetic
            Image.fromarray(noise.astype(np.uint8)).save(root / path)
            human_map = ""
            if split != "test" and number % 3 != 2:
                human_map = f"maps/{split}_{number}.png"
                Image.fromarray(random.integers(0, 256, (16, 16)).astype(np.uint8)).save(root / human_map)
            generator = GENERATORS[split][number // 2 % 2] if synthetic else ""
            label = "synthetic" if synthetic else "real"
            rows.append(f"{path},{label},{split},{generator},{human_map},{('frontal', 'turned')[number % 4 == 3]}")
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for ``data=faces data.root=...``, which no test may change."""
    root = tmp_path_factory.mktemp("faces") / "data"
    draw_faces(root)
    return root


@pytest.fixture
def own_faces(tmp_path: Path) -> Path:
    """Such a folder for a test that changes it."""
    draw_faces(tmp_path / "own_faces")
    return tmp_path / "own_faces"


@pytest.fixture(scope="session")
def small(faces: Path) -> list[str]:
    """The overrides of a run that takes a second."""
    return [
        "data=faces", f"data.root={faces}", "backbone=tiny", "backbone.image_size=48", "threads=1",
        "trainer.accelerator=cpu", "trainer.max_epochs=2", "protocol.batch_size=8", "protocol.optimizer.lr=0.05",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def configure(small: list[str]) -> Callable[..., DictConfig]:
    """Compose the configuration of a small run, changed by overrides."""

    def composed(*overrides: str) -> DictConfig:
        register_resolvers()
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return compose("train", [*small, *overrides])

    return composed


@pytest.fixture(scope="session")
def train_small(configure: Callable[..., DictConfig]) -> Callable[..., Path]:
    """Train a small run, changed by overrides, in a folder, and return the folder."""
    from saliency_entropy.training import train

    def trained(folder: Path, *overrides: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        train(configure(*overrides), folder)
        return folder

    return trained


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


@contextmanager
def hydra_ends() -> Iterator[None]:
    """For a Hydra command in this process: its configuration and its logging end with it."""
    GlobalHydra.instance().clear()
    before = logging.root.handlers[:], logging.root.level
    try:
        yield
    finally:
        for handler in logging.root.handlers[:]:
            if handler not in before[0]:
                handler.close()
        logging.root.handlers[:], level = before
        logging.root.setLevel(level)
        GlobalHydra.instance().clear()


@pytest.fixture(name="hydra_ends")
def hydra_ends_fixture() -> Callable[[], AbstractContextManager[None]]:
    return hydra_ends


@pytest.fixture
def command(small: list[str], tmp_path: Path, monkeypatch, capfd) -> Callable[..., Outcome]:
    """``experiments/train.py`` with a small run's overrides and ``runs_dir=tmp_path/runs``; flags come first."""

    def run(*arguments: str, defaults: list[str] | None = None) -> Outcome:
        flags = [argument for argument in arguments if argument.startswith("-")]
        overrides = [*(small if defaults is None else defaults), f"runs_dir={tmp_path}/runs"]
        overrides += [argument for argument in arguments if argument not in flags]
        monkeypatch.setattr(sys, "argv", ["train.py", *flags, *overrides])
        capfd.readouterr()
        code: object = 0
        try:
            with hydra_ends():
                runpy.run_path(str(ROOT / "experiments" / "train.py"), run_name="__main__")
        except SystemExit as exit_:
            code = exit_.code
            if isinstance(code, str):  # as the interpreter does it
                print(code, file=sys.stderr)
                code = 1
        out, err = capfd.readouterr()
        return Outcome(code or 0, out, err)

    return run
