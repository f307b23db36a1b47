"""The installed command, what --help says first, and the nearest right name for a misspelt one."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from saliency_entropy.run import console
from saliency_entropy.run.command import own_configuration
from saliency_entropy.run.console import (
    CONFIGURATION,
    FOR_DEVELOPERS,
    SCRIPTS,
    groups_help,
    script_help,
    summary,
    typed,
)
from saliency_entropy.run.misspelt import suggestions

ROOT = Path(__file__).parents[2]


def given(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> str | int | None:
    monkeypatch.setattr(sys, "argv", ["saliency-entropy", *arguments])
    with pytest.raises(SystemExit) as end:
        console.main()
    return end.value.code


def test_the_commands_are_listed_without_hydra() -> None:
    program = (
        "import sys; sys.argv = ['saliency-entropy']; from saliency_entropy.run.console import main; main()\n"
        "assert not {'hydra', 'torch', 'pandas'} & set(sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    for script in SCRIPTS.glob("*.py"):
        assert (f"  {script.stem} " in ended.stdout) == (script.stem not in FOR_DEVELOPERS)
        assert (summary(script) in ended.stdout) == (script.stem not in FOR_DEVELOPERS)


def test_a_command_that_is_not_there(monkeypatch) -> None:
    assert given("trian", monkeypatch=monkeypatch) == "saliency-entropy has no command 'trian': did you mean train?"
    assert "the commands are annotate, dashboard, data," in given("xyz", monkeypatch=monkeypatch)


def test_a_command_gets_its_arguments(monkeypatch, capfd) -> None:
    assert given("report", "--help", monkeypatch=monkeypatch) == 0
    out = capfd.readouterr().out
    assert out.startswith("Write the report of a study: tables")
    assert "study: ???" in out  # of conf/report.yaml
    assert "backbone" not in out
    assert "Hydra" not in out


def test_help_lists_the_groups_of_the_command_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").touch()
    for name in ("report", "predict", "export", "status", "weights"):
        assert groups_help([CONFIGURATION], name) == ""
    assert groups_help([CONFIGURATION, tmp_path], "evaluate") == (
        "Groups, as group=option:\n\ndata: builtin, decoy, faces, folder, mine, shards, und_cyborg"
    )
    listed = {line.partition(":")[0] for line in groups_help([CONFIGURATION], "train").splitlines()[2:]}
    assert listed == {folder.name for folder in CONFIGURATION.iterdir() if folder.is_dir()} - {"hydra", "loading"}


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.py")), ids=lambda script: script.stem)
def test_every_script_says_what_it_does_and_how_it_is_called(script: Path) -> None:
    lines = script_help(ast.get_docstring(ast.parse(script.read_text()))).splitlines()
    assert lines[0] == lines[0].strip() != ""
    calls = [line for line in lines if line.startswith("    ")]
    assert 1 <= len(calls) <= 3
    assert all(f"{script.stem}.py" in call or "python experiments/train.py" in call for call in calls)


def test_a_command_is_named_as_it_is_given(monkeypatch) -> None:
    assert typed("report") == "python experiments/report.py"
    monkeypatch.setattr(console, "SCRIPTS", console.PACKAGE / "experiments")
    assert typed("report") == "saliency-entropy report"
    assert script_help("Does it.\n\n    python experiments/report.py study=a\n") == (
        "Does it.\n\n    saliency-entropy report study=a"
    )


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("methd=droid", "methd: did you mean method?"),
        ("method=drod", "method=drod: did you mean method=droid?"),
        ("method=cyborg,drod", "method=drod: did you mean method=droid?"),
        (
            "data.human_maps.control=shuffled",
            "data.human_maps.control: data.human_maps has no control; if it takes one, "
            "+data.human_maps.control=shuffled gives it",
        ),
        ("data.human_maps.contrl=shuffled", "data.human_maps.contrl: did you mean +data.human_maps.control?"),
        ("data.root=DIR", "data.root: this data has no root; with data=faces or folder or und_cyborg it has one"),
        ("data.bach_size=8", "data.bach_size: did you mean data.batch_size?"),
        ("batch_size=8", "batch_size: did you mean data.batch_size or protocol.batch_size?"),
        ("term@loss.terms.x=entropi", "term@loss.terms.x=entropi: did you mean term@loss.terms.x=entropy?"),
        ("runs/demo", "runs/demo: an argument is KEY=VALUE, and --help lists the keys"),
    ],
)
def test_the_nearest_right_name(argument: str, sentence: str) -> None:
    assert suggestions([argument], [CONFIGURATION], "train") == [sentence]


@pytest.mark.parametrize(
    "argument",
    ["method=droid", "+mine=3", "~experiment", "-m", "seed=0,1", "hydra.mode=RUN", "zzzzzzzz=1", "method=glob(*)"],
)
def test_what_is_right_or_like_nothing_is_passed_over(argument: str) -> None:
    assert suggestions([argument], [CONFIGURATION], "train") == []


def test_the_value_of_a_flag_is_no_argument_of_its_own() -> None:
    assert suggestions(["--config-dir", "mine", "method=droid"], [CONFIGURATION], "train") == []


def test_keys_that_another_group_has_are_known() -> None:
    assert suggestions(["data=faces", "data.rot=x"], [CONFIGURATION], "train") == ["data.rot: did you mean data.root?"]


def test_options_of_a_users_own_are_known(tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("method: {name: mine}\n")
    assert own_configuration(["--config-dir", str(tmp_path), "method=mine"]) == [tmp_path]
    assert suggestions(["method=min"], [CONFIGURATION, tmp_path], "train") == ["method=min: did you mean method=mine?"]


def test_a_users_file_that_hides_one_of_the_package(tmp_path: Path, capsys) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "droid.yaml").touch()
    own_configuration(["--config-dir", str(tmp_path)])
    assert capsys.readouterr().err == f"method/droid.yaml is read from {tmp_path}, not from the package\n"
    (tmp_path / "train.yaml").touch()
    with pytest.raises(SystemExit, match=r"would replace the package's own train\.yaml: keep only options of groups"):
        own_configuration(["--config-dir", str(tmp_path)])


def test_the_package_own_folder_hides_nothing(capsys) -> None:
    assert own_configuration(["--config-dir", str(CONFIGURATION)]) == []
    assert capsys.readouterr().err == ""


def test_the_command_names_what_was_meant(command) -> None:
    ended = command("methd=droid")
    assert ended.code == 1
    assert ended.err.endswith("methd: did you mean method?\n")
