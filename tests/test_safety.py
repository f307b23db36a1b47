"""Files and configurations that mean harm: nothing that they name is executed, opened, fetched or published.

Images are in tests/data/test_images.py, manifests in tests/data/test_manifest.py, names of folders in
tests/run/test_run_folder.py, the content of CSV cells in tests/scores/test_prediction.py and tests/study.
"""

import ast
import importlib.metadata
import json
import os
import pickle
import re
import socket
import stat
import struct
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf
from packaging.requirements import Requirement
from packaging.version import Version
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from saliency_entropy.backbone import Backbone
from saliency_entropy.detector import Detector
from saliency_entropy.errors import UserError
from saliency_entropy.losses import CrossEntropy, LossSum
from saliency_entropy.module import DetectorModule
from saliency_entropy.run.callbacks import WholeFiles
from saliency_entropy.run.checkpoint import checkpoint_to_resume
from saliency_entropy.run.command import command as wrapped
from saliency_entropy.training import fit, load_best

ROOT = Path(__file__).parents[1]
TINY = {
    "name": "tiny",
    "timm_name": "test_resnet",
    "image_size": 32,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bilinear",
    "pretrained": False,
}


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return {f"backbone.{name}": tensor for name, tensor in Backbone(**TINY).state_dict().items()}


@pytest.fixture
def checkpoint(weights: dict[str, torch.Tensor], tmp_path: Path):
    """Write a detector's checkpoint with further entries; returns its path."""

    def write(backbone: dict[str, object] | None = None, **entries: object) -> Path:
        described = {"backbone": TINY | (backbone or {}), "class_index": "predicted"}
        torch.save({"detector": described, "state_dict": weights} | entries, tmp_path / "evil.ckpt")
        return tmp_path / "evil.ckpt"

    return write


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """What an attack would leave behind."""
    return tmp_path / "executed"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> None:
        raise AssertionError(f"tried to reach the network: {arguments}")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)


def sentence(caught: pytest.ExceptionInfo[BaseException], path: Path) -> str:
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


# 1. Code in pickles.


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", ["whole", "state_dict", "hyper_parameters", "detector", "plain pickle"])
def test_code_in_a_checkpoint_is_refused_by_the_detector(checkpoint, marker, tmp_path, legacy, place):
    evil = Touch(marker)
    path = checkpoint()
    content = torch.load(path, weights_only=True)
    if place == "plain pickle":
        path.write_bytes(pickle.dumps(evil))
    else:
        torch.save(
            evil if place == "whole" else content | {place: {"backbone": evil}},
            path,
            _use_new_zipfile_serialization=not legacy,
        )
    with pytest.raises(UserError) as caught:
        Detector.from_checkpoint(path)
    assert "cannot be loaded as plain weights" in sentence(caught, path)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "weights.ckpt", "weights.bin", "weights.safetensors"])
def test_code_in_the_weights_of_a_backbone_is_refused(marker, tmp_path, name):
    torch.save({"conv1.weight": Touch(marker)}, tmp_path / name)
    with pytest.raises(UserError) as caught:
        Backbone(**TINY | {"checkpoint": str(tmp_path / name)})
    assert "cannot be loaded as plain weights" in sentence(caught, tmp_path / name)
    assert not marker.exists()


def test_the_code_would_have_been_executed(marker, tmp_path):
    # So that the tests above do not pass because of an attack that does not work.
    torch.save({"state_dict": Touch(marker)}, tmp_path / "evil.ckpt")
    torch.load(tmp_path / "evil.ckpt", weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("name", ["resume", "best"])
def test_code_in_a_checkpoint_of_a_run_is_not_executed(checkpoint, marker, tmp_path, name):
    (tmp_path / "checkpoints").mkdir()
    checkpoint(hyper_parameters=Touch(marker)).rename(tmp_path / "checkpoints" / f"{name}.ckpt")
    loss = LossSum({"cross_entropy": CrossEntropy(weight=1.0)})
    module = DetectorModule(Backbone(**TINY), loss, lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    calls = {
        "resume": lambda: fit(trainer, module, DataLoader([0]), checkpoint_to_resume(tmp_path)),
        "best": lambda: load_best(module, tmp_path),
    }
    with pytest.raises((UserError, pickle.UnpicklingError)):
        calls[name]()
    assert not marker.exists()


# 2. to 4. Checkpoints whose plain values name code, files or addresses.

CALLS = [
    {"_target_": "os.system", "_args_": ["touch {marker}"]},
    {"_target_": "os.system", "_partial_": True, "command": "touch {marker}"},
    {"_target_": "saliency_entropy.run.whole_files.os.system", "_args_": ["touch {marker}"]},
    {"_target_": "hydra.utils.instantiate", "config": {"_target_": "os.system", "_args_": ["touch {marker}"]}},
    {"_target_": "torch.load", "f": "{trap}", "weights_only": False},
    {"_target_": "torch.hub.load", "repo_or_dir": "{trap}", "model": "evil", "source": "local"},
]


@pytest.fixture
def trap(tmp_path: Path, marker: Path) -> Path:
    """A pickle that would leave the marker, wherever it was loaded."""
    torch.save(Touch(marker), tmp_path / "trap.pt")
    return tmp_path / "trap.pt"


def filled(value: object, **names: Path) -> object:
    """``value`` with {marker} and {trap} replaced in all its text."""
    text = json.dumps(value)
    for name, path in names.items():
        text = text.replace(f"{{{name}}}", str(path))
    return json.loads(text)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call["_target_"])
def test_lightnings_own_ways_to_name_a_class_are_not_used(checkpoint, marker, trap, call):
    path = checkpoint(
        hyper_parameters={
            "_instantiator": "os.system",
            "_class_path": "os.system",
            "backbone": filled(call, marker=marker, trap=trap),
        },
        hparams_name="kwargs",
        datamodule_hyper_parameters={"_instantiator": "os.system", "command": f"touch {marker}"},
    )
    assert Detector.from_checkpoint(path)(torch.zeros(1, 3, 32, 32))
    assert not marker.exists()


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call["_target_"])
def test_a_configuration_beside_a_checkpoint_is_not_read(checkpoint, marker, trap, tmp_path, call):
    path = checkpoint()
    for folder in (tmp_path, tmp_path.parent):
        OmegaConf.save(OmegaConf.create({"backbone": filled(call, marker=marker, trap=trap)}), folder / "config.yaml")
    assert Detector.from_checkpoint(path)(torch.zeros(1, 3, 32, 32))
    assert not marker.exists()


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call["_target_"])
@pytest.mark.parametrize(
    "place", ["", "name", "timm_name", "mean", "image_size", "output_stride", "last_activation", "timm_options"]
)
def test_a_description_instantiates_nothing(checkpoint, marker, trap, call, place):
    call = filled(call, marker=marker, trap=trap)
    path = checkpoint({place: call, "features": "pre_activation"} if place else call)
    with pytest.raises(UserError) as caught:
        Detector.from_checkpoint(path)
    assert "does not describe a network of this package" in sentence(caught, path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"timm_name": "hf-hub:someone/model"},
        {"timm_name": "hf_hub:someone/model"},
        {"timm_name": "local-dir:{folder}"},
        {"timm_name": "test_resnet:{trap}"},
        {"timm_name": "../test_resnet"},
        {"timm_name": "https://example.org/model.pt"},
        {"timm_options": {"checkpoint_path": "{trap}"}},
        {"timm_options": {"pretrained": True}},
        {"timm_options": {"pretrained_cfg": {"url": "https://example.org/model.pt"}}},
        {"timm_options": {"pretrained_cfg_overlay": {"file": "{trap}"}}},
        {"timm_options": {"cache_dir": "{folder}"}},
        {"timm_options": {"global_pool": {"_target_": "os.system"}}},
        {"timm_options": {"scriptable": True}},
        {"timm_options": ["checkpoint_path"]},
        {"image_size": 1_000_000},
        {"image_size": 10**30},
        {"image_size": -32},
        {"image_size": True},
        {"image_size": 32.5},
    ],
    ids=lambda changes: json.dumps(changes)[:60],
)
def test_addresses_files_and_sizes_in_a_description_are_refused(checkpoint, marker, trap, tmp_path, changes):
    path = checkpoint(filled(changes, trap=trap, folder=tmp_path))
    with pytest.raises(UserError) as caught:
        Detector.from_checkpoint(path)
    assert "does not describe a network of this package" in sentence(caught, path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"pretrained": True},
        {"pretrained": True, "weights_package": "evil_package"},
        {"checkpoint": "{trap}"},
        {"checkpoint": "/etc/passwd", "pretrained": True},
    ],
    ids=json.dumps,
)
def test_weights_that_a_description_names_are_not_opened(checkpoint, marker, trap, tmp_path, monkeypatch, changes):
    # A package whose import would leave the marker.
    (tmp_path / "evil_package").mkdir()
    (tmp_path / "evil_package" / "__init__.py").write_text(f"open({str(marker)!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = checkpoint(filled(changes, trap=trap))
    opened = []
    monkeypatch.setattr(
        torch, "load", lambda file, *a, load=torch.load, **k: opened.append(file) or load(file, *a, **k)
    )
    Detector.from_checkpoint(path)
    assert opened == [path]
    assert not marker.exists()


def nested(levels: int) -> list:
    """A list of two times the same list, over and over: ``2 ** levels`` values in a file of some bytes a level."""
    found: list = ["x"]
    for _ in range(levels):
        found = [found, found]
    return found


@pytest.mark.timeout(60)
@pytest.mark.parametrize("place", ["timm_name", "mean", "image_size", "features", "timm_options", "name"])
@pytest.mark.parametrize("value", [nested(32), ["x"] * 10_000, "x" * 10_000], ids=["nested", "wide", "long"])
def test_a_description_without_end_is_refused_in_a_sentence(checkpoint, place, value):
    path = checkpoint({place: value})
    with pytest.raises(UserError, match="describes its network with more values than one has") as caught:
        Detector.from_checkpoint(path)
    assert len(sentence(caught, path)) < 500


def test_a_network_larger_than_its_file_is_not_built(checkpoint, monkeypatch):
    monkeypatch.setattr("saliency_entropy.detector.Backbone", None)
    path = checkpoint({"timm_name": "resnet50", "image_size": 64})
    with pytest.raises(UserError, match=r"it has 235\d{5} parameters, more than the file has bytes"):
        Detector.from_checkpoint(path)


# 5. Secrets in the environment.

SECRET = "s3cr3t-" + "0123456789abcdef" * 2


def task(cfg: DictConfig) -> None:
    OmegaConf.to_container(cfg, resolve=True)


@pytest.mark.parametrize(
    "config",
    [
        {"a": {"b": "${oc.env:HIDDEN}"}},
        {"a": {"b": "key ${oc.env:HIDDEN,none} here"}},
        {"a": {"b": "${ oc.env: HIDDEN }"}},
        {"a": {"b": "${${name}.env:HIDDEN}"}, "name": "oc"},
        {"a": {"b": "${oc.decode:${oc.env:HIDDEN}}"}},
        {"a": {"b": ["${oc.env:HIDDEN}"]}},
        {"a": {"b": "${c}"}, "c": "${oc.env:HIDDEN}"},
    ],
    ids=json.dumps,
)
def test_an_environment_variable_in_a_configuration_is_refused(monkeypatch, config):
    monkeypatch.setenv("HIDDEN", SECRET)
    cfg = OmegaConf.create(config)
    with pytest.raises(CompactHydraException) as caught:
        wrapped(task)(cfg)
    message = str(caught.value)
    assert message.startswith("environment variable HIDDEN in a configuration is refused")
    assert "give the value itself" in message
    assert message.endswith(("(key a.b)", "(key a.b[0])", "(key c)"))
    assert "\n" not in message
    assert SECRET not in message
    with pytest.raises(CompactHydraException, match="HIDDEN"):
        wrapped(lambda cfg: OmegaConf.to_yaml(cfg, resolve=True))(cfg)


def test_outside_the_task_hydras_own_settings_may_use_the_environment(monkeypatch):
    monkeypatch.setenv("HIDDEN", "partition")
    cfg = OmegaConf.create({"launcher": "${oc.env:HIDDEN}"})
    with pytest.raises(CompactHydraException):
        wrapped(task)(cfg)
    assert cfg.launcher == "partition"
    wrapped(lambda _: None)(cfg)
    assert cfg.launcher == "partition"


def test_the_training_command_publishes_no_secret(tmp_path):
    done = subprocess.run(
        [
            sys.executable, ROOT / "experiments" / "train.py", "backbone=tiny", "trainer.max_epochs=1",
            "logger=wandb", "logger.mode=offline", "logger.project=${oc.env:HIDDEN}",
        ],
        cwd=tmp_path, env=os.environ | {"HIDDEN": SECRET, "HOME": str(tmp_path / "home")},
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "environment variable HIDDEN in a configuration is refused" in done.stderr
    assert "(key logger.project)" in done.stderr
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert not list(tmp_path.rglob("config.yaml"))


@pytest.mark.parametrize("launcher", ["basic", "local"])
def test_no_secret_is_in_the_files_of_a_sweep(command, tmp_path, monkeypatch, launcher):
    """Hydra notes what was given, not what it stands for."""
    monkeypatch.setenv("HIDDEN", SECRET)
    ended = command("-m", "method=droid", "seed=0", "logger.name=${oc.env:HIDDEN}", f"hydra/launcher={launcher}")
    assert ended.code == 1
    assert "environment variable HIDDEN in a configuration is refused" in ended.err
    assert SECRET not in ended.out + ended.err
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert {"multirun.yaml", "train.log"} <= {path.name for path in files}
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("script", sorted((ROOT / "experiments").glob("*.py")), ids=lambda script: script.stem)
def test_every_command_refuses_environment_variables(script):
    assert re.search(r'\n@hydra_command\("\w+"\)\ndef main\(', script.read_text())


# 6. Safetensors.


def safetensors(path: Path, header: bytes, content: bytes = b"", length: int | None = None) -> Path:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + content)
    return path


def entry(start: int, end: int, shape: list[int], kind: str = "F32") -> dict[str, object]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("header", "length"),
    [
        (b"{}", 2**63),
        (b"{}", 200_000_000),
        (b"", None),
        (b'{"a":', None),
        (json.dumps({"a": entry(0, 4 * 10**12, [10**12])}).encode(), None),
        (json.dumps({"a": entry(0, 8, [1])}).encode(), None),
        (json.dumps({"a": entry(8, 4, [1])}).encode(), None),
        (json.dumps({"a": entry(0, 4, [1], "PICKLE")}).encode(), None),
        (json.dumps({"a": entry(0, 4, [2**40, 2**40])}).encode(), None),
    ],
)
def test_a_damaged_safetensors_file_is_refused(tmp_path, header, length):
    path = safetensors(tmp_path / "weights.safetensors", header, b"\0" * 8, length)
    with pytest.raises(UserError) as caught:
        Backbone(**TINY | {"checkpoint": str(path)})
    assert "cannot be loaded as plain weights" in sentence(caught, path)


def test_duplicate_keys_in_a_safetensors_file(tmp_path):
    header = f'{{"a": {json.dumps(entry(0, 4, [1]))}, "a": {json.dumps(entry(4, 8, [1]))}}}'.encode()
    path = safetensors(tmp_path / "weights.safetensors", header, b"\0" * 8)
    with pytest.raises(UserError) as caught:
        Backbone(**TINY | {"checkpoint": str(path)})
    sentence(caught, path)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_weights_of_other_shapes_are_refused(tmp_path, name):
    path = tmp_path / name
    tensors = {key: torch.zeros(3, 3) for key in Backbone(**TINY).net.state_dict()}
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    with pytest.raises(UserError) as caught:
        Backbone(**TINY | {"checkpoint": str(path)})
    assert "does not fit backbone tiny" in sentence(caught, path)


# 12. Who may change what is written.


@pytest.mark.slow
def test_nothing_that_a_sweep_writes_is_world_writable(small, tmp_path):
    """Whatever the umask; under Slurm too, whose jobs have the umask of who submits them."""
    (tmp_path / "bin").mkdir()
    scripts = {"sbatch": f"umask > {tmp_path}/umask; echo Submitted batch job 7", "srun": "", "squeue": ""}
    for name, script in scripts.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    program = (
        "import os, runpy, sys\n"
        "os.umask(0)\n"
        "from hydra.core.plugins import Plugins\n"
        "Plugins.instance()\n"  # which imports them anew
        "from saliency_entropy.sweep import slurm\n"
        "slurm.LOOK_EVERY = slurm.ASK_EVERY = slurm.LATE = 0.01\n"
        "sys.argv = sys.argv[1:]\n"
        "for launcher in ('slurm', 'basic'):\n"
        "    sys.argv[-1] = f'hydra/launcher={launcher}'\n"
        "    try:\n"
        "        runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "    except SystemExit:\n"
        "        pass\n"
    )
    overrides = [*small, f"runs_dir={tmp_path}/runs", "method=droid", "trainer.max_epochs=1", ""]
    environment = os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    ended = subprocess.run(
        [sys.executable, "-c", program, ROOT / "experiments" / "train.py", "-m", *overrides],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    made = list((tmp_path / "runs").rglob("*"))
    names = {path.name for path in made}
    wanted = {"resume.ckpt", "result.json", "train.log", "multirun.yaml", ".owner", ".sweep", ".submitit"}
    assert wanted <= names, ended.stderr
    assert [path for path in made if path.stat().st_mode & stat.S_IWOTH] == []
    assert int((tmp_path / "umask").read_text(), 8) & stat.S_IWOTH


def test_temporary_names_are_unpredictable(tmp_path, monkeypatch):
    names = []
    for event in ("link", "rename", "replace"):
        original = getattr(os, event)

        def noted(here, there, *rest, original=original, **options):
            names.extend(path.name for path in (Path(here), Path(there)) if path.name.endswith(".part"))
            return original(here, there, *rest, **options)

        monkeypatch.setattr(os, event, noted)
    for _ in range(3):
        WholeFiles().save_checkpoint({}, str(tmp_path / "resume.ckpt"))
    # Three of resume.ckpt, and of the links that keep the one before two, made and moved.
    assert len(names) == 7
    assert len(set(names)) == 5
    assert all(re.fullmatch(r"\.resume(-before)?\.ckpt\.\w{8}\.part", name) for name in names)


# 13. The network, and programs.

REACHING = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname")
STARTING = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system")
ALLOWED = ("git", "ldconfig", "gcc", "ld")  # the latter are how Python finds a library
WATCHED = """
import io, os, runpy, sys
from contextlib import redirect_stdout

root, folder, *small, images = sys.argv[1:]
reached = []

def note(event, arguments):
    if event in REACHING:
        if not isinstance(arguments[1], str):  # within this machine
            reached.append(f"{event} {arguments}")
    elif event in STARTING and os.path.basename(arguments[0]) not in ALLOWED:
        reached.append(f"{event} {arguments[:2]}")

sys.addaudithook(note)
best = f"{folder}/faces/droid/seed0/checkpoints/best.ckpt"
for name, *arguments in (
    ("plan", "-m", *small, f"runs_dir={folder}", "seed=0,1"),
    ("train", "-m", *small, f"runs_dir={folder}", "seed=0,1"),
    ("status", f"study={folder}/faces"),
    ("evaluate", f"study={folder}/faces"),
    ("report", f"study={folder}/faces"),
    ("predict", f"checkpoint={best}", f"images={images}", f"output={folder}/out"),
    ("export", f"checkpoint={best}", f"output={folder}/exported"),
):
    sys.argv = [f"{name}.py", *arguments]
    try:
        runpy.run_path(f"{root}/experiments/{name}.py", run_name="__main__")
    except SystemExit as end:
        assert not end.code, (name, end.code)
assert not reached, reached
"""


@pytest.mark.timeout(1200)
def test_a_study_reaches_no_network_and_installs_nothing(small, faces, tmp_path):
    """Planned, trained, looked at, scored, reported, used and exported, each command as it is by default."""
    program = f"REACHING, STARTING, ALLOWED = {REACHING}, {STARTING}, {ALLOWED}\n{WATCHED}"
    arguments = [tmp_path / "runs", *small, "trainer.max_epochs=1", "method=droid", faces / "test"]
    ended = subprocess.run(
        [sys.executable, "-c", program, ROOT, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert list((tmp_path / "runs").rglob("*.html"))


# Versions without known advisories.

SAFE = {
    "torch": "2.10",
    "pytorch-lightning": "2.6.6",
    "hydra-core": "1.3.4",
    "pillow": "12.3",
    "gradio": "6.16",
}


@pytest.mark.parametrize(("name", "least"), SAFE.items())
def test_the_installed_versions_have_no_known_advisory(name, least):
    assert Version(importlib.metadata.version(name)) >= Version(least)


@pytest.mark.parametrize(("name", "least"), SAFE.items())
def test_no_older_version_can_be_installed(name, least):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    stated = project["dependencies"] + project["optional-dependencies"]["demo"]
    (requirement,) = [parsed for parsed in map(Requirement, stated) if parsed.name.lower() == name]
    bounds = [Version(part.version) for part in requirement.specifier if part.operator in (">=", "==", "~=")]
    assert max(bounds) >= Version(least)


@pytest.mark.parametrize("package", ["pytorch-lightning", "lightning"])
def test_the_two_releases_that_were_malware_are_excluded(package):
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return
    assert version not in ("2.6.2", "2.6.3")


def test_plain_weights_are_asked_for_wherever_a_file_is_loaded():
    for path in [*(ROOT / "saliency_entropy").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]:
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            # Lightning's ckpt_path="..." is loaded by the Trainer.
            if ast.unparse(call.func) in ("torch.load", "load_state_dict") or "ckpt_path" in keywords:
                assert keywords.get("weights_only") == "True", f"{path.name}:{call.lineno}"
            assert ast.unparse(call.func).rpartition(".")[2] != "load_from_checkpoint", f"{path.name}:{call.lineno}"
