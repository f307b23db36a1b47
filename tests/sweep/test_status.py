"""Where a study stands is read from what its runs left, while they are trained, too."""

import json
import os
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from saliency_entropy.run import lock as run_lock
from saliency_entropy.run.variants import write_variant
from saliency_entropy.sweep.queue import QueuedJob, record_jobs
from saliency_entropy.sweep.status import RunStatus, print_status, run_status, study_status, time_left
from saliency_entropy.sweep.terminal_grid import terminal

ROOT = Path(__file__).parents[2]
BASIC = {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"}
METHODS = ("cross_entropy", "cyborg", "hseb", "fmmmse", "droid", "droid_cyborg")


def make_run(
    study: Path,
    method: str,
    seed: int,
    done: int = 0,
    epochs: int = 4,
    result: dict | str | None = None,
    attempts: list[dict] | None = None,
) -> Path:
    """What a run leaves, as far as it is looked at; ``result`` {}: finished."""
    folder = study / method / f"seed{seed}"
    (folder / "checkpoints").mkdir(parents=True)
    OmegaConf.save(
        {"method": {"name": method}, "seed": seed, "trainer": {"max_epochs": epochs}}, folder / "config.yaml"
    )
    if done:
        (folder / "metrics.csv").write_text("epoch,train/loss\n" + "".join(f"{n},0.5\n" for n in range(done)))
        (folder / "checkpoints" / "resume.ckpt").write_bytes(b"weights")
    if result is not None:
        if isinstance(result, dict):
            whole = {"method": method, "seed": seed, "epochs": done, "wall_seconds": 10.0 * done}
            result = json.dumps(whole | result)
        (folder / "result.json").write_text(result)
    if attempts is not None:
        (folder / "attempts.json").write_text(json.dumps(attempts))
    return folder


def attempt(state: str, reason: str | None = None) -> dict:
    started = datetime.now(UTC) + timedelta(days=1)  # by the clock of another machine
    return {"started": started.isoformat(timespec="seconds"), "ended": None, "state": state, "reason": reason}


def note_failure(
    study: Path, method: str, seed: int, reason: str | None, state: str = "failed", when: float = -60
) -> None:
    """What a sweep said of a run, so many seconds from now."""
    folder = study / ".sweep" / f"sweep-{when}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{method}{seed}.json"
    note = {"state": state, "seconds": 1.0, "folder": str(study / method / f"seed{seed}")}
    path.write_text(json.dumps(note | ({"reason": reason} if reason else {})))
    at = time.time() + when
    os.utime(path, (at, at))


def states(study: Path) -> dict[str, str]:
    return {run.name: run.state for run in study_status(study)}


def status_of(study: Path, name: str) -> RunStatus:
    (found,) = [run for run in study_status(study) if run.name == name]
    return found


@pytest.fixture
def status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable:
    """``experiments/status.py`` in this process: exit code, output, errors."""

    def run(*overrides: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["status.py", *overrides])
        capsys.readouterr()
        code: object = 0
        try:
            runpy.run_path(str(ROOT / "experiments" / "status.py"), run_name="__main__")
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


# --- the states


def test_done_interrupted_failed_and_missing(tmp_path: Path) -> None:
    make_run(tmp_path, "droid", 0, done=4, result={})
    make_run(tmp_path, "droid", 1, done=3, attempts=[attempt("killed")])
    make_run(tmp_path, "hseb", 0, done=1, attempts=[attempt("killed"), attempt("failed", "OutOfMemoryError: 3 GiB")])
    assert states(tmp_path) == {
        "hseb/seed0": "failed", "hseb/seed1": "missing", "droid/seed0": "done", "droid/seed1": "interrupted",
    }  # fmt: skip
    failed, interrupted = status_of(tmp_path, "hseb/seed0"), status_of(tmp_path, "droid/seed1")
    assert failed.detail == "OutOfMemoryError: 3 GiB"
    assert (failed.epochs_done, failed.epochs) == (1, 4)
    assert (interrupted.epochs_done, interrupted.epochs) == (3, 4)
    assert status_of(tmp_path, "hseb/seed1").epochs == 4  # as the others


def test_runs_whose_slurm_jobs_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As squeue says it; where there is none, they are what their folders say."""
    make_run(tmp_path, "droid", 0, done=4, result={})
    make_run(tmp_path, "droid", 1, done=3, attempts=[attempt("killed")])
    make_run(tmp_path, "hseb", 0, done=1, attempts=[attempt("failed", "OutOfMemoryError: 3 GiB")])
    make_run(tmp_path, "hseb", 1, done=1, attempts=[attempt("killed")])
    jobs = {("droid", 0): "7_0", ("droid", 1): "7_1", ("hseb", 0): "8_0", ("hseb", 1): "8_1"}
    record_jobs(
        tmp_path, {tmp_path / method / f"seed{seed}": QueuedJob(job, "") for (method, seed), job in jobs.items()}
    )
    (tmp_path / ".submitit" / "9.json").write_text('{"half')

    told = {"droid/seed0": "done", "droid/seed1": "interrupted", "hseb/seed0": "failed", "hseb/seed1": "interrupted"}
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert states(tmp_path) == told

    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text("#!/bin/sh\necho 7_1 PENDING\necho 8_0 PENDING\necho 8_1 CANCELLED\necho 10_1 PENDING\n")
    squeue.chmod(0o755)
    assert states(tmp_path) == told | {"droid/seed1": "queued", "hseb/seed0": "queued"}
    assert status_of(tmp_path, "droid/seed1").detail == "Slurm job 7_1"


def test_a_run_that_failed_and_goes_on_is_not_failed(tmp_path: Path) -> None:
    make_run(tmp_path, "droid", 0, done=2, attempts=[attempt("failed", "x"), attempt("killed")])
    assert states(tmp_path) == {"droid/seed0": "interrupted"}


def test_a_run_that_is_held_is_running(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "droid", 0, done=2, attempts=[attempt("killed")])
    for file, when in (("config.yaml", 1_000_000), ("metrics.csv", 1_000_020)):
        os.utime(folder / file, (when, when))
    with run_lock.held(folder):
        run = run_status(folder)
    assert (run.state, run.epochs_done, run.epochs) == ("running", 2, 4)
    assert f"process {os.getpid()} on " in run.detail
    assert run.seconds_an_epoch == 10
    assert run_status(folder).state == "interrupted"


def test_what_failed_before_the_training_is_told_by_the_sweep(tmp_path: Path) -> None:
    make_run(tmp_path, "droid", 0, done=4, result={})
    for method in ("cyborg", "hseb"):
        (tmp_path / method / "seed0").mkdir(parents=True)
    note_failure(tmp_path, "cyborg", 0, "method cyborg (term human_saliency) needs human maps")
    (tmp_path / "hseb" / "seed0" / "train.log").write_text(
        "[2026-11-25 07:00:00] run 2 of 3: hseb, seed 0\n"
        "[2026-11-25 07:00:01] run 2 of 3 failed, the others go on: hseb needs human maps\n"
    )
    note_failure(tmp_path, "hseb", 0, None)
    assert status_of(tmp_path, "cyborg/seed0").detail == "method cyborg (term human_saliency) needs human maps"
    assert status_of(tmp_path, "hseb/seed0").detail == "hseb needs human maps"
    # A later sweep that did not fail says something else, and so does what was trained since.
    note_failure(tmp_path, "cyborg", 0, None, state="trained", when=-30)
    assert status_of(tmp_path, "cyborg/seed0").state == "missing"
    folder = tmp_path / "hseb" / "seed0"
    (folder / "attempts.json").write_text(json.dumps([attempt("killed")]))
    assert status_of(tmp_path, "hseb/seed0").state == "interrupted"


def test_a_run_that_found_no_room_failed_with_that(tmp_path: Path) -> None:
    no_room = attempt("no room", "OSError: [Errno 28] No space left on device")
    make_run(tmp_path, "droid", 0, done=1, attempts=[attempt("failed", "out of memory"), no_room])
    run = status_of(tmp_path, "droid/seed0")
    assert (run.state, run.detail) == ("failed", "OSError: [Errno 28] No space left on device")


def test_what_the_last_sweep_was_to_train_is_missing(tmp_path: Path) -> None:
    make_run(tmp_path, "droid", 0, done=4, result={})
    sweep = {
        "method": {"name": "droid_cyborg"},
        "seed": 0,
        "hydra": {
            "sweeper": BASIC | {"params": {"seed": "range(0,10)", "method": "droid,hseb"}},
            "overrides": {"task": ["experiment=paper", "seed=0,3"]},
        },
    }
    OmegaConf.save(sweep, tmp_path / "multirun.yaml")
    assert states(tmp_path) == {
        "hseb/seed0": "missing", "hseb/seed3": "missing", "droid/seed0": "done", "droid/seed3": "missing",
    }  # fmt: skip
    sweep["hydra"] = {"sweeper": BASIC | {"params": None}, "overrides": {"task": ["seed=0,1"]}}
    OmegaConf.save(sweep, tmp_path / "multirun.yaml")
    assert states(tmp_path) == {
        "droid/seed0": "done", "droid/seed1": "missing",
        "droid_cyborg/seed0": "missing", "droid_cyborg/seed1": "missing",
    }  # fmt: skip
    sweep["hydra"]["sweeper"] = {"_target_": "another.Sweeper", "params": {"seed": "0,1"}}
    OmegaConf.save(sweep, tmp_path / "multirun.yaml")
    assert states(tmp_path) == {"droid/seed0": "done"}
    (tmp_path / "multirun.yaml").write_text("hydra: [")
    assert states(tmp_path) == {"droid/seed0": "done"}


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (["++seed=1,2"], {"droid/seed1", "droid/seed2"}),
        (["study=one,two", "seed=1,2"], set()),
        (["runs_dir=a,b"], set()),
    ],
)
def test_of_which_runs_and_folders_a_sweep_is(tmp_path: Path, given: list[str], missing: set[str]) -> None:
    make_run(tmp_path, "droid", 0, done=4, result={})
    sweep = {"method": {"name": "droid"}, "seed": 7, "hydra": {"sweeper": BASIC | {"params": None}}}
    sweep["hydra"]["overrides"] = {"task": given}
    OmegaConf.save(sweep, tmp_path / "multirun.yaml")
    assert states(tmp_path) == {"droid/seed0": "done"} | dict.fromkeys(missing, "missing")


def test_a_sweep_that_has_begun_no_run_yet(tmp_path: Path) -> None:
    sweep = {"hydra": {"sweeper": BASIC | {"params": {"seed": "1,2", "method": "droid"}}, "overrides": {"task": []}}}
    OmegaConf.save(sweep, tmp_path / "multirun.yaml")
    assert states(tmp_path) == {"droid/seed1": "missing", "droid/seed2": "missing"}


@pytest.mark.parametrize(
    ("file", "content", "state", "says"),
    [
        ("result.json", "{", "damaged", "result.json is not JSON"),
        ("result.json", "[]", "damaged", "is not a table of names and values); delete it to score the run again"),
        ("result.json", "{}", "damaged", "result.json was not written by a run; delete it to score the run again"),
        ("attempts.json", "{}", "damaged", "attempts.json is not a list of attempts; delete it"),
        ("metrics.csv", "", "interrupted", ""),
        ("config.yaml", "trainer: 3", "interrupted", ""),
        ("config.yaml", ":\n\t- {", "interrupted", ""),
        (".owner/7.claim", "{half", "interrupted", ""),
    ],
)
def test_a_damaged_file_is_said_and_hides_nothing(
    tmp_path: Path, file: str, content: str, state: str, says: str
) -> None:
    folder = make_run(tmp_path, "droid", 0, done=2)
    make_run(tmp_path, "droid", 1, done=4, result={})
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(content)
    assert states(tmp_path) == {"droid/seed0": state, "droid/seed1": "done"}
    assert says in status_of(tmp_path, "droid/seed0").detail
    assert str(tmp_path) not in status_of(tmp_path, "droid/seed0").detail


def test_damaged_notes_of_a_sweep_are_passed_over(tmp_path: Path) -> None:
    make_run(tmp_path, "droid", 0, done=2)
    folder = tmp_path / ".sweep" / "sweep"
    folder.mkdir(parents=True)
    for number, content in enumerate(("{", "[]", "{}", '{"state": "failed"}', '{"state": "failed", "folder": 3}')):
        (folder / f"{number}.json").write_text(content)
    assert states(tmp_path) == {"droid/seed0": "interrupted"}


# --- the time


def run(method: str, state: str, done: int = 0, seconds: float | None = None) -> RunStatus:
    return RunStatus(method, 0, state, done, 10, seconds)


def test_the_time_left_is_that_of_the_method() -> None:
    runs = [
        run("droid", "done", 10, 2.0),
        run("droid", "done", 10, 4.0),
        run("hseb", "done", 10, 7.0),
        run("droid", "missing"),  # 10 x 3
        run("hseb", "interrupted", 4, 1000.0),  # 6 x 7
        run("cyborg", "failed", 9),  # 1 x 4, the median of all
    ]
    assert time_left(runs) == (30 + 42 + 4, 1)
    two = [*runs, run("droid", "running", 8), run("droid", "running", 10)]
    assert time_left(two) == ((76 + 6) / 2, 2)


def test_before_a_run_is_done_those_that_are_trained_tell_the_time() -> None:
    assert time_left([run("droid", "running", 4, 5.0), run("droid", "missing")]) == ((6 + 10) * 5, 1)
    assert time_left([run("droid", "running", 0), run("droid", "missing")]) == (None, 1)


# --- what is printed


def study_of_all_kinds(study: Path, seeds: int = 10) -> None:
    for number, method in enumerate(METHODS):
        for seed in range(seeds):
            if number < 3:
                make_run(study, method, seed, done=150, epochs=150, result={})
            elif (number, seed) == (3, 0):
                make_run(study, method, seed, attempts=[attempt("failed", "OutOfMemoryError: 3 GiB are needed " * 5)])
            elif number == 3:
                make_run(study, method, seed, done=37, epochs=150, attempts=[attempt("killed")])
            elif number == 4 and seed < 2:
                make_run(study, method, seed, result="{")


def test_the_grid_fits_eighty_columns_and_needs_no_colour(tmp_path: Path, status: Callable) -> None:
    study = tmp_path / "paper"
    study_of_all_kinds(study)
    make_run(study, "a_method_of_an_own_with_a_long_name", 0, done=149, epochs=150)
    held = study / "droid" / "seed9"
    held.mkdir()
    with run_lock.held(held):
        code, out, err = status(f"study={study}")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    lines = out.splitlines()
    assert lines[0] == f"{study}: 6 methods × 10 seeds"
    assert max(map(len, lines[1:])) <= 80
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows["hseb"] == ["✓"] * 10
    assert rows["fmmmse"] == ["✗"] + ["‖24%"] * 9
    assert rows["droid"] == ["!", "!"] + ["·"] * 7 + ["▶"]
    assert "✓ 30 done  ▶ 1 running  ‖ 10 interrupted  ✗ 1 failed  ! 2 damaged  · 16 missing" in lines
    words = " ".join(out.split())
    assert "✗ failed fmmmse/seed0 OutOfMemoryError: 3 GiB are needed OutOfMemoryError" in words
    assert "▶ running droid/seed9 epoch 0 of ? done; process" in words
    assert "30 runs to go: about" in words
    assert "99%" in words  # 149 of 150 epochs are not all


def test_many_variants_are_a_table_of_counts(tmp_path: Path, status: Callable) -> None:
    """And few a grid each."""
    for value in range(9):
        folder = tmp_path / "s" / f"fraction={value}"
        write_variant(folder, {"data.human_maps.fraction": value})
        for method in ("droid", "cross_entropy", "hseb"):
            for seed in (0, 1):
                make_run(folder, method, seed, done=4, result={} if (value, method, seed) != (2, "droid", 0) else None)
    _, out, _ = status(f"study={tmp_path}/s")
    lines = [line.split() for line in out.splitlines()]
    assert out.splitlines()[0] == f"{tmp_path}/s: 9 variants × 3 methods × 2 seeds"
    assert ["variant", "\\", "method", "cross_entropy", "hseb", "droid"] in lines
    assert ["fraction=2", "✓2", "✓2", "✓1", "‖1"] in lines
    assert ["fraction=8", "✓2", "✓2", "✓2"] in lines
    assert "✓ 53 done  ‖ 1 interrupted" in out
    assert max(map(len, out.splitlines()[1:])) <= 80
    for value in range(2, 9):
        shutil.rmtree(tmp_path / "s" / f"fraction={value}")
    _, out, _ = status(f"study={tmp_path}/s")
    assert [line.split()[0] for line in out.splitlines() if "fraction=" in line] == [
        f"fraction={value}/{method}" for value in (0, 1) for method in ("cross_entropy", "hseb", "droid")
    ]
    _, out, _ = status(f"study={tmp_path}/s", "format=json")
    document = json.loads(out)
    assert document["variants"]["fraction=1"] == {"data.human_maps.fraction": 1}
    assert (document["runs"][0]["variant"], document["runs"][0]["trial"]) == ("fraction=0", "")
    _, out, _ = status(f"study={tmp_path}/s/fraction=1")
    assert out.splitlines()[0] == f"{tmp_path}/s/fraction=1: 3 methods × 2 seeds"


def test_what_a_sweep_and_slurm_say_of_a_variant_is_in_its_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "s"
    for value in (0, 1):
        write_variant(study / f"fraction={value}", {"data.human_maps.fraction": value})
        make_run(study / f"fraction={value}", "droid", 0, attempts=[])
    note_failure(study, "droid", 0, "no maps")
    (note,) = study.glob(".sweep/*/*.json")
    note.write_text(note.read_text().replace("/s/droid", "/s/fraction=1/droid"))
    record_jobs(study, {study / "fraction=0" / "droid" / "seed0": QueuedJob("7_0", "0" * 16)})
    monkeypatch.setattr("saliency_entropy.sweep.queue.job_states", lambda _: {"7_0": "PENDING"})
    assert states(study) == {"fraction=0/droid/seed0": "queued", "fraction=1/droid/seed0": "failed"}
    assert states(study / "fraction=0") == {"droid/seed0": "queued"}
    assert status_of(study / "fraction=1", "droid/seed0").detail == "no maps"


def test_more_seeds_than_fit_are_a_further_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run_ for seed in range(23) for run_ in [RunStatus("droid_cyborg", seed, "interrupted", 99, 100)]]
    print_status(terminal(), tmp_path, runs)
    out = capsys.readouterr().out
    assert out.count("method \\ seed") == 3
    assert out.count("‖99%") == 23
    assert max(map(len, out.splitlines()[1:])) <= 80


def test_a_study_that_is_done(tmp_path: Path, status: Callable) -> None:
    make_run(tmp_path / "s", "droid", 0, done=4, result={})
    code, out, _ = status(f"study={tmp_path}/s")
    assert code == 0
    assert out.strip().endswith("all 1 run done")


def test_names_are_no_markup(tmp_path: Path, status: Callable) -> None:
    make_run(tmp_path / "s", "droid", 0, attempts=[attempt("failed", "[bold]x[/bold] [/] \\[y]")])
    assert "[bold]x[/bold] [/] \\[y]" in status(f"study={tmp_path}/s")[1]


def test_scripts_get_json(tmp_path: Path, status: Callable) -> None:
    make_run(tmp_path / "s", "droid", 0, done=4, result={})
    make_run(tmp_path / "s", "droid", 1, done=1, attempts=[attempt("failed", "no room")])
    code, out, _ = status(f"study={tmp_path}/s", "format=json")
    assert code == 0
    document = json.loads(out)
    assert (document["seconds_left"], document["at_once"]) == (30.0, 1)
    assert document["runs"][1] == {
        "method": "droid", "seed": 1, "state": "failed", "epochs_done": 1, "epochs": 4, "seconds_an_epoch": None,
        "detail": "no room", "trial": "", "variant": "",
    }  # fmt: skip


def test_a_search_is_shown_trial_by_trial(tmp_path: Path, status: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tmp_path / "weights"
    make_run(study / "0.3_0.3", "droid", 0, done=4, result={})
    make_run(study / "0.3_0.3", "droid", 1, done=3, attempts=[attempt("failed", "no room")])
    waiting = make_run(study / "0.1_0.52", "droid", 0, done=2, attempts=[attempt("killed")])
    (study / "search").mkdir()
    (study / "search.journal").write_text("{}\n")
    record_jobs(study, {waiting: QueuedJob("7", "")})
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text("#!/bin/sh\necho 7 PENDING\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(squeue.parent), prepend=os.pathsep)

    code, out, err = status(f"study={study}")
    assert code == 0, err
    lines = [line.split() for line in out.splitlines()]
    assert out.startswith(f"{study}: 2 trials of a search × 2 seeds\n")
    assert ["trial", "\\", "seed", "0", "1"] in lines
    assert lines.index(["0.1_0.52", "…", "·"]) < lines.index(["0.3_0.3", "✓", "✗"])
    assert ["0.3_0.3/droid/seed1", "no", "room"] in lines
    assert f"python experiments/weights.py study={study}\n" in out

    make_run(study / "0.3_0.3", "hseb", 0, done=4, result={})
    code, out, _ = status(f"study={study}")
    assert {"0.1_0.52/droid", "0.3_0.3/droid", "0.3_0.3/hseb"} <= set(out.split())
    document = json.loads(status(f"study={study}", "format=json")[1])
    assert [(run["trial"], run["method"], run["state"]) for run in document["runs"] if run["seed"] == 0] == [
        ("0.1_0.52", "hseb", "missing"), ("0.1_0.52", "droid", "queued"),
        ("0.3_0.3", "hseb", "done"), ("0.3_0.3", "droid", "done"),
    ]  # fmt: skip


# --- mistakes


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "study must be given: study=..."),
        (["study={0}/nowhere"], "study={0}/nowhere is not a folder; give the folder of a study"),
        (["study={0}/s/droid/seed0"], "study={0}/s/droid/seed0 is a single run; give the folder of its study"),
        (["study={0}"], "study={0} holds no runs but further studies: give one of them, study={0}/s"),
        (["study={0}/s/.sweep"], "study={0}/s/.sweep holds no runs; train some first"),
        (["study={0}/s", "format=xml"], "format is 'xml'; choose table or json"),
        (["study={0}/s", "seed=3"], "Could not override 'seed'"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, status: Callable, overrides: list[str], message: str) -> None:
    make_run(tmp_path / "s", "droid", 0, done=1)
    (tmp_path / "s" / ".sweep").mkdir()
    code, out, err = status(*(override.format(tmp_path) for override in overrides))
    assert code == 1
    assert message.format(tmp_path) in err
    assert "Traceback" not in out + err


# --- a run that is trained meanwhile


@pytest.mark.slow
def test_a_run_while_it_is_trained_and_after_it_was_killed(small: list[str], tmp_path: Path) -> None:
    study = tmp_path / "live"
    folder = study / "droid" / "seed0"
    process = subprocess.Popen(
        [sys.executable, ROOT / "experiments" / "train.py", *small, "method=droid", "trainer.max_epochs=100000",
         "study=live", f"runs_dir={tmp_path}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path,
    )  # fmt: skip
    try:
        while not (folder / "checkpoints" / "resume.ckpt").exists():
            assert process.poll() is None
            time.sleep(0.01)
        (alive,) = study_status(study)
        assert alive.state == "running"
        assert 1 <= alive.epochs_done < alive.epochs == 100_000
        assert f"process {process.pid} on " in alive.detail
    finally:
        process.kill()
        process.wait()
    (dead,) = study_status(study)
    assert dead.state == "stale"
    assert dead.epochs_done >= alive.epochs_done
    assert f"process {process.pid} on " in dead.detail
    with run_lock.held(folder):  # the next to come lets go of it
        pass
    assert study_status(study)[0].state == "interrupted"


def test_a_real_run_that_is_done(train_small: Callable[..., Path], tmp_path: Path) -> None:
    folder = train_small(tmp_path / "s" / "droid" / "seed0", "method=droid")
    result = json.loads((folder / "result.json").read_text())
    (done,) = study_status(tmp_path / "s")
    assert (done.state, done.epochs_done, done.epochs) == ("done", 2, 2)
    assert done.seconds_an_epoch == result["wall_seconds"] / 2
    shutil.rmtree(folder / "scores")
    (folder / "result.json").unlink()
    assert study_status(tmp_path / "s")[0].state == "interrupted"


def test_sixty_runs_are_read_without_pytorch_and_pandas(tmp_path: Path) -> None:
    study_of_all_kinds(tmp_path / "paper")
    program = (
        "import resource, runpy, sys\n"
        f"sys.argv = ['status.py', 'study={tmp_path}/paper']\n"
        "runpy.run_path('experiments/status.py', run_name='__main__')\n"
        "assert not {'torch', 'pytorch_lightning', 'pandas', 'numpy'} & set(sys.modules)\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print('seconds', used.ru_utime + used.ru_stime)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    # Of the processor: less than 1 where nothing else is done, and cores that are shared with other work count more.
    assert float(ended.stdout.split("seconds")[-1]) < 6


def test_help_shows_the_settings() -> None:
    ended = subprocess.run(
        [sys.executable, "experiments/status.py", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "format: table" in ended.stdout
