"""A run has one option of each group that decides what is trained."""

from collections.abc import Callable
from pathlib import Path

import pytest

from saliency_entropy.run.misspelt import GROUPS, refuse_mixtures

MIXTURES = [
    pytest.param("method=[cyborg,droid]", "-m method=cyborg,droid", id="method"),
    pytest.param("backbone=[tiny,resnet50]", "-m backbone=tiny,resnet50", id="backbone"),
    pytest.param("protocol=[paper,author]", "-m protocol=paper,author", id="protocol"),
    pytest.param("+experiment=[paper,faces]", "one command for each", id="experiment"),
    pytest.param("debug=[fast,overfit]", "one command for each", id="debug"),
]


@pytest.mark.parametrize(("given", "remedy"), MIXTURES)
@pytest.mark.parametrize("flags", [[], ["-m"]], ids=["run", "sweep"])
def test_two_options_of_a_group_are_refused_before_anything_is_made(
    command: Callable, tmp_path: Path, given: str, remedy: str, flags: list[str]
) -> None:
    ended = command(*flags, given.lstrip("+"), defaults=["data=builtin"])
    group = given.lstrip("+").partition("=")[0]
    assert ended.code == 1
    assert f"{given.lstrip('+')} is not one option of conf/{group}" in ended.err
    assert remedy in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "runs").exists()


def test_a_mixture_among_the_values_of_a_sweep_is_refused(command: Callable, tmp_path: Path) -> None:
    ended = command("-m", "method=droid,[cyborg,hseb]", "seed=0,1")
    assert ended.code == 1
    assert "method=[cyborg,hseb] is not one option of conf/method" in ended.err
    assert not list((tmp_path / "runs").rglob("seed*"))


@pytest.mark.parametrize("given", ["logger=null", "method=droid,null", "backbone=NULL"])
def test_no_option_of_a_group_is_refused(command: Callable, tmp_path: Path, given: str) -> None:
    ended = command("-m", given)
    assert (ended.code, (tmp_path / "runs").exists()) == (1, False)
    assert ended.err == f"{given} names no option of conf/{given.split('=')[0]}: give one, or leave it out\n"


@pytest.mark.parametrize("given", ["~debug", "debug=[fast]"])
def test_an_overlay_may_be_left_out_or_be_a_list_of_one(given: str) -> None:
    choices = dict.fromkeys(GROUPS) | {"method": "droid"}
    del choices["debug"]
    refuse_mixtures({"runtime": {"choices": choices}, "overrides": {"task": [given]}})


def test_terms_may_be_several(command: Callable) -> None:
    ended = command("method=hseb", "+term@loss.terms=[entropy]", "loss.terms.entropy.weight=0.1")
    assert ended.code == 0, ended.err
