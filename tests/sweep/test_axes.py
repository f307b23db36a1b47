"""A sweep over any key: each combination of values is a variant of the study."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from saliency_entropy.errors import UserError
from saliency_entropy.run.folder import register_resolvers
from saliency_entropy.run.variants import read_variant, variant_folders, write_variant
from saliency_entropy.sweep.axes import variant_runs
from saliency_entropy.sweep.jobs import composed_runs, plain_config
from saliency_entropy.sweep.status import study_status
from saliency_entropy.sweep.swept import sweep_overrides

ROOT = Path(__file__).parents[2]
FRACTION = "data.human_maps.fraction"


@contextmanager
def composed(*arguments: str) -> Iterator[tuple[ConfigLoader, DictConfig]]:
    """What Hydra gives a sweeper."""
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3", job_name="train"):
        hydra = GlobalHydra.instance().hydra
        yield hydra.config_loader, hydra.compose_config("train", list(arguments), RunMode.MULTIRUN)


def studies(*arguments: str) -> list[str]:
    with composed(*arguments) as (loader, config):
        return [str(run.config.study) for run in variant_runs(loader, config)]


def leave(runs: Path, *arguments: str) -> None:
    """Leave the runs of a sweep as if they had been trained."""
    with composed(f"runs_dir={runs}", *arguments) as (loader, config):
        for run in variant_runs(loader, config):
            cfg = run.config
            folder = runs / cfg.study / cfg.method.name / f"seed{cfg.seed}"
            folder.mkdir(parents=True)
            OmegaConf.save(OmegaConf.create(plain_config(cfg)), folder / "config.yaml")
            result = {"method": cfg.method.name, "seed": cfg.seed, "epochs": 1, "wall_seconds": 1.0}
            (folder / "result.json").write_text(json.dumps(result | {"val": {"auroc": 0.5}}))
            if run.variant:
                write_variant(runs / cfg.study, run.variant)


@pytest.mark.parametrize(("varied", "names"), [
    (["backbone=tiny,resnet50"], ["backbone=tiny", "backbone=resnet50"]),
    ([f"{FRACTION}=0.10,1e-1,5e-1,1.0"], ["fraction=0.1", "fraction=0.1", "fraction=0.5", "fraction=1"]),
    ([f"{FRACTION}=0.5,1", "backbone=tiny"], ["fraction=0.5", "fraction=1"]),
    ([f"{FRACTION}=0.5", "backbone=choice(tiny)"], ["backbone=tiny"]),
    (["backbone=choice(tiny)", f"{FRACTION}=0.5,1"], ["backbone=tiny,fraction=0.5", "backbone=tiny,fraction=1"]),
    (["data.seed=range(0,2)", "protocol=glob(*)"], [
        "data.seed=0,protocol=author", "data.seed=0,protocol=paper",
        "data.seed=1,protocol=author", "data.seed=1,protocol=paper"]),
    (["+note=a,b"], ["note=a", "note=b"]),
    (["data.cached_splits=[train],[train,val]", "+note='x/y','a b'"], None),
])  # fmt: skip
def test_what_varies_names_the_variant(varied: list[str], names: list[str] | None) -> None:
    if names is None:
        with pytest.raises(UserError, match=r"data\.cached_splits does not change what a run computes"):
            studies("method=droid", "study=s", *varied)
        names, varied = ["note=a-b@", "note=x-y@"], varied[1:]
        found = studies("method=droid", "study=s", *varied)
        assert [name.partition("@")[0] + "@" for name in sorted(found)] == [f"s/{name}" for name in names]
    else:
        assert studies("method=droid", "study=s", *varied) == [f"s/{name}" for name in names]


def test_an_experiment_names_its_axes_even_where_one_value_is_given(tmp_path: Path) -> None:
    conf = tmp_path / "experiment"
    conf.mkdir()
    (conf / "axes.yaml").write_text(
        "# @package _global_\nstudy: axes\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n"
        "      method: droid,hseb\n      backbone: tiny,resnet50\n"
    )
    given = [f"hydra.searchpath=[file://{tmp_path}]", "experiment=axes"]
    assert studies(*given) == ["axes/backbone=tiny", "axes/backbone=resnet50"] * 2
    assert studies(*given, "backbone=tiny") == ["axes/backbone=tiny"] * 2


def test_without_an_axis_nothing_is_changed() -> None:
    with composed("experiment=demo", "seed=0,1", "backbone=tiny") as (loader, config):
        overrides = sweep_overrides(config.hydra)
        honest = [OmegaConf.to_container(loader.load_sweep_config(config, own)) for own in overrides]
        runs = [
            (run.overrides, OmegaConf.to_container(run.config), run.variant) for run in variant_runs(loader, config)
        ]
    assert runs == [(own, cfg, {}) for own, cfg in zip(overrides, honest, strict=True)]


def test_runs_that_differ_in_single_values_are_as_hydra_composes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    swept = [
        "method=droid", "seed=0,7", f"{FRACTION}=0.25,null", "loss.terms.cross_entropy.weight=0.3,0.4",
        "+note=a,b", "protocol=author,paper", "protocol.optimizer.lr=${seed},1e-3", "data.human_maps={blur:0.1}",
        "study='a/b=c,d','e'",
    ]  # fmt: skip
    with composed(*swept) as (loader, config):
        overrides = sweep_overrides(config.hydra)
        original, calls = loader.load_sweep_config, []
        monkeypatch.setattr(loader, "load_sweep_config", lambda *given: calls.append(given) or original(*given))
        runs = [OmegaConf.to_container(copy.copy(run)) for run in composed_runs(loader, config, overrides)]
        # The fraction is given again as a part of a whole, so that the order of the two counts.
        assert len(calls) == 2 * 2 * 2
        for own, run in list(zip(overrides, runs, strict=True))[::17]:
            assert run == OmegaConf.to_container(original(config, own))


def test_a_study_keeps_its_axes(tmp_path: Path) -> None:
    """Whatever the command gives of them."""
    runs = tmp_path / "runs"
    leave(runs, "method=droid", "study=s", f"{FRACTION}=0.5,0.25", "backbone=tiny")
    given = [f"runs_dir={runs}", "method=droid", "study=s", "backbone=tiny"]
    assert studies(*given, "seed=0,1") == ["s/fraction=1"] * 2
    assert studies(*given, f"{FRACTION}=0.25") == ["s/fraction=0.25"]
    assert studies(*given, f"{FRACTION}=0.75,0.5") == ["s/fraction=0.75", "s/fraction=0.5"]
    assert studies(*given[:2], "backbone=tiny", "study='s/fraction=0.5'", f"{FRACTION}=0.5") == ["s/fraction=0.5"]
    assert [folder.name for folder in variant_folders(runs / "s")] == ["fraction=0.25", "fraction=0.5"]
    assert read_variant(runs / "s" / "fraction=0.25") == {FRACTION: 0.25}


@pytest.mark.parametrize(("arguments", "message"), [
    (["backbone=tiny,resnet50"],
     "the variants of {0}/s differ in data.human_maps.fraction, those of this command in backbone and "
     "data.human_maps.fraction: give these a study= of their own"),
    ([f"{FRACTION}=0.5,1", "backbone=tiny,resnet50"], "differ in data.human_maps.fraction, those of this command in"),
    ([f"{FRACTION}=0.75,1", "trainer.max_epochs=7"],
     "{0}/s has variants with other settings (trainer.max_epochs is 3 there and 7 here), with which those of this "
     "command could not be compared: give these a study= of their own, or the settings of {0}/s/fraction=0.25/droid/"),
    (["study='s/fraction=0.5'", f"{FRACTION}=0.25"],
     "{0}/s/fraction=0.5 is one variant of {0}/s, and this command names others: give study= of that"),
    (["study='s/fraction=0.5'", "data.seed=1,2"], "{0}/s/fraction=0.5 is one variant of {0}/s, and this command names"),
    (["study=plain", "data.seed=1,2"], "{0}/plain has runs without variants, beside which those that differ in data.s"),
    (["threads=1,2"], "threads does not change what a run computes, so no axis is made of it: give it one value"),
    (["logger=csv,wandb"], "logger does not change what a run computes"),
    (["data.num_workers=choice(2)"], "data.num_workers does not change what a run computes"),
    (["seed=range(0,101)", "data.seed=range(0,100)"], "the sweep has more than 10,000 runs: vary less, or give"),
    (["study=new", "backbone=tiny,no_such"], "method=droid backbone=no_such cannot be composed: "),
    (["study=new", "data.fraction=1,2"], "method=droid data.fraction=1 cannot be composed: Key 'fraction' is not in"),
    (["study='${data.name}'", "data=builtin,folder", "backbone=tiny"], None),
])  # fmt: skip
def test_a_mistake_is_one_sentence(tmp_path: Path, arguments: list[str], message: str | None) -> None:
    leave(tmp_path, "method=droid", "study=s", f"{FRACTION}=0.5,0.25", "backbone=tiny", "trainer.max_epochs=3")
    leave(tmp_path, "method=droid", "study=plain", "backbone=tiny")
    given = [f"runs_dir={tmp_path}", "method=droid"]
    given += [] if any(text.startswith("study=") for text in arguments) else ["study=s"]
    given += [] if any(text.startswith("backbone=") for text in arguments) else ["backbone=tiny"]
    if message is None:  # the study that is asked for has another name for each of them
        assert studies(*given, *arguments) == ["builtin/data=builtin", "folder/data=folder"]
        return
    with pytest.raises(UserError) as caught:
        studies(*given, *arguments)
    assert message.format(tmp_path) in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_a_study_named_by_what_is_swept_is_asked_for() -> None:
    with pytest.raises(UserError, match=r"names the study, too \(builtin, folder\): give study="):
        studies("data=builtin,folder")


def test_a_variants_folder_that_was_renamed_is_named(tmp_path: Path) -> None:
    leave(tmp_path, "method=droid", "study=s", f"{FRACTION}=0.5,0.25")
    (tmp_path / "s" / "fraction=0.5").rename(tmp_path / "s" / "fraction=0.7")
    with pytest.raises(UserError, match=r"fraction=0\.7 holds the variant fraction=0\.5: give it that name, or move"):
        studies(f"runs_dir={tmp_path}", "method=droid", "study=s", f"{FRACTION}=0.5,0.25")


def files(study: Path) -> dict[Path, int]:
    found = [path for path in study.rglob("*") if path.suffix in (".ckpt", ".csv") or path.name == "result.json"]
    return {path: path.stat().st_mtime_ns for path in found}


def ended(out: str) -> str:
    return next(line for line in out.splitlines() if "sweep ended" in line).partition("] ")[2]


@pytest.mark.timeout(900)
def test_variants_are_trained_once_in_whatever_commands(command: Callable, tmp_path: Path) -> None:
    study = tmp_path / "runs" / "s"
    given = ["-m", "trainer.max_epochs=1", "study=s", "method=droid"]
    first = command(*given, f"{FRACTION}=1,0.5", "seed=0")
    assert first.code == 0, first.err
    assert "run 2 of 2: fraction=0.5, droid, seed 0" in first.out
    results = {path.relative_to(study).parent.as_posix() for path in study.rglob("result.json")}
    assert results == {"fraction=1/droid/seed0", "fraction=0.5/droid/seed0"}
    config = OmegaConf.load(study / "fraction=0.5" / "droid" / "seed0" / "config.yaml")
    assert (config.study, config.data.human_maps.fraction) == ("s/fraction=0.5", 0.5)
    assert "`<key>=<value>/`" in (study / "README.md").read_text() == (study / "fraction=1" / "README.md").read_text()
    assert not (study.parent / "README.md").exists()
    before = files(study)

    other = command(*given, f"{FRACTION}=0.5,0.25", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert other.code == 0, other.err
    assert ended(other.out) == "sweep ended: 4 runs, 3 trained, 1 done before"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    states = {run.name: run.state for run in study_status(study)}
    assert states == {
        "fraction=0.25/droid/seed0": "done", "fraction=0.25/droid/seed1": "done", "fraction=0.5/droid/seed0": "done",
        "fraction=0.5/droid/seed1": "done", "fraction=1/droid/seed0": "done",
    }  # fmt: skip
    assert [run.name for run in study_status(study / "fraction=0.5")] == ["droid/seed0", "droid/seed1"]

    again = command(*given, f"{FRACTION}=0.250,0.5,1.0", "seed=0")
    assert ended(again.out) == "sweep ended: 3 runs, 0 trained, 3 done before"
    plain = command("trainer.max_epochs=1", "study=s", "method=droid", f"{FRACTION}=0.25")
    assert "s/fraction=0.25/droid/seed0 is done" in plain.out
    default = command("trainer.max_epochs=1", "study=s", "method=droid", "seed=1")
    assert default.code == 0, default.err
    assert (study / "fraction=1" / "droid" / "seed1" / "result.json").exists()
    refused = command("trainer.max_epochs=2", "study=s", "method=droid", f"{FRACTION}=0.75")
    assert refused.code == 1
    assert "has variants with other settings (trainer.max_epochs is 1 there and 2 here)" in refused.err
    assert not (study / "fraction=0.75").exists()


def test_the_missing_runs_of_a_variant_are_those_of_its_last_sweep(
    command: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saliency_entropy.sweep.local.LocalLauncher.launch", lambda *_, **__: ())
    study = tmp_path / "runs" / "s"
    assert command("-m", "study=s", "method=droid,hseb", "seed=0,1", f"{FRACTION}=1,0.5").code == 0
    assert command("-m", "study=s", "method=droid", "seed=0", f"{FRACTION}=0.25").code == 0
    missing = {run.name for run in study_status(study)}
    assert missing == {
        *(f"fraction={value}/{method}/seed{seed}" for value in (1, 0.5) for method in ("droid", "hseb")
          for seed in (0, 1)),
        "fraction=0.25/droid/seed0",
    }  # fmt: skip
    assert {run.state for run in study_status(study)} == {"missing"}


@pytest.mark.timeout(300)
def test_a_thousand_done_runs_are_found_done_in_seconds(tmp_path: Path) -> None:
    """102 variants and methods with ten seeds each; `make bench` measures it."""
    values = ",".join(str(number / 100) for number in range(17))
    swept = ["experiment=drawn", "seed=range(0,10)", "study=s", f"{FRACTION}={values}"]
    leave(tmp_path, *swept)
    command = [sys.executable, str(ROOT / "experiments" / "train.py"), f"runs_dir={tmp_path}", *swept]
    again = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended(again.stdout) == "sweep ended: 1020 runs, 0 trained, 1020 done before", again.stderr
