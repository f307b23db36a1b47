"""What every command shares: a user's mistake is one sentence, not a traceback."""

import functools
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from saliency_entropy.errors import UserError
from saliency_entropy.run.folder import flatten, register_resolvers

register_resolvers()
# Nobody but its owner and group may change what a command writes; Hydra, Slurm and W&B make folders by this, too.
os.umask(os.umask(0o077) | 0o002)
# A line that a full disk has no room for in train.log is on the screen; a traceback for each would be, too.
logging.raiseExceptions = False

ENDING = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what a scheduler sends


class _OneSentence(CompactHydraException):
    """Hydra prints this without a traceback (HYDRA_FULL_ERROR=1 shows it) and exits with 1; in a sweep the other
    jobs still run."""


def command(task: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Wrap the task function of a Hydra command so that a :class:`UserError` reaches the user as its sentence, and
    no environment variable reaches a configuration, see :func:`no_environment_variables`."""

    @functools.wraps(task)
    def wrapped(config: DictConfig) -> Any:
        try:
            with one_sentence(), no_environment_variables():
                require_values(config)
                return task(config)
        except (SystemExit, KeyboardInterrupt) as end:
            # Lightning ends a run that got SIGTERM with a SystemExit of no code, which would pass for success, and one
            # that got SIGINT with the code of a failure.
            for received, name in ((signal.SIGTERM, "SIGTERMException"), (signal.SIGINT, "KeyboardInterrupt")):
                if name in (type(end).__name__, type(end.__context__).__name__):
                    # A run that a launcher has forked is ended with the others, of which the launcher says so once.
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
        mistake = users_mistake(error)
        if mistake is not None:
            raise _OneSentence(sentence(mistake)) from error
        raise


@contextmanager
def ended_with_a_sentence() -> Iterator[None]:
    """Ctrl-C and SIGTERM end what is in here, and then this process, with a sentence instead of a traceback."""

    def interrupt(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    # A shell has what it starts in the background ignore Ctrl-C.
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


def users_mistake(error: BaseException) -> UserError | OmegaConfBaseException | None:
    """The error of a user that an error is, or that it was raised from, as Hydra does it; None if it is none."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError | OmegaConfBaseException):
        cause = cause.__cause__
    return cause


def require_values(config: DictConfig) -> None:
    """Raises UserError if a value that has no default was not given."""
    # Not OmegaConf.missing_keys, which fails on a value that refers to a missing one.
    values = flatten(OmegaConf.to_container(config))
    missing = [key for key, value in values.items() if value == "???"]
    if missing:
        raise UserError(f"{' and '.join(missing)} must be given: {missing[0]}=...")


@contextmanager
def no_environment_variables() -> Iterator[None]:
    """Meanwhile a configuration with ``${oc.env:NAME}`` is refused when it is resolved.

    What a configuration holds is written into config.yaml, checkpoints and W&B; one that could take in the
    environment would publish an API key. Refusing by the resolver, not by a look at the text, leaves no spelling out.
    Hydra's own part (a launcher's settings) is resolved before, and may use it.
    """
    OmegaConf.register_new_resolver("oc.env", _refuse_variable, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def _refuse_variable(name: str, default: object = None) -> None:
    raise UserError(
        f"environment variable {name} in a configuration is refused, since the configuration is written into every "
        "run's files: give the value itself, which on the command line the shell can fill in (data.root=$DATA)"
    )


def sentence(error: Exception) -> str:
    """What a user is told of an error. OmegaConf's messages have further lines, of which the key is worth keeping."""
    first, *more = str(error).strip().splitlines()
    if not isinstance(error, OmegaConfBaseException):
        # PyTorch puts the traceback of a DataLoader's worker into the message.
        return str(error).strip().rpartition(f"{UserError.__module__}.{UserError.__name__}: ")[2]
    keys = [line.strip().removeprefix("full_key: ") for line in more if line.strip().startswith("full_key: ")]
    first = first.removeprefix("UserError raised while resolving interpolation: ")
    return f"{first} (key {keys[0]})" if keys and keys[0] not in first else first
