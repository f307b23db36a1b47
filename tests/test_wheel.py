"""The package as a wheel: everything works where there is no checkout."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
SMALL = (
    "backbone=tiny", "data.source.train=16", "data.source.val=8", "data.source.test=12", "trainer.max_epochs=1",
    "threads=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="the build back end is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    assert len([*folder.glob("*.tar.gz")]) == 1
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_the_configuration_and_nothing_of_the_tests(wheel: Path) -> None:
    assert wheel.stat().st_size < 1.5e6
    names = ZipFile(wheel).namelist()
    carried = {name.removeprefix("saliency_entropy/") for name in names if name.startswith("saliency_entropy/conf/")}
    conf = {path.relative_to(ROOT).as_posix() for path in (ROOT / "conf").rglob("*.yaml")}
    assert carried == conf - {"conf/benchmark.yaml", "conf/chaos.yaml"}
    assert {"saliency_entropy/py.typed", "hydra_plugins/saliency_entropy_sweepers/grid.py"} <= {*names}
    assert [name for name in names if "test" in name or "benchmark" in name] == []


@pytest.mark.timeout(300)
def test_the_installed_command_trains_reports_and_judges(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(place)]
    subprocess.run([*pip, str(wheel)], check=True)
    # The checkout is no part of this path: its editable install needs a .pth file, which PYTHONPATH does not read.
    path = os.pathsep.join((str(place), sysconfig.get_path("purelib")))
    work = tmp_path / "work"
    work.mkdir()

    def given(*arguments: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-S", str(place / "bin" / "saliency-entropy"), *arguments],
            cwd=work, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    given("train", "-m", "method=droid,cross_entropy", "seed=0", *SMALL)
    assert "report: runs/builtin/report/index.html" in given("report", "study=runs/builtin")
    image = next((work / "runs" / ".builtin_faces").rglob("*.png"))
    given("predict", "checkpoint=runs/builtin/droid/seed0/checkpoints/best.ckpt", f"images={image}")
    assert (work / "predictions" / "predictions.csv").exists()
    assert "all 2 runs done" in given("status", "study=runs/builtin")


@pytest.mark.parametrize("module", ["functional", "losses"])
def test_the_losses_need_torch_alone(module: str) -> None:
    program = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('pytorch_lightning', 'hydra', 'omegaconf', 'timm', 'wandb', 'torchmetrics', 'pandas'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        f"import saliency_entropy.{module}\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
