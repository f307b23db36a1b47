"""experiment=weights: a search that is killed at any moment ends as if it had not been; what it says of bad input."""

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from omegaconf import OmegaConf

from hydra_plugins.saliency_entropy_sweepers.search import SearchSweeper
from saliency_entropy.errors import UserError
from saliency_entropy.run import lock as run_lock
from saliency_entropy.run.study_folders import SEARCH_JOURNAL
from saliency_entropy.study.search_report import report, trials
from saliency_entropy.sweep.search import read_search

ROOT = Path(__file__).parents[1]
TERMS = ("cross_entropy", "human_saliency", "log_entropy")
KEYS = [f"loss.terms.{name}.weight" for name in TERMS]


# --- the choice of trials, with a launcher that trains nothing


@dataclass
class Launcher:
    """Gives each run an objective that its values decide, and remembers what was asked for."""

    outcome: Callable[[dict[str, str]], float | Exception]
    launched: list[list[dict[str, str]]] = field(default_factory=list)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        runs = [dict(override.split("=", 1) for override in overrides) for overrides in job_overrides]
        self.launched.append(runs)
        returns = []
        for run in runs:
            outcome = self.outcome(run)
            failed = isinstance(outcome, Exception)
            ended = JobReturn(status=JobStatus.FAILED if failed else JobStatus.COMPLETED)
            ended.return_value = outcome
            returns.append(ended)
        return returns


def smooth(run: dict[str, str]) -> float:
    return 1 - (float(run["a"]) - 0.3) ** 2 - (float(run["b"]) - 0.7) ** 2


def search(
    folder: Path, outcome: Callable = smooth, arguments: Sequence[str] = (), **settings: int
) -> list[list[dict[str, str]]]:
    """Run a search of ``a`` and ``b`` in a folder; returns the overrides of the runs, batch by batch."""
    params = {"a": "interval(0.05, 1.0)", "b": "interval(0.05, 1.0)"}
    sweeper = SearchSweeper(**({"n_trials": 8, "n_random": 3, "parallel": 1, "seed": 0, "params": params} | settings))
    sweeper.config = OmegaConf.create(
        {"runs_dir": str(folder.parent), "study": folder.name, "a": 0.5, "b": 0.5, "seed": 0, "epochs": 3}
    )
    for argument in arguments:
        key, _, value = argument.partition("=")
        if "," not in value and "(" not in value:
            OmegaConf.update(sweeper.config, key, OmegaConf.create(f"value: {value}")["value"])
    sweeper.launcher = Launcher(outcome)
    sweeper.sweep(list(arguments))
    return sweeper.launcher.launched


def found(folder: Path) -> pd.DataFrame:
    return trials(read_search(folder))


@pytest.mark.parametrize("parallel", [1, 3])
def test_killed_at_any_write_it_ends_as_if_it_had_not_been(tmp_path: Path, parallel: int) -> None:
    """After each line of its journal, and in the midst of the next."""
    whole = tmp_path / "whole"
    search(whole, parallel=parallel)
    expected = found(whole)
    assert len(expected) == 8
    assert not expected.duplicated(["a", "b"]).any()
    lines = (whole / SEARCH_JOURNAL).read_bytes().splitlines(keepends=True)
    for count in range(len(lines)):
        folder = tmp_path / f"killed{count}"
        folder.mkdir()
        (folder / SEARCH_JOURNAL).write_bytes(b"".join(lines[:count]) + lines[count][: len(lines[count]) // 2])
        (folder / f"{SEARCH_JOURNAL}.lock").symlink_to(folder / SEARCH_JOURNAL)  # Optuna's, which a kill leaves
        search(folder, parallel=parallel)
        pd.testing.assert_frame_equal(found(folder), expected)


def test_the_configured_values_come_first_and_the_search_finds_better_ones(tmp_path: Path) -> None:
    search(tmp_path / "s", n_trials=30)
    table = found(tmp_path / "s")
    assert (table.loc[0, "a"], table.loc[0, "b"]) == (0.5, 0.5)
    assert table["val_auroc"].max() > 0.99 > table.loc[0, "val_auroc"]
    for key in ("a", "b"):
        assert table[key].between(0.05, 1.0).all()
        assert (table[key] == table[key].map(lambda value: float(f"{value:.3g}"))).all()


def test_another_seed_is_another_search(tmp_path: Path) -> None:
    for seed in (0, 1):
        search(tmp_path / str(seed), seed=seed, n_trials=3)
    assert not found(tmp_path / "0").equals(found(tmp_path / "1"))


def test_the_same_command_does_nothing_and_more_trials_are_added(tmp_path: Path) -> None:
    search(tmp_path / "s", n_trials=4)
    assert search(tmp_path / "s", n_trials=4) == []
    assert len(search(tmp_path / "s", n_trials=6)) == 2
    search(tmp_path / "t", n_trials=6)
    pd.testing.assert_frame_equal(found(tmp_path / "s"), found(tmp_path / "t"))


def test_a_failed_trial_does_not_stop_the_others_and_is_tried_again(tmp_path: Path) -> None:
    def failing(run: dict[str, str]) -> float | Exception:
        return CompactHydraException("no room") if run["a"] == "0.5" else smooth(run)

    with pytest.raises(CompactHydraException, match="no room"):
        search(tmp_path / "s", failing, n_trials=4)
    assert found(tmp_path / "s")["state"].tolist() == ["unfinished", "done", "done", "done"]
    again = search(tmp_path / "s", n_trials=4)
    assert [[run["a"] for run in batch] for batch in again] == [["0.5"]]
    assert found(tmp_path / "s")["state"].tolist() == ["done"] * 4


def test_a_trial_that_diverged_is_not_tried_again(tmp_path: Path) -> None:
    search(tmp_path / "s", lambda run: math.nan if run["a"] == "0.5" else smooth(run), n_trials=4)
    assert found(tmp_path / "s")["state"].tolist() == ["diverged", "done", "done", "done"]
    assert search(tmp_path / "s", n_trials=4) == []


def test_seeds_are_run_in_every_trial_and_averaged(tmp_path: Path) -> None:
    launched = search(tmp_path / "s", lambda run: float(run["seed"]), ["seed=0,1,5"], n_trials=2)
    assert [[run["seed"] for run in batch] for batch in launched] == [["0", "1", "5"]] * 2
    assert len({run["study"] for run in launched[0]}) == 1
    assert launched[0][0]["study"] == "s/0.5_0.5"
    assert found(tmp_path / "s")["val_auroc"].tolist() == [2.0, 2.0]


def test_a_value_that_is_given_is_not_searched(tmp_path: Path) -> None:
    launched = search(tmp_path / "s", arguments=["b=0.7"], n_trials=4)
    assert {run["b"] for batch in launched for run in batch} == {"0.7"}
    assert [column for column in found(tmp_path / "s") if column in "ab"] == ["a"]


MISTAKES: dict[str, tuple[list[str], dict[str, object], str]] = {
    "nothing": (["a=0.1", "b=0.1"], {}, r"^nothing is searched: give at least one value as an interval"),
    "order": (["a=interval(1.0,0.1)"], {}, r"^a=interval\(1\.0,0\.1\) is no interval: give the lower bound first"),
    "logarithm": (["a=tag(log,interval(0.0,1.0))"], {}, r"an interval of logarithms begins above 0"),
    "narrow": (
        ["a=interval(0.1,0.103)", "b=0.5"],
        {"n_trials": 9},
        r"^the search has tried what there is within a after 4 trials: give a smaller hydra\.sweeper\.n_trials",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(tmp_path: Path, mistake: str) -> None:
    arguments, settings, message = MISTAKES[mistake]
    with pytest.raises(CompactHydraException, match=message) as caught:
        search(tmp_path / "s", arguments=arguments, **settings)
    assert "\n" not in str(caught.value)


def test_another_configuration_does_not_go_on_with_a_search(tmp_path: Path) -> None:
    search(tmp_path / "s", n_trials=2)
    before = (tmp_path / "s" / SEARCH_JOURNAL).read_bytes()
    for arguments, settings, differing in (
        (["epochs=4"], {}, "epochs is 3 there and 4 here"),
        (["a=interval(0.05,0.9)"], {}, r"a is \[0\.05, 1\.0, False\] there and \[0\.05, 0\.9, False\] here"),
        ([], {"seed": 3}, r"hydra\.sweeper\.seed is 0 there and 3 here"),
    ):
        with pytest.raises(CompactHydraException, match=f"holds a search of another configuration .*{differing}"):
            search(tmp_path / "s", arguments=arguments, **settings)
    assert (tmp_path / "s" / SEARCH_JOURNAL).read_bytes() == before


def test_a_search_is_run_by_one_process(tmp_path: Path) -> None:
    with run_lock.held(tmp_path / "s"), pytest.raises(CompactHydraException, match=rf"{tmp_path}/s .*process"):
        search(tmp_path / "s")


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    search(tmp_path / "s", n_trials=2)
    journal = tmp_path / "s" / SEARCH_JOURNAL
    journal.write_bytes(b"no JSON\n" + journal.read_bytes())
    with pytest.raises(CompactHydraException, match=rf"^{journal} is damaged .*: restore it, or delete it"):
        search(tmp_path / "s")
    with pytest.raises(UserError, match=rf"^{journal} is damaged"):
        report(OmegaConf.create({"study": str(tmp_path / "s"), "output": None}))


# --- the command


@pytest.fixture
def arguments(small: list[str]) -> list[str]:
    kept = [override for override in small if not override.startswith("trainer.max_epochs")]
    return [*kept, "experiment=weights", "trainer.max_epochs=3", "hydra.sweeper.n_trials=4", "hydra.sweeper.n_random=2"]


def results(study: Path) -> dict[str, dict[str, object]]:
    paths = study.glob("*/droid_cyborg/seed0/result.json")
    return {path.parents[2].name: json.loads(path.read_text()) for path in paths}


@pytest.mark.timeout(1800)
def test_a_search_that_is_killed_goes_on(command, arguments: list[str], tmp_path: Path) -> None:
    """SIGKILL in the second trial; in the end all is as in a search that ran through, and nothing was trained twice."""
    ended = command("study=through", defaults=arguments)
    assert ended.code == 0, ended.err
    study = tmp_path / "runs" / "weights"
    process = subprocess.Popen(
        [sys.executable, ROOT / "experiments" / "train.py", *arguments, f"runs_dir={tmp_path}/runs"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path,
    )  # fmt: skip
    try:
        while len(list(study.glob("*/droid_cyborg/seed0/checkpoints/resume.ckpt"))) < 2:
            assert process.poll() is None, process.stdout.read().decode()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    finally:
        process.kill()
        process.stdout.close()
    assert 1 <= len(results(study)) < 4
    done = {path: path.stat().st_mtime_ns for path in study.rglob("result.json")}

    again = command(defaults=arguments)
    assert again.code == 0, again.err
    assert {path: path.stat().st_mtime_ns for path in done} == done
    through = tmp_path / "runs" / "through"
    pd.testing.assert_frame_equal(found(study), found(through))
    ours, theirs = results(study), results(through)
    assert len(ours) == 4
    assert ours.keys() == theirs.keys()
    for name, result in ours.items():
        assert result["val"] == theirs[name]["val"]
        assert result["test"] == theirs[name]["test"]
        assert result["study"] == f"weights/{name}"
        attempts = json.loads((study / name / "droid_cyborg" / "seed0" / "attempts.json").read_text())
        assert [attempt["state"] for attempt in attempts].count("finished") == 1
        config = OmegaConf.load(study / name / "droid_cyborg" / "seed0" / "config.yaml")
        assert name == "_".join(f"{OmegaConf.select(config, key):g}" for key in KEYS)
    assert len({result["config_hash"] for result in ours.values()}) == 4
    assert "0.5_0.5_0.3" in ours

    # What was searched for is the AUROC of the validation images.
    table = found(study).set_index(KEYS)["val_auroc"]
    for weights, value in table.items():
        assert value == ours["_".join(f"{weight:g}" for weight in weights)]["val"]["auroc"]

    # One of the trials' runs again, by its name: it is done.
    name = next(iter(ours))
    weights = [f"{key}={value}" for key, value in zip(KEYS, name.split("_"), strict=True)]
    kept = [one for one in arguments if not one.startswith(("experiment", "hydra"))]
    alone = command(f"study=weights/{name}", *weights, defaults=kept)
    assert alone.code == 0, alone.err
    assert "is done: nothing to do" in alone.out


def test_without_optuna(command, arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    original = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "optuna" else original(name, *rest)
    )
    ended = command(defaults=arguments)
    assert ended.code == 1
    assert "\nhydra/sweeper=search needs Optuna: pip install 'saliency-entropy[sweeps]'\n" in f"\n{ended.err}"
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials is 0; give a whole number from 1 on"),
        (
            ["checkpoints=false", "trainer.max_epochs=1"],
            "the runs of a search give no objective",
        ),
        (["data=faces", "data.root=???"], "data.root must be given: data.root=..."),
        (
            ["backbone=tiny,resnet50"],
            "a search repeats its trials with other methods and seeds only: give backbone one",
        ),
    ],
)
def test_a_mistake_of_the_command(command, arguments: list[str], overrides: list[str], message: str) -> None:
    ended = command(*overrides, defaults=arguments)
    assert ended.code == 1
    assert f"\n{message}" in f"\n{ended.err}"
    assert "Traceback" not in ended.err


# --- its report


@pytest.fixture
def searched(tmp_path: Path) -> Path:
    def partly(run: dict[str, str]) -> float | Exception:
        return {"0.5": math.nan}.get(run["a"], smooth(run))

    search(tmp_path / "s", partly, n_trials=5)
    return tmp_path / "s"


def test_the_report_of_a_search(searched: Path, tmp_path: Path) -> None:
    before = (searched / SEARCH_JOURNAL).read_bytes()
    report(OmegaConf.create({"study": str(searched), "output": None}))
    assert (searched / SEARCH_JOURNAL).read_bytes() == before
    table = pd.read_csv(searched / "search" / "trials.csv")
    assert list(table) == ["trial", "state", "val_auroc", "a", "b"]
    assert table["trial"].tolist() == [1, 2, 3, 4, 5]
    assert table["state"].tolist() == ["diverged", *["done"] * 4]
    expected = [smooth({"a": a, "b": b}) for a, b in zip(table["a"], table["b"], strict=True)]
    assert table["val_auroc"].tolist()[1:] == pytest.approx(expected[1:], abs=1e-12)
    assert math.isnan(table["val_auroc"][0])
    assert (searched / "search" / "search.png").read_bytes().startswith(b"\x89PNG")
    pdf = (searched / "search" / "search.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    report(OmegaConf.create({"study": str(searched), "output": str(tmp_path / "elsewhere")}))
    assert (tmp_path / "elsewhere" / "search.pdf").read_bytes() == pdf


def test_a_report_of_a_search_that_cannot_be_written(searched: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    output = str(tmp_path / "file" / "report")
    with pytest.raises(
        UserError, match=rf"^output={output}.* cannot be written to .*; give another folder with output="
    ):
        report(OmegaConf.create({"study": str(searched), "output": output}))


def test_a_search_without_an_outcome(tmp_path: Path) -> None:
    search(tmp_path / "s", lambda run: math.nan, n_trials=1)
    with pytest.raises(UserError, match=r"^no trial of the search in .* has ended with an objective yet"):
        report(OmegaConf.create({"study": str(tmp_path / "s"), "output": None}))


@pytest.mark.slow
def test_the_report_command(searched: Path, tmp_path: Path) -> None:
    script = [sys.executable, ROOT / "experiments" / "weights.py"]
    options = SimpleNamespace(cwd=tmp_path, env=os.environ)
    ended = subprocess.run([*script, f"study={searched}"], capture_output=True, text=True, **vars(options))
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert len(ended.stdout.splitlines()) == 8  # and none of a library's
    assert "5 trials (4 done, 1 diverged)" in ended.stdout
    none = subprocess.run([*script, f"study={tmp_path}"], capture_output=True, text=True, **vars(options))
    assert none.returncode == 1
    assert f"{tmp_path} holds no search: set study to the folder of one, such as runs/weights" in none.stderr
    assert "Traceback" not in none.stderr
