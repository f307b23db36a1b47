"""What every command shares: a user's mistake becomes one sentence, not a traceback."""

import codecs
import functools
import io
import locale
import logging
import multiprocessing
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException, HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from saliency_entropy.errors import UserError
from saliency_entropy.run.console import CONFIGURATION, groups_help, script_help
from saliency_entropy.run.folder import flatten, plain_values, register_resolvers
from saliency_entropy.run.misspelt import refuse_null, refused_additions, suggestions

register_resolvers()
# Only a file's owner and group may change what a command writes; this holds for folders that Hydra, Slurm and W&B make.
os.umask(os.umask(0o077) | 0o002)
# A line that a full disk keeps out of train.log is still on the screen; without this, each would add a traceback.
logging.raiseExceptions = False

HELP = {"-h", "--help"}
ENDING = (signal.SIGINT, signal.SIGTERM)  # from Ctrl-C, and from a scheduler


def hydra_command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a script's task function its command, which reads the command line by ``conf/<config_name>.yaml``; see
    :func:`command`. Below Hydra's message about a misspelt name stands the nearest right one."""

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        run = hydra.main(version_base="1.3", config_path=str(CONFIGURATION), config_name=config_name)(command(task))

        @functools.wraps(task)
        def main() -> None:
            arguments = sys.argv[1:]
            refuse_null(arguments)
            refuse_unquoted(arguments)
            folders = [CONFIGURATION, *own_configuration(arguments)]
            if HELP & {*arguments}:
                shown = [
                    script_help(sys.modules["__main__"].__doc__),
                    groups_help(folders, config_name),
                    "Values, as key=value:",
                ]
                print(*filter(None, shown), sep="\n\n", end="\n\n", flush=True)
                insert_overrides("hydra.help.template='$CONFIG'")  # Hydra's own lists every group for every command
            try:
                run()
            except SystemExit as end:
                if end.code == 1:
                    for suggestion in suggestions(arguments, folders, config_name):
                        print(suggestion, file=sys.stderr)
                raise

        return main

    return decorate


def insert_overrides(*overrides: str) -> None:
    """Add overrides to the command line before its first: flags may stand before and after all of them, not between."""
    given = [at for at, word in enumerate(sys.argv) if at and word[:1] != "-" and ("=" in word or word[:1] == "~")]
    first = min(given, default=len(sys.argv))
    sys.argv[first:first] = overrides


def refuse_unquoted(arguments: list[str]) -> None:
    """End the command with a sentence if an argument has letters, such as ä, that Hydra reads only in quotes."""
    for argument in arguments:
        if argument.isascii() or argument.startswith("-") or "=" not in argument:
            continue
        try:
            OverridesParser.create().parse_override(argument)
        except HydraException:
            key, _, value = argument.partition("=")
            quoted = shlex.quote(f'{key}="{value}"')
            sys.exit(f"{argument} has letters that need quotes, inside those of the shell: {quoted}")


def own_configuration(arguments: list[str]) -> list[Path]:
    """The folder that the user gives with ``--config-dir``, whose files go before the package's of the same name. Ends
    the process where one hides a main file, since a copy from another version lacks what this one reads."""
    given = get_args_parser().parse_known_args(arguments)[0].config_dir
    if given is None or not Path(given).is_dir() or Path(given).resolve() == CONFIGURATION.resolve():
        return []
    own = {path.relative_to(given) for path in Path(given).rglob("*.yaml")}
    hidden = sorted(path for path in own if (CONFIGURATION / path).exists())
    for path in hidden:
        if path.parent == Path():
            sys.exit(f"{Path(given) / path} would replace the package's own {path}: keep only options of groups there")
        print(f"{path} is read from {given}, not from the package", file=sys.stderr)
    return [Path(given)]


def prepare_process() -> None:
    """Let no line that is printed fail: standard output may be closed, or lack a character, or be a pipe that is no
    longer read. Ends the process with a sentence where files would be read and written in another encoding than UTF-8.
    The folder of a variant, which has = in its name, may be given without Hydra's quotes.
    """
    of_variant = re.compile(r"^(study|checkpoint|reference)=([^'\"\[]*=.*)")
    sys.argv[1:] = [of_variant.sub(r"\1='\2'", argument) for argument in sys.argv[1:]]
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed; its number would go to the next file, and what is printed into it
            setattr(sys, name, open(os.open(os.devnull, os.O_RDWR), mode))  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if {*HELP, "--hydra-help", "-c", "--cfg", "-i", "--info"} & {*sys.argv[1:]}:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # such a command only prints; a run goes on without a reader
    encoding = locale.getpreferredencoding(False)
    if codecs.lookup(encoding).name != "utf-8":
        sys.exit(f"the locale's encoding is {encoding}, in which not every name can be written: set PYTHONUTF8=1")


class _OneSentence(CompactHydraException):
    """An error that Hydra prints without a traceback (HYDRA_FULL_ERROR=1 shows it) before it exits with 1; in a sweep
    the other jobs still run."""


def command(task: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Wrap the task function of a Hydra command: a :class:`UserError` reaches the user as its sentence alone, and no
    environment variable reaches a configuration, see :func:`no_environment_variables`. The process is prepared, see
    :func:`prepare_process`."""
    prepare_process()

    @functools.wraps(task)
    def wrapped(config: DictConfig) -> Any:
        given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
        try:
            with one_sentence(), no_environment_variables(), refused_additions(config, given):
                require_values(config)
                return task(config)
        except (SystemExit, KeyboardInterrupt) as end:
            if getattr(end, "code", None) in {128 + received for received in ENDING}:
                raise  # the sentence has been said
            # Lightning ends a run after SIGTERM with a SystemExit without a code, which would pass for success, and
            # after SIGINT with the code of a failure.
            for received, name in ((signal.SIGTERM, "SIGTERMException"), (signal.SIGINT, "KeyboardInterrupt")):
                if name in (type(end).__name__, type(end.__context__).__name__):
                    # A launcher that forked this run ends all its runs, and says so once.
                    if multiprocessing.parent_process() is not None:
                        sys.exit(128 + received)
                    _end(received)
            raise

    return wrapped


@contextmanager
def one_sentence() -> Iterator[None]:
    """Hand a user's mistake to Hydra as its sentence alone; of other errors Hydra shows a traceback."""
    try:
        yield
    except Exception as error:
        text = sentence(error)
        if text is None:
            raise
        raise _OneSentence(text) from error


@contextmanager
def ended_with_a_sentence() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the ``with`` block and then this process, with a sentence instead of a traceback."""

    def interrupt(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    # A shell makes background processes ignore Ctrl-C; this must not undo that.
    handled = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in handled}
    try:
        yield
    except KeyboardInterrupt as interruption:
        (number,) = interruption.args
        _end(signal.Signals(number))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(received: signal.Signals) -> NoReturn:
    print(f"ended by {received.name}: give the same command again to go on", file=sys.stderr)
    sys.exit(128 + received)


def require_values(config: DictConfig) -> None:
    """Raises UserError if a value without a default was not given."""
    # OmegaConf.missing_keys would fail on a value that refers to a missing one.
    values = flatten(plain_values(config, resolve=False))
    missing = [key for key, value in values.items() if value == "???"]
    if missing:
        raise UserError(f"{' and '.join(missing)} must be given: {missing[0]}=...")


_refusing: list[bool] = []


@contextmanager
def no_environment_variables() -> Iterator[None]:
    """Refuse to resolve ``${oc.env:NAME}`` in a configuration meanwhile.

    A configuration is written into config.yaml, checkpoints and W&B; one that took in the environment could publish an
    API key. Refusing in the resolver, rather than searching the text, covers every spelling. Hydra's own part (a
    launcher's settings) is resolved earlier, and may use environment variables.
    """
    OmegaConf.register_new_resolver("oc.env", _refuse_variable, replace=True)
    _refusing.append(True)
    try:
        yield
    finally:
        _refusing.pop()
        if not _refusing:  # not within another such block
            OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def _refuse_variable(name: str, default: object = None) -> None:
    raise UserError(
        f"environment variable {name} in a configuration is refused, since the configuration is written into every "
        "run's files: give the value itself, which on the command line the shell can fill in (data.root=$DATA)"
    )


def sentence(error: BaseException | None) -> str | None:
    """The sentence that tells the user of a mistake; None if the error is none of the user's.

    The mistake is the error itself or, as Hydra raises it, the cause of the error. OmegaConf's messages have further
    lines; only their key is kept.
    """
    while not isinstance(error, UserError | OmegaConfBaseException):
        if error is None:
            return None
        error = error.__cause__
    first, *more = str(error).strip().splitlines()
    if not isinstance(error, OmegaConfBaseException):
        # PyTorch puts a DataLoader worker's traceback before the message.
        return str(error).strip().rpartition(f"{UserError.__module__}.{UserError.__name__}: ")[2]
    keys = [line.strip().removeprefix("full_key: ") for line in more if line.strip().startswith("full_key: ")]
    first = first.removeprefix("UserError raised while resolving interpolation: ")
    return f"{first} (key {keys[0]})" if keys and keys[0] not in first else first
