"""What every command shares: how it ends, and what a user is told."""

import io
import locale
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import CompactHydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from saliency_entropy.errors import UserError
from saliency_entropy.run.callbacks import progress_bars
from saliency_entropy.run.command import (
    command,
    ended_with_a_sentence,
    no_environment_variables,
    prepare_process,
    refuse_unquoted,
    sentence,
)

ROOT = Path(__file__).parents[2]


def test_a_run_that_was_told_to_end_does_not_pass_for_a_success():
    class SIGTERMException(SystemExit):
        """What Lightning raises after SIGTERM: it has no code, so Python would end with 0."""

    @command
    def task(config):
        raise SIGTERMException

    with pytest.raises(SystemExit) as end:
        task(OmegaConf.create())
    assert end.value.code == 128 + signal.SIGTERM


def test_an_interrupted_command_says_how_to_go_on(capsys):
    @command
    def task(config):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise SystemExit(1)  # noqa: B904 (as Lightning does it)

    with pytest.raises(SystemExit) as end:
        task(OmegaConf.create())
    assert end.value.code == 130
    assert capsys.readouterr().err == "ended by SIGINT: give the same command again to go on\n"


@pytest.mark.parametrize("received", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_ends_with_a_sentence_says_it_once(capsys, received):
    @command
    def task(config):
        with ended_with_a_sentence():
            signal.raise_signal(received)

    with pytest.raises(SystemExit) as end:
        task(OmegaConf.create())
    assert end.value.code == 128 + received
    assert capsys.readouterr().err == f"ended by {received.name}: give the same command again to go on\n"


def test_values_that_were_not_given_are_named():
    @command
    def task(config):
        raise AssertionError("it began")

    with pytest.raises(CompactHydraException, match=r"^a and b\.c must be given: a=\.\.\.$"):
        task(OmegaConf.create({"a": "???", "b": {"c": "???", "d": "${a}"}}))


def test_another_exit_is_left_alone():
    @command
    def task(config):
        raise SystemExit(3)

    with pytest.raises(SystemExit) as end:
        task(OmegaConf.create())
    assert end.value.code == 3


def test_the_sentence_of_a_worker_is_freed_of_its_traceback():
    told = (
        "Caught UserError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "x.py", line 1, in <module>\nsaliency_entropy.errors.UserError: a.png is empty; copy it again\n'
    )
    assert sentence(UserError(told)) == "a.png is empty; copy it again"
    assert sentence(UserError("a.png is empty; copy it again")) == "a.png is empty; copy it again"


@pytest.mark.parametrize("script", ["train.py", "plan.py"])
def test_help_comes_without_pytorch(script: str) -> None:
    program = (
        f"import runpy, sys; sys.argv = ['{script}', '--help']\n"
        f"try: runpy.run_path('experiments/{script}', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'pytorch_lightning', 'timm', 'pandas'} & set(sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "hseb" in ended.stdout


def test_a_process_without_standard_output_prints_into_nothing(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    prepare_process()
    print("nobody reads this", flush=True)
    assert sys.stdin.read() == ""
    assert progress_bars() == []
    files = {Path(f"/proc/self/fd/{stream.fileno()}").readlink() for stream in (sys.stdin, sys.stdout, sys.stderr)}
    assert files == {Path(os.devnull)}


def test_a_character_that_the_output_lacks_costs_no_line(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    prepare_process()
    print("1.96 ± 0.02 ✓", flush=True)
    assert written.getvalue() == b"1.96 \\xb1 0.02 \\u2713\n"


@pytest.mark.parametrize("flag", ["--help", "--cfg"])
def test_what_only_prints_ends_quietly_when_its_pipe_is_closed(monkeypatch, flag):
    before = signal.getsignal(signal.SIGPIPE)
    try:
        prepare_process()
        assert signal.getsignal(signal.SIGPIPE) == before  # a run goes on
        monkeypatch.setattr(sys, "argv", ["train.py", flag])
        prepare_process()
        assert signal.getsignal(signal.SIGPIPE) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGPIPE, before)


@pytest.mark.parametrize("encoding", ["ANSI_X3.4-1968", "ISO-8859-1"])
def test_another_encoding_than_utf_8_is_refused(monkeypatch, encoding):
    monkeypatch.setattr(locale, "getpreferredencoding", lambda _: encoding)
    with pytest.raises(SystemExit, match=f"^the locale's encoding is {encoding}, .* set PYTHONUTF8=1$"):
        prepare_process()


@pytest.mark.parametrize(("given", "read"), [
    ("study=runs/s/a=1,b=x", "study='runs/s/a=1,b=x'"),
    ("checkpoint=runs/s/a=1/droid/seed*", "checkpoint='runs/s/a=1/droid/seed*'"),
    ("reference=a=1", "reference='a=1'"),
    ("study=runs/s", "study=runs/s"),
    ("study=a,b", "study=a,b"),
    ("study=[runs/a,runs/b]", "study=[runs/a,runs/b]"),
    ("study='s/a=1'", "study='s/a=1'"),
    ("+note='x=1'", "+note='x=1'"),
])  # fmt: skip
def test_the_folder_of_a_variant_needs_no_quotes(monkeypatch, given, read):
    """Which Hydra asks for where a value has = in it."""
    monkeypatch.setattr(sys, "argv", ["status.py", given])
    prepare_process()
    assert sys.argv == ["status.py", read]


def test_letters_that_need_quotes_are_named_with_them():
    right = 'data.root="/home/müller/a b"'
    with pytest.raises(SystemExit, match=r"^data\.root=/home/müller/a b has letters ") as end:
        refuse_unquoted(["data.root=/home/müller/a b"])
    assert str(end.value).endswith(f": '{right}'")
    refuse_unquoted([right, "-m", "--config-dir=/ä", "--config-dir", "/ä", "seed=0", "note='ä'"])


def test_environment_variables_are_refused_until_the_outermost_block_ends(monkeypatch):
    monkeypatch.setenv("HIDDEN", "secret")
    config = OmegaConf.create({"key": "${oc.env:HIDDEN}"})
    with no_environment_variables():
        with no_environment_variables():
            pass
        with pytest.raises(OmegaConfBaseException, match="HIDDEN in a configuration is refused"):
            _ = config.key
    assert config.key == "secret"
